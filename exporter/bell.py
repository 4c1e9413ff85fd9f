"""Owns waiting: for whatever comes first of a ring and a time."""

import asyncio
from typing import Final

_TICK: Final = 0.001
"""Seconds. Loops count in milliseconds: without it they wake a little early, again and again."""


class Bell:
    """A wake-up with a time limit. A ring that nobody waits for is heard by the next wait."""

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self, _: object = None) -> None:
        """Wake whoever waits."""
        self._rung = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Return at the next ring, or after ``seconds``."""
        if not self._rung:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds + _TICK, self.ring)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        self._rung = False
