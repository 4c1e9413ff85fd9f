"""Owns the overall status: one word that follows from the statuses of all services."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple

from connection_exporter.core.health import Status


class Overall(StrEnum):
    """The state of all services taken together."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    PARTIAL = "partial"

    @property
    def code(self) -> int:
        """The number that ``connection_overall_status`` shows."""
        return _CODES[self]

    @property
    def serving(self) -> bool:
        """Whether ``/health`` answers 200; it answers 503 otherwise."""
        return self in (Overall.HEALTHY, Overall.DEGRADED)


_CODES: Final = {overall: code for code, overall in enumerate(Overall)}


class Standing(NamedTuple):
    """What the overall status needs to know of one service."""

    status: Status
    critical: bool
    has_been_up: bool


def overall_status(standings: Iterable[Standing], *, active: bool) -> Overall:
    """Return the overall status: the first row of the table in docs/architecture.md that holds.

    ``active`` tells whether monitoring runs. A service "has been up" once it had a session since start.
    """
    services = tuple(standings)
    if any(s.critical and s.status is Status.DISCONNECTED for s in services):
        return Overall.PARTIAL
    if not active or any(s.critical and _undecided(s) for s in services):
        return Overall.UNKNOWN
    if any(s.status is not Status.HEALTHY for s in services):
        return Overall.DEGRADED
    return Overall.HEALTHY


def _undecided(standing: Standing) -> bool:
    return standing.status is Status.UNKNOWN or (
        standing.status is Status.CONNECTING and not standing.has_been_up
    )
