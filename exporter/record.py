"""Owns the values around the board: the report that goes in, the record that stays, the transition that comes out."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from exporter.check import Json, Observation, Service
from exporter.core.health import Blind, Event, Health, Reason, Status
from exporter.histogram import Histogram

TRANSITIONS_KEPT: Final = 50

LATENCY_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Seconds. Upper bounds of ``connection_check_duration_seconds``."""

LONGEST_MESSAGE: Final = 1000
"""Characters. A server that is asked can answer an error of megabytes, and each message is kept and sent many times."""


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


@dataclass(frozen=True, slots=True)
class Report:
    """What the monitor has to say of a service: an event, and all that was learned with it.

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


@dataclass(frozen=True, slots=True)
class Trouble:
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


@dataclass(slots=True)
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
    due: float | None = None
    latency: float | None = None
    details: dict[str, Json] = field(default_factory=dict)
    trouble: Trouble = NO_TROUBLE
    session_trouble: Trouble = NO_TROUBLE
    answer_trouble: Trouble = NO_TROUBLE
    canary_trouble: Trouble = NO_TROUBLE
    in_outage: bool = False
    transitions: deque[Transition] = field(default_factory=lambda: deque(maxlen=TRANSITIONS_KEPT))
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
    histograms: dict[str, Histogram] = field(default_factory=dict)
    version: int = 0

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name


def presentable(text: str) -> str:
    """Return a message on one line and of bounded length, without anything that a terminal or a log would obey."""
    short = text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}…"
    return printable(short)


def printable(text: str) -> str:
    """Return a text on one line, with a mark for each control character in it, those of direction included."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "�" for c in text.replace("\n", " "))
