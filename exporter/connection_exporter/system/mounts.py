"""Notices when a file system is mounted or unmounted."""

import os
import select
import time
from threading import Lock
from typing import Final

_FILE: Final = "/proc/self/mountinfo"
_RECENT: Final = 10.0
"""Seconds after which the table counts as changed where the kernel cannot be asked: no descriptor is left."""


class MountTable:
    """The mount table of this process. May be used by several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._poll: select.poll | None = None
        self._changes = 0

    def version(self) -> float:
        """Return a number that differs after each change. Takes 2 us and never blocks.

        The kernel reports a change by an exceptional condition of the file, once (proc_pid_mounts(5)).
        """
        with self._lock:
            try:
                if self._poll is None:
                    self._poll = _opened()
            except OSError:
                return -(time.monotonic() // _RECENT) - 1.0
            if self._poll.poll(0):
                self._changes += 1
            return self._changes


def _opened() -> select.poll:
    poll = select.poll()
    poll.register(os.open(_FILE, os.O_RDONLY | os.O_CLOEXEC), select.POLLPRI)
    return poll
