"""Provides the clocks: a monotonic one for durations, and the wall clock for timestamps."""

import time
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """The clocks that a part of the program uses; tests pass their own."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back, and that continues while the machine sleeps."""

    def wall(self) -> float:
        """Seconds since the epoch."""


_CLOCK_ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The clocks of the machine. CLOCK_BOOTTIME continues during a suspend, and CLOCK_MONOTONIC does not.

    They are functions of the interpreter, not methods: each check reads them five times.
    """

    monotonic = staticmethod(partial(time.clock_gettime, _CLOCK_ID))
    """Seconds since boot."""

    wall = staticmethod(time.time)
    """Seconds since the epoch."""
