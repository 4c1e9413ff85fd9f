"""Owns the health of one service: five facts, the events that change them, the status that follows.

This is the whole state machine of the product. It must not know the time, a driver or a socket.
The table it implements is printed in docs/architecture.md, and tests/core/test_health.py holds
every cell of it.
"""

from enum import StrEnum
from typing import Final, NamedTuple


class Status(StrEnum):
    """The condition of a service. Codes ascend by severity, so that ``max_over_time`` hides no outage."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    CONNECTING = "connecting"
    UNHEALTHY = "unhealthy"
    DISCONNECTED = "disconnected"

    @property
    def code(self) -> int:
        """The number that ``connection_status`` shows."""
        return _CODES[self]


_CODES: Final = {status: code for code, status in enumerate(Status)}


class Reason(StrEnum):
    """Why a service is not healthy: a closed set, the same in every kind, label and document."""

    DNS = "dns"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    RESET = "reset"
    EOF = "eof"
    TLS = "tls"
    PROTOCOL = "protocol"
    AUTH = "auth"
    STARTING = "starting"
    SHUTDOWN = "shutdown"
    SLOTS_FULL = "slots_full"
    MISSING = "missing"
    QUERY = "query"
    EXPECT = "expect"
    SLOW = "slow"
    ROLE = "role"
    GAP = "gap"
    CLOSED = "closed"
    TOO_LARGE = "too_large"
    REDIRECT = "redirect"
    EXIT = "exit"
    ZOMBIE = "zombie"
    STOPPED = "stopped"
    AMBIGUOUS = "ambiguous"
    HEARTBEAT = "heartbeat"
    PERMISSION = "permission"
    IDLE_CLOSED = "idle_closed"
    STALE = "stale"
    INTERNAL = "internal"


class Verdict(StrEnum):
    """Whether the last answer, or the last canary, was good."""

    NONE = "none"
    GOOD = "good"
    BAD = "bad"


class Blind(StrEnum):
    """Why the facts cannot be trusted: not begun, too old, a crash of our own, or stopped."""

    NONE = "none"
    STARTING = "starting"
    STALE = "stale"
    INTERNAL = "internal"
    STOPPED = "stopped"


class Event(StrEnum):
    """All that can happen to a service."""

    BEGUN = "begun"
    ANSWERED_GOOD = "answered_good"
    ANSWERED_BAD = "answered_bad"
    FAILED = "failed"
    LOST = "lost"
    CANARY_GOOD = "canary_good"
    CANARY_BAD = "canary_bad"
    OVERDUE = "overdue"
    CRASHED = "crashed"
    STOPPED = "stopped"


class Health(NamedTuple):
    """The five facts about a service, from which its status follows."""

    session_up: bool = False
    answer: Verdict = Verdict.NONE
    canary: Verdict = Verdict.NONE
    retry_count: int = 0
    blind: Blind = Blind.STARTING


def advance(health: Health, event: Event) -> Health:  # noqa: C901 - a row of the table each
    """Return the facts after ``event``. Total: every event is defined in every state.

    A canary's result counts only while the session is up. The caller ensures that the canary belongs to *this*
    session. Here, every way to lose a session clears it, so a new session always starts with no canary.
    """
    match event:  # the most frequent events first: each comparison takes 0.2 us
        case Event.ANSWERED_GOOD:
            return Health(True, Verdict.GOOD, health.canary, 0, Blind.NONE)
        case Event.LOST:
            return Health(retry_count=health.retry_count, blind=Blind.NONE)
        case Event.BEGUN:
            return health._replace(blind=Blind.NONE)
        case Event.ANSWERED_BAD:
            return Health(True, Verdict.BAD, health.canary, 0, Blind.NONE)
        case Event.FAILED:
            return Health(retry_count=health.retry_count + 1, blind=Blind.NONE)
        case Event.CANARY_GOOD | Event.CANARY_BAD if not health.session_up:
            return health
        case Event.CANARY_GOOD:
            return health._replace(canary=Verdict.GOOD)
        case Event.CANARY_BAD:
            return health._replace(canary=Verdict.BAD)
        case Event.OVERDUE:
            return health._replace(blind=Blind.STALE)
        case Event.CRASHED:
            return Health(retry_count=health.retry_count + 1, blind=Blind.INTERNAL)
        case Event.STOPPED:  # pragma: no branch - mypy proves that none is left out
            return Health(blind=Blind.STOPPED)


def status_of(health: Health, *, retries: int) -> Status:
    """Return the status that ``health`` amounts to: the first line that holds.

    ``retries`` is the number of failed attempts in a row after which a service without a session is
    called disconnected (at least 1).
    """
    if health.blind is not Blind.NONE:
        return Status.UNKNOWN
    if not health.session_up:
        return Status.DISCONNECTED if health.retry_count >= retries else Status.CONNECTING
    if Verdict.BAD in (health.answer, health.canary):
        return Status.UNHEALTHY
    return Status.HEALTHY
