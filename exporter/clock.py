"""Owns what time it is: durations on a clock that never jumps, timestamps on the wall."""

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Where the program gets its time; tests bring their own."""

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward, also while the machine sleeps."""

    def wall(self) -> float:
        """Seconds since the epoch."""


_CLOCK_ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clocks. CLOCK_BOOTTIME goes on during a suspend, where CLOCK_MONOTONIC stands still."""

    def monotonic(self) -> float:
        """Seconds since boot."""
        return time.clock_gettime(_CLOCK_ID)

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()
