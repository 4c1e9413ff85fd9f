"""Owns giving others their turn while something long is made in the event loop."""

import asyncio
import time
from typing import Final

_SLICE: Final = 0.002
"""Seconds of work after which the loop gets its turn."""


class Pause:
    """Lets the loop run after each slice of work."""

    def __init__(self) -> None:
        self._ends = time.monotonic() + _SLICE

    async def if_due(self) -> None:
        """Give others their turn, if the slice is over."""
        if time.monotonic() > self._ends:
            await asyncio.sleep(0)
            self._ends = time.monotonic() + _SLICE
