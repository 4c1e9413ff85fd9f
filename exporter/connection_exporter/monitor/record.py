"""The values of the board: the report of an attempt, the record of a service, and the transition of a status."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, NamedTuple

from connection_exporter.core.causes import Causes
from connection_exporter.core.health import Blind, Event, Health, Reason, Status
from connection_exporter.kind import Json, Observation, Service

TRANSITIONS_KEPT: Final = 50

CAUSES_SHOWN: Final = 10
"""Causes of one service. More would explain nothing, and each is a series."""

LATENCY_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Seconds. Upper bounds of ``connection_check_duration_seconds``."""


class Histogram:
    """Counts of observations by upper bound, and their sum, in the unit of the observations."""

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Count ``value`` in the first bucket whose bound is at least ``value``."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> Iterator[int]:
        """Return the number of observations up to each bound, and at last up to +Inf."""
        return accumulate(self._counts)


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of one service's status. ``at`` is in seconds since the epoch."""

    name: str
    kind: str
    previous: Status
    status: Status
    reason: Reason | None
    message: str
    at: float


class Report(NamedTuple):
    """What the monitor reports about a service: an event, and all that was learned with it.

    ``next_attempt`` is the planned start of the next attempt, on the monotonic clock; ``None`` leaves it.
    ``latency`` is that of an answered probe in seconds, ``held`` whether the session was up before it.
    """

    event: Event
    reason: Reason | None = None
    message: str = ""
    observation: Observation | None = None
    latency: float | None = None
    held: bool = False
    next_attempt: float | None = None


class Trouble(NamedTuple):
    """Why something is not as it should be."""

    reason: Reason | None = None
    message: str = ""


NO_TROUBLE: Final = Trouble()
BLIND: Final[Mapping[Blind, Trouble]] = {
    Blind.STARTING: Trouble(None, "not tried yet"),
    Blind.STALE: Trouble(
        Reason.STALE, "no result when one was due: the exporter was suspended or overloaded"
    ),
    Blind.STOPPED: Trouble(None, "monitoring has stopped"),
}


@dataclass(slots=True, eq=False)
class Record:
    """All that is known of one service. Times ending in ``_at`` are wall clock, in seconds since the epoch."""

    service: Service
    health: Health = field(default_factory=Health)
    status: Status = Status.UNKNOWN
    entered: float = 0.0
    status_since_at: float = 0.0
    last_check_at: float | None = None
    last_success_at: float | None = None
    last_canary_at: float | None = None
    next_attempt_at: float | None = None
    session_since_at: float | None = None
    has_been_up: bool = False
    overdue_after: float | None = None
    """The time, on the monotonic clock, after which a missing result is overdue; ``None`` if none is expected."""
    latency: float | None = None
    details: dict[str, Json] = field(default_factory=dict)
    trouble: Trouble = NO_TROUBLE
    session_trouble: Trouble = NO_TROUBLE
    answer_trouble: Trouble = NO_TROUBLE
    canary_trouble: Trouble = NO_TROUBLE
    in_outage: bool = False
    transitions: tuple[Transition, ...] = ()
    """At most `TRANSITIONS_KEPT`, the newest first. An empty deque would take 0.6 KiB of each service."""
    checks: int = 0
    check_failures: int = 0
    failures_by_reason: dict[Reason, int] = field(default_factory=dict)
    sessions: int = 0
    sessions_lost: int = 0
    outages: int = 0
    transitions_to: dict[Status, int] = field(default_factory=lambda: dict.fromkeys(Status, 0))
    seconds_in: dict[Status, float] = field(default_factory=lambda: dict.fromkeys(Status, 0.0))
    durations: Histogram = field(default_factory=lambda: Histogram(LATENCY_BUCKETS))
    counters: dict[str, float] = field(default_factory=dict)
    metric_keys: frozenset[str] = frozenset()
    histograms: dict[str, Histogram] = field(default_factory=dict)
    announced: bool = False
    """Whether an alert about it is open that at least one Alertmanager has accepted."""
    version: int = 0
    """It rises at each change of what the record shows."""
    steady: int = 0
    """How many of these changes were good answers that changed nothing but what is measured at each check."""
    graph: Causes = field(default_factory=lambda: Causes({}))
    """The causes of all services on the board."""

    @property
    def causes(self) -> tuple[str, ...]:
        """The dependencies that explain why the service is not healthy; at most `CAUSES_SHOWN`."""
        return self.graph.causes(self.name)[:CAUSES_SHOWN]

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name
