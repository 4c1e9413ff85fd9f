"""Owns the pace at which attempts begin when many would begin at once: a few in each turn of the event loop.

When all of 1,000 sessions break together, each is to be made again at once. Beginning all in one turn would
hold up the loop, and with it the news of the sessions whose end has not been read yet.
"""

import asyncio
from collections import deque
from typing import Final

_EACH_TURN: Final = 8
"""Few enough for a turn of some milliseconds. Cut at once, 1,000 sessions held up the loop for 513 ms without this."""


class Turnstile:
    """Lets pass at once whoever comes alone, and the others in the order in which they came."""

    def __init__(self) -> None:
        self._passed = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Return when it is the caller's turn. May be cancelled."""
        if self._queue or self._passed >= _EACH_TURN:
            loop = asyncio.get_running_loop()
            self._queue.append(turn := loop.create_future())
            await turn
        else:
            self._count()

    def _count(self) -> None:
        if not self._passed:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._passed += 1

    def _next_turn(self) -> None:
        self._passed = 0
        while self._queue and self._passed < _EACH_TURN:
            turn = self._queue.popleft()
            if not turn.done():  # cancelled meanwhile
                self._count()
                turn.set_result(None)
