"""Waits for an event or a time, whichever comes first, and for little else, so that the process can sleep."""

import asyncio
from collections.abc import Callable
from typing import Final

TICK: Final = 0.001
"""Seconds. Event loops count in milliseconds: without it they wake a little early, again and again."""


def until_next(period: float) -> float:
    """Return the seconds until a multiple of ``period`` on the event loop's clock: 1/8 to 9/8 of a period.

    Periodic work that may begin at any time begins together then. Each time that the process wakes up for it takes 0.1
    to 0.2 ms of CPU, which is most of what an idle process uses.
    """
    left = period - asyncio.get_running_loop().time() % period
    return left if left > period / 8 else left + period


class Wakeup:
    """An event with one waiter, which is cleared when it ends a wait. One that is set early ends the next wait."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[bool] | None = None

    def set(self, _: object = None) -> None:
        """Wake the waiter. Takes and ignores an argument, so that it can be a done callback."""
        self._is_set = True
        self._wake(False)

    async def wait(self, seconds: float) -> bool:
        """Return True as soon as the event is set, or False after ``seconds``."""
        timer = asyncio.get_running_loop().call_later(seconds + TICK, self._wake, True)
        try:
            return not await self.wait_for(lambda _: None)
        finally:
            timer.cancel()

    async def wait_for(self, arrange: "Callable[[asyncio.Future[bool]], None]") -> bool:
        """Wait until the event is set, or until the future has a result that ``arrange`` is called with.

        Return its result, which has to be True, or False if the event was set first.
        """
        is_arranged = False
        if not self._is_set:
            self._waiter = asyncio.get_running_loop().create_future()
            arrange(self._waiter)
            try:
                is_arranged = await self._waiter
            finally:
                self._waiter = None
        if not is_arranged:
            self._is_set = False
        return is_arranged

    def _wake(self, is_arranged: bool) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(is_arranged)
