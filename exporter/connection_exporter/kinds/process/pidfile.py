"""Finds the process whose id a pidfile contains."""

import asyncio
import errno
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.process.files import FileReader
from connection_exporter.system.files import Stamp, is_recent, stamp_of
from connection_exporter.system.local_files import file_system

_LONGEST: Final = 4096
_MAX_PID: Final = 2**31 - 1
_CLOCK_MARGIN: Final = 10.0
"""Seconds by which a process may seem younger than its own pidfile: clocks are adjusted, file systems round."""

_FRESH: Final = 1.0
_TIME_TO_WRITE: Final = 0.02
"""Seconds. A file that was written in the last second and does not end in a newline may be half written."""

_TRIES: Final = 5


class _Content(NamedTuple):
    """The beginning of a file, when it was written (Unix time), and the process ID that it contains, if any."""

    data: bytes
    written: float
    pid: int | None

    @property
    def may_be_partial(self) -> bool:
        return not self.data.endswith(b"\n") and abs(time.time() - self.written) < _FRESH


class Pidfile:
    """A file with the id of a process in its first line."""

    def __init__(self, path: Path, *, timeout: float) -> None:
        self._path = path
        self._name = str(path)  # `stamp_of` would make it each time
        self._file = FileReader(path, self._read, timeout=timeout)
        self._kept: tuple[Stamp, _Content] | None = None

    async def find(self) -> int:
        """Return the id of the process. Raises `Failure`.

        A process that started after its pidfile was written did not write it: it got the id of a process that ended.
        """
        content = await self._complete_content()
        pid = self._require_pid(content)
        try:
            started = psutil.Process(pid).create_time()
        except psutil.NoSuchProcess as error:
            if _is_hidden(pid):
                raise Failure(Reason.PERMISSION, f"process {pid} is hidden in /proc (hidepid)") from error
            raise Failure(
                Reason.MISSING, f"{self._path} names process {pid}, which does not exist"
            ) from error
        except psutil.AccessDenied as error:
            raise Failure(Reason.PERMISSION, f"no permission to inspect process {pid}") from error
        if started > content.written + _CLOCK_MARGIN and not self._has_another_clock(content.written):
            age = _duration(started - content.written)
            raise Failure(
                Reason.MISSING, f"{self._path} is stale: it was written {age} before process {pid} started"
            )
        return pid

    def still_names(self, pid: int) -> bool:
        """Return whether the file is known to name ``pid`` as before. Never waits.

        If this is false, `successor_of` finds out. It takes four times as long.
        """
        if self._kept is None or not self._file.place.are_local:
            return False
        stamp, content = self._kept
        return content.pid == pid and stamp == stamp_of(self._name)

    def has_no_process(self) -> bool:
        """Return whether it is known that there is no file, or no process with the ID in it. Never waits.

        An absent process is looked for four times a second. If this is false, `find` finds out, in ten times as long.
        Raises OSError when no file descriptor is left.
        """
        if not self._file.place.are_local:
            return False
        stamp = stamp_of(self._name)
        if not stamp:
            return True
        if self._kept is None or self._kept[0] != stamp:
            return False
        pid = self._kept[1].pid
        return pid is None or not psutil.pid_exists(pid)

    async def successor_of(self, pid: int) -> int | None:
        """Return another living process than ``pid`` that the file names now, if there is one.

        A file that is missing or cannot be read proves nothing: ``pid`` is held by its pidfd.
        """
        with suppress(Failure, OSError):
            if self._require_pid(await self._content()) != pid:
                return await self.find()
        return None

    async def _complete_content(self) -> _Content:
        content = await self._content()
        for _ in range(_TRIES):
            if not content.may_be_partial:
                return content
            await asyncio.sleep(_TIME_TO_WRITE)
            before, content = content, await self._content()
            if content == before:
                return content  # complete, and without a newline
        raise Failure(Reason.MISSING, f"{self._path} keeps changing")

    async def _content(self) -> _Content:
        try:
            return await self._file.read()
        except FileNotFoundError as error:
            raise Failure(Reason.MISSING, f"{self._path} does not exist") from error
        except PermissionError as error:
            raise Failure(Reason.PERMISSION, f"no permission to read {self._path}") from error
        except TimeoutError as error:
            raise Failure(Reason.TIMEOUT, f"{self._path} cannot be read: {error.strerror}") from error
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise  # our own problem
            raise Failure(Reason.MISSING, f"{self._path} cannot be read: {error.strerror}") from error

    def _read(self) -> _Content:
        """Return the content. A file that has not changed is not read again: 1 us instead of 5."""
        stamp = stamp_of(self._name)
        if self._kept is not None and stamp == self._kept[0]:
            return self._kept[1]
        is_settled = stamp and not is_recent(stamp)
        status, data = _read(self._path)
        content = _Content(data, status.st_mtime, _pid_in(data))
        self._kept = (stamp, content) if is_settled else None
        return content

    def _require_pid(self, content: _Content) -> int:
        if content.pid is not None:
            return content.pid
        if not content.data.strip():
            raise Failure(Reason.MISSING, f"{self._path} is empty")
        shown = _first_word(content.data)[:20].decode(errors="replace")
        raise Failure(Reason.MISSING, f"{self._path} contains no process ID, but {shown!r}")

    def _has_another_clock(self, written: float) -> bool:
        """Return whether the file is older than the boot, but in memory: then the clock was set after it was written.

        Boards without a battery start each boot in the past.
        """
        return written < psutil.boot_time() and file_system(self._path) in ("tmpfs", "ramfs")


def _read(path: Path) -> tuple[os.stat_result, bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe would wait for a writer
    try:
        status = os.fstat(fd)
        if stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file")
        return status, os.read(fd, _LONGEST)
    finally:
        os.close(fd)


def _pid_in(data: bytes) -> int | None:
    word = _first_word(data)
    if len(word) > 10 or not word.isdigit() or not 0 < int(word) <= _MAX_PID:
        return None
    return int(word)


def _first_word(data: bytes) -> bytes:
    return data.partition(b"\n")[0].strip()


def _is_hidden(pid: int) -> bool:
    """Return whether a process that /proc does not show exists all the same, with another account (hidepid)."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    return False  # it is our own account's, so /proc shows it: it started a moment ago


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
