"""Limits how much work begins in one iteration of the event loop: others first, then a few pieces of work each time.

When 1,000 sessions break together, each has to be closed and made again at once. Doing so in the iteration in which
the first losses are reported would block the loop, and delay the report of the others. A scrape at this moment has to
render 1,000 services that have changed, in slices. It would wait for eight connections after each slice.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

_PER_ITERATION: Final = 8
"""Few enough for an iteration of some milliseconds. Without it, 1,000 cut sessions blocked the loop for 513 ms."""

_OTHERS_FIRST: Final = 0.2
"""Seconds in a row for which nobody in the queue may proceed, because others go first."""


class RateLimiter:
    """Lets the first of several callers proceed at once, and the others later, in the order of their calls.

    The queue waits while there are new callers, because they have losses to report, and while ``is_rendering``:
    for 0.2 s at most.
    """

    def __init__(self, is_rendering: Callable[[], bool] = bool) -> None:
        self._is_rendering = is_rendering
        self._arrived = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._held_since: float | None = None

    def turn(self) -> "asyncio.Future[None]":
        """Return a future that is done when the caller may proceed: now, if it is alone. It may be cancelled."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._arrived += 1
        if self._held_since is None:
            self._held_since = loop.time()
            loop.call_soon(self._next_iteration)
        if self._arrived > 1 or self._queue:
            self._queue.append(turn)
        else:
            turn.set_result(None)
        return turn

    def _next_iteration(self) -> None:
        assert self._held_since is not None
        loop = asyncio.get_running_loop()
        arrived, self._arrived = self._arrived, 0
        if not arrived and not self._queue:
            self._held_since = None
            return
        loop.call_soon(self._next_iteration)
        if not arrived and not self._is_rendering():
            self._held_since = loop.time()
        elif loop.time() - self._held_since < _OTHERS_FIRST:
            return
        released = 0
        while self._queue and released < _PER_ITERATION:
            turn = self._queue.popleft()
            if not turn.done():  # not cancelled meanwhile
                turn.set_result(None)
                released += 1
