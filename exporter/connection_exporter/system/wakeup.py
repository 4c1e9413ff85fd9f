"""Waits for an event or a time, whichever comes first."""

import asyncio
from collections.abc import Callable
from typing import Final

_TICK: Final = 0.001
"""Seconds. Event loops count in milliseconds: without it they wake a little early, again and again."""


class Wakeup:
    """An event with one waiter, which is cleared when the wait returns. One that is set early ends the next wait."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self, _: object = None) -> None:
        """Wake the waiter. Takes and ignores an argument, so that it can be a done callback."""
        self._is_set = True
        self._wake()

    async def wait(
        self, seconds: float, on_time: "Callable[[asyncio.Future[None]], None] | None" = None
    ) -> bool:
        """Return True as soon as the event is set, or False after ``seconds``.

        ``on_time`` is then called with the waiter's future, whose result it sets at once or a little later.
        """
        if not self._is_set:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds + _TICK, on_time or _set_result, self._waiter)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        woken, self._is_set = self._is_set, False
        return woken

    def _wake(self) -> None:
        if self._waiter is not None:
            _set_result(self._waiter)


def _set_result(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
