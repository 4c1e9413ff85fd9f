"""Owns the board as JSON: the shapes of /health, /health/detailed and /health/service/{name}.

Everything here is made from memory. Every field is always present, and ``None`` while it is not known. The typed
dictionaries are also the source of the JSON schemas in /openapi.json.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from connection_exporter.core.health import Reason, Status, Verdict
from connection_exporter.core.overall import Overall
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import CAUSES_SHOWN, TRANSITIONS_KEPT, Record
from connection_exporter.monitor.record import Transition as Change

Time = Annotated[str | None, WithJsonSchema({"type": ["string", "null"], "format": "date-time"})]
Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_-]{0,62}$")]
Details = Annotated[Mapping[str, Any], WithJsonSchema({"type": "object"})]


class Health(TypedDict):
    """The response of /health."""

    status: Overall
    monitoring_active: bool
    last_update: Time


class Summary(TypedDict):
    """How many services have which status."""

    total: Count
    healthy: Count
    unhealthy: Count
    disconnected: Count
    connecting: Count
    unknown: Count


class Head(Health):
    """The response of /health/detailed without its services."""

    uptime_seconds: Annotated[float, Field(ge=0)]
    summary: Summary


class Session(TypedDict):
    """The live connection of a service."""

    up: bool
    since: Time


class Canary(TypedDict):
    """The last probe over a fresh connection."""

    up: bool | None
    last: Time


class Service(TypedDict):
    """One service."""

    name: Name
    kind: str
    status: Status
    critical: bool
    reason: Reason | None
    message: str | None
    retry_count: Count
    retries: Annotated[int, Field(ge=1)]
    next_attempt: Time
    last_check: Time
    last_success: Time
    status_since: Time
    latency_seconds: Annotated[float, Field(ge=0)] | None
    session: Session
    canary: Canary
    details: Details
    group: str | None
    description: str | None
    links: Mapping[str, str]
    depends_on: Sequence[Name]
    causes: Annotated[Sequence[Name], Field(max_length=CAUSES_SHOWN)]


class Detailed(Head):
    """The response of /health/detailed: the whole board."""

    services: dict[str, Service]


Transition = TypedDict(
    "Transition", {"at": Time, "from": Status, "to": Status, "reason": Reason | None, "message": str | None}
)


class ServiceWithTransitions(Service):
    """The response of /health/service/{name}: a service and its last transitions, the newest first."""

    transitions: Annotated[list[Transition], Field(max_length=TRANSITIONS_KEPT)]


class Tally(NamedTuple):
    """What `overall` counts of some services, or of all."""

    statuses: Mapping[Status, int]
    last_check_at: float | None


def tally(records: Sequence[Record]) -> Tally:
    """Count services by status, and find their last check."""
    checked = [record.last_check_at for record in records if record.last_check_at is not None]
    return Tally(Counter([record.status for record in records]), max(checked, default=None))


def health(board: Board) -> Health:
    """Return the answer of /health."""
    return {
        "status": board.overall(),
        "monitoring_active": board.active,
        "last_update": timestamp(tally(board.records()).last_check_at),
    }


def detailed(board: Board) -> Detailed:
    """Return the answer of /health/detailed."""
    return {**overall(board), "services": {record.name: service(record) for record in board.records()}}


def overall(board: Board, tallies: Sequence[Tally] | None = None) -> Head:
    """Return the answer of /health/detailed without its services. ``tallies`` are theirs, if they are known already."""
    tallies = [tally(board.records())] if tallies is None else tallies
    counts = dict.fromkeys(Status, 0)
    for statuses, _ in tallies:
        for status, number in statuses.items():
            counts[status] += number
    checked = [at for _, at in tallies if at is not None]
    return {
        "status": board.overall(),
        "monitoring_active": board.active,
        "last_update": timestamp(max(checked, default=None)),
        "uptime_seconds": round(board.clock.monotonic() - board.started, 3),
        "summary": {
            "total": sum(counts.values()),
            "healthy": counts[Status.HEALTHY],
            "unhealthy": counts[Status.UNHEALTHY],
            "disconnected": counts[Status.DISCONNECTED],
            "connecting": counts[Status.CONNECTING],
            "unknown": counts[Status.UNKNOWN],
        },
    }


def service(record: Record) -> Service:
    """Return one service as in /health/detailed."""
    facts, policy, about = record.health, record.service.policy, record.service.about
    return {
        "name": record.name,
        "kind": record.service.kind,
        "status": record.status,
        "critical": policy.critical,
        "reason": record.trouble.reason,
        "message": record.trouble.message or None,
        "retry_count": facts.retry_count,
        "retries": policy.retries,
        "next_attempt": timestamp(record.next_attempt_at),
        "last_check": timestamp(record.last_check_at),
        "last_success": timestamp(record.last_success_at),
        "status_since": timestamp(record.status_since_at),
        "latency_seconds": record.latency if facts.session_up else None,
        "session": {"up": facts.session_up, "since": timestamp(record.session_since_at)},
        "canary": {
            "up": None if facts.canary is Verdict.NONE else facts.canary is Verdict.GOOD,
            "last": timestamp(record.last_canary_at),
        },
        "details": record.details,
        "group": about.group,
        "description": about.description,
        "links": about.links,
        "depends_on": about.depends_on,
        "causes": record.causes,
    }


def with_transitions(record: Record) -> ServiceWithTransitions:
    """Return one service as /health/service/{name} shows it: with its last transitions, newest first."""
    return {**service(record), "transitions": [transition(t) for t in record.transitions]}


def transition(change: Change) -> Transition:
    """Return one transition."""
    return {
        "at": timestamp(change.at),
        "from": change.previous,
        "to": change.status,
        "reason": change.reason,
        "message": change.message or None,
    }


def timestamp(seconds: float | None) -> str | None:
    """Return a time since the epoch in RFC 3339, in UTC, with milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
