"""Watches one process for its end, and finds out afterwards how it ended.

On Linux this takes a pidfd, which becomes readable 0.1 ms after the process ends and never refers to another process
with the same id. On other systems the process is polled twice a second.
"""

import asyncio
import errno
import fcntl
import os
import select
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import psutil

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.process.proc import read_stat

_NO_SUCH: Final = frozenset({errno.ESRCH, errno.EINVAL, errno.ENOENT})  # no process, or the id of a thread
_POLL_EVERY: Final = 0.5

# linux/pidfd.h: struct pidfd_info, since 6.13; the exit code since 6.15
_PIDFD_GET_INFO: Final = 0xC040FF0B
_PIDFD_INFO: Final = struct.Struct("=QQ11Ii")
_PIDFD_INFO_EXIT: Final = 1 << 3


class Watch(Protocol):
    """One process whose end will be noticed."""

    @property
    def ended(self) -> bool:
        """Whether the process has ended. A zombie has."""

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the process has ended, once. To be used once per watch."""

    def how(self) -> str:
        """Return how the process ended, as far as the kernel tells us: ``was killed by SIGKILL``."""

    def close(self) -> None:
        """Stop watching. Idempotent."""


def watch(pid: int) -> Watch:
    """Watch process ``pid``. Raises `Failure` (missing), and OSError when no file descriptor is left."""
    if not hasattr(os, "pidfd_open"):
        return _Polled(pid)
    try:
        return _Pidfd(pid, os.pidfd_open(pid))
    except OSError as error:
        if error.errno in _NO_SUCH:
            raise Failure(Reason.MISSING, f"there is no process {pid}") from error
        if error.errno in (errno.ENOSYS, errno.EPERM):  # an old kernel, or a sandbox
            return _Polled(pid)
        raise


class _Pidfd:
    def __init__(self, pid: int, fd: int) -> None:
        self._pid = pid
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def ended(self) -> bool:
        return bool(self._poll.poll(0))

    def on_end(self, callback: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._readable, callback)

    def how(self) -> str:
        status = _status_of_zombie(self._pid) if self.ended else None
        if status is None:
            status = _status_of_reaped(self._fd)
        return _description(status)

    def close(self) -> None:
        self._stop_reading()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _readable(self, callback: Callable[[], None]) -> None:
        self._stop_reading()  # the pidfd stays readable
        callback()

    def _stop_reading(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._loop = None


class _Polled:
    def __init__(self, pid: int) -> None:
        try:
            self._process = psutil.Process(pid)
        except psutil.NoSuchProcess as error:
            raise Failure(Reason.MISSING, f"there is no process {pid}") from error
        self._timer: asyncio.TimerHandle | None = None

    @property
    def ended(self) -> bool:
        try:
            return not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return not self._process.is_running()

    def on_end(self, callback: Callable[[], None]) -> None:
        if self.ended:
            callback()
            return
        self._timer = asyncio.get_running_loop().call_later(_POLL_EVERY, self.on_end, callback)

    def how(self) -> str:
        return _description(None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _status_of_zombie(pid: int) -> int | None:
    """Return the wait status of a process that its parent has not collected (proc_pid_stat(5), last field)."""
    try:
        _, fields = read_stat(pid)
        if fields[0] != b"Z":
            return None  # collected meanwhile
        status = int(fields[49])
        if status == 0 and Path("/proc", str(pid)).stat().st_uid != os.geteuid():
            return None  # 0 because we have no permission to know
    except OSError:
        return None
    return status


def _status_of_reaped(fd: int) -> int | None:
    """Return the wait status of a process that its parent has collected (ioctl of a pidfd, Linux 6.15)."""
    request = bytearray(_PIDFD_INFO.size)
    struct.pack_into("=Q", request, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(fd, _PIDFD_GET_INFO, request)
    except OSError:
        return None
    mask, *_, status = _PIDFD_INFO.unpack(request)
    return int(status) if mask & _PIDFD_INFO_EXIT else None


def _description(status: int | None) -> str:
    if status is None:
        return "has ended"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"was killed by {signal.Signals(number).name}"
        except ValueError:
            return f"was killed by signal {number}"
    return f"exited with status {os.WEXITSTATUS(status)}"
