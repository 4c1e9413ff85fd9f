"""Reads a small file that the config names, without letting its file system stop the event loop."""

import asyncio
import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, TypeVar

from connection_exporter.system.mounts import MountTable
from connection_exporter.system.threads import NoThread, SharedWork

_T = TypeVar("_T")

_LOCAL: Final = frozenset(
    {
        "btrfs",
        "devtmpfs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "overlay",
        "ramfs",
        "squashfs",
        "tmpfs",
        "xfs",
        "zfs",
    }
)
"""File systems on this machine's own disks and memory. Any other may wait for a network, or for a process (FUSE)."""

_LOCAL_FOR: Final = 300.0
"""Seconds after which it is looked up again where a file is, because a symbolic link may lead elsewhere now."""

_MOUNTS: Final = MountTable()


class FileReader(Generic[_T]):
    """Calls ``read``, which must be quick on a local file system, and in a thread on any other.

    A thread costs 60 us, half as much as a whole probe, and a pidfile is looked at four times a second. Of one file,
    at most one call is in flight, so a mount that does not respond costs one thread. Belongs to one event loop.
    """

    def __init__(self, path: Path, read: Callable[[], _T], *, timeout: float) -> None:
        self._path = path
        self._call = read
        self._timeout = timeout
        self._in_thread: SharedWork[Path, _T] = SharedWork()
        self._local_until = 0.0
        self._mounts_seen = 0.0

    @property
    def is_local(self) -> bool:
        """Whether the file is known to be on a local file system, so that reading it is quick."""
        return time.monotonic() < self._local_until and self._mounts_seen == _MOUNTS.version()

    async def read(self) -> _T:
        """Return what ``read`` returns, or raise what it raises. Raises TimeoutError after ``timeout`` seconds."""
        if self.is_local:
            return self._call()
        try:
            async with asyncio.timeout(self._timeout):
                return await self._in_thread.run(self._path, self._locate_and_read, name="read file")
        except NoThread:
            return self._call()  # a pause of the event loop is better than a wrong answer
        except TimeoutError as error:
            raise TimeoutError(errno.ETIMEDOUT, "the file system does not respond") from error

    def _locate_and_read(self) -> _T:
        self._mounts_seen = _MOUNTS.version()  # before the look, so that no change is missed
        local = file_system(self._path) in _LOCAL
        self._local_until = time.monotonic() + _LOCAL_FOR if local else 0.0
        return self._call()


def file_system(path: Path) -> str:
    """Return the type of the file system that ``path`` is on, or would be, as in proc_pid_mountinfo(5). May block.

    The result is empty where it cannot be determined.
    """
    with suppress(OSError):
        existing = next((place for place in (path, *path.absolute().parents) if place.exists()), Path("/"))
        device = existing.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
            mount, _, kind = os.fsdecode(line).partition(" - ")
            if mount.split()[2] == number:
                return kind.split()[0]
    return ""
