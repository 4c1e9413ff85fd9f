"""Owns counting observations into buckets, as Prometheus understands them."""

from bisect import bisect_left
from collections.abc import Iterator


class Histogram:
    """Counts of observations by upper bound, and their sum, in the unit of what is observed."""

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Count ``value`` in the first bucket whose bound is not below it."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> Iterator[int]:
        """Yield for each bound, and last for +Inf, how many observations were not above it."""
        total = 0
        for count in self._counts:
            total += count
            yield total
