"""Knows which files are on a local file system, where a look at one does not stop the event loop."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from connection_exporter.system.mounts import MountTable

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


class LocalFiles:
    """Some files, and whether all of them are on local file systems."""

    __slots__ = ("_local_until", "_mounts_seen", "_paths")

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._local_until = 0.0
        self._mounts_seen = 0.0

    @property
    def are_local(self) -> bool:
        """Whether they are known to be local, so that reading them is quick. Never blocks."""
        return time.monotonic() < self._local_until and self._mounts_seen == _MOUNTS.version()

    def locate(self) -> None:
        """Look up where the files are. May block, and they are not known to be local until it returns."""
        self._local_until = 0.0
        self._mounts_seen = _MOUNTS.version()  # before the look, so that no change is missed
        local = all(file_system(path) in _LOCAL for path in self._paths)
        self._local_until = time.monotonic() + _LOCAL_FOR if local else 0.0


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
