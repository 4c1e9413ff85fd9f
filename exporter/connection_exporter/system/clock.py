"""Provides the clocks: a monotonic one for durations, and the wall clock for timestamps."""

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """The clocks that a part of the program uses; tests pass their own."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back, and that continues while the machine sleeps."""

    def wall(self) -> float:
        """Seconds since the epoch."""


_CLOCK_ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The clocks of the machine. CLOCK_BOOTTIME continues during a suspend, and CLOCK_MONOTONIC does not."""

    def monotonic(self) -> float:
        """Seconds since boot."""
        return time.clock_gettime(_CLOCK_ID)

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()
