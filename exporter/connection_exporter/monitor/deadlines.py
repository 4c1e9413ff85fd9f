"""Ends attempts whose time is up: one timer for all attempts that have the same timeout.

Nearly all attempts end long before. So this takes 0.4 us for each, in a loop without pauses; `asyncio.timeout` with a
timer for each takes 5.
"""

import asyncio
from typing import Any, Final

_LATE: Final = 0.1
"""Seconds by which our timer is late if the process was suspended or the event loop was blocked."""
_GRACE: Final = 0.05
"""Seconds in which an answer that arrived meanwhile is read, before a late deadline ends the attempt."""
_EARLY: Final = 0.001
"""Seconds by which a timer may be early: event loops count in milliseconds."""


class Deadline:
    """The deadline of all attempts that have the same timeout, in seconds. A task makes one attempt at a time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._due: dict[asyncio.Task[Any], float] = {}  # of each attempt; the first is due first
        self._has_timer = False

    def begin(self, task: "asyncio.Task[Any]") -> None:
        """Cancel ``task``, once, unless it calls `end` in time."""
        loop = task.get_loop()
        self._due[task] = loop.time() + self.seconds
        if not self._has_timer:
            self._has_timer = True
            loop.call_later(self.seconds, self._look, loop)

    def has_passed(self, task: "asyncio.Task[Any]") -> bool:
        """Return whether the time of an attempt that has not called `end` was up."""
        return task not in self._due

    def end(self, task: "asyncio.Task[Any]") -> None:
        """Note that an attempt is over. Takes back the cancellation of a task whose time was up."""
        if self._due.pop(task, None) is None:
            task.uncancel()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the attempts whose time is up, and wait for the next one."""
        now = loop.time()
        for task, due in self._due.items():
            if due > now + _EARLY:
                loop.call_later(due - now, self._look, loop)
                return
            if now - due > _LATE:  # we are late ourselves: first read what arrived meanwhile
                loop.call_later(_GRACE, self._expire, task, due)
            else:  # not called from here: it raises if what is awaited does so when it is cancelled
                loop.call_soon(self._expire, task, due)
        self._has_timer = False

    def _expire(self, task: "asyncio.Task[Any]", due: float) -> None:
        if self._due.get(task) == due:  # it has not ended meanwhile
            del self._due[task]
            task.cancel()


class Deadlines:
    """The deadlines of all timeouts. Belongs to one event loop."""

    def __init__(self) -> None:
        self._deadlines: dict[float, Deadline] = {}

    def after(self, seconds: float) -> Deadline:
        """Return the deadline that attempts with this timeout share."""
        return self._deadlines.setdefault(seconds, Deadline(seconds))
