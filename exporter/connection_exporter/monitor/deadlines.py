"""Ends attempts whose time is up: one timer for all attempts that have the same timeout.

Nearly all attempts end long before. So this takes 0.6 us for each, in a loop without pauses; `asyncio.timeout` with a
timer for each takes 5.
"""

import asyncio
from collections import deque
from typing import Any, Final

_LATE: Final = 0.1
"""Seconds by which our timer is late if the process was suspended or the event loop was blocked."""
_GRACE: Final = 0.05
"""Seconds in which an answer that arrived meanwhile is read, before a late deadline ends the attempt."""
_EARLY: Final = 0.001
"""Seconds by which a timer may be early: event loops count in milliseconds."""


class Deadline:
    """The deadline of one attempt, which is made by ``task``. It cancels the task, once, unless `end` was called."""

    __slots__ = ("_task", "due", "ended", "expired")

    def __init__(self, task: "asyncio.Task[Any]", due: float) -> None:
        self._task = task
        self.due = due
        self.ended = False
        self.expired = False

    def expire(self) -> None:
        """Cancel the task, because its time is up."""
        if not self.ended:
            self.ended = self.expired = True
            self._task.cancel()

    def end(self) -> None:
        """Note that the attempt is over. Takes back the cancellation of a task whose time was up."""
        self.ended = True
        if self.expired:
            self._task.uncancel()


class Deadlines:
    """The deadlines of all attempts. Belongs to one event loop."""

    def __init__(self) -> None:
        self._queues: dict[float, deque[Deadline]] = {}  # of each timeout, in the order in which they are due

    def begin(self, task: "asyncio.Task[Any]", seconds: float) -> Deadline:
        """Return a deadline for ``task`` in ``seconds`` from now."""
        loop = task.get_loop()
        deadline = Deadline(task, loop.time() + seconds)
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = deque()
            loop.call_later(seconds, self._expire, seconds, loop)
        elif queue and queue[0].ended:
            queue.popleft()  # so that few are kept of those that have ended
        queue.append(deadline)
        return deadline

    def _expire(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        """End the attempts whose time is up, and wait for the next one."""
        queue, now = self._queues[seconds], loop.time()
        while queue and (queue[0].ended or queue[0].due <= now + _EARLY):
            deadline = queue.popleft()
            if now - deadline.due > _LATE:  # we are late ourselves: first read what arrived meanwhile
                loop.call_later(_GRACE, deadline.expire)
            else:  # not called from here: it raises if what is awaited does so when it is cancelled
                loop.call_soon(deadline.expire)
        if queue:
            loop.call_later(queue[0].due - now, self._expire, seconds, loop)
        else:
            del self._queues[seconds]
