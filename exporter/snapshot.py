"""Owns the board as JSON: the shapes of /health, /health/detailed and /health/service/{name}.

Everything here is made from memory. Every field is always present, ``None`` when it is not known.
"""

from datetime import UTC, datetime
from typing import Any

from exporter.board import Board
from exporter.core.health import Verdict
from exporter.record import Record, Transition

JsonObject = dict[str, Any]


def health(board: Board) -> JsonObject:
    """Return the answer of /health."""
    return {
        "status": board.overall().value,
        "monitoring_active": board.active,
        "last_update": _last_update(board.records()),
    }


def detailed(board: Board) -> JsonObject:
    """Return the answer of /health/detailed."""
    return {**overall(board), "services": {record.name: service(record) for record in board.records()}}


def overall(board: Board) -> JsonObject:
    """Return the answer of /health/detailed without its services."""
    records = board.records()
    counts = dict.fromkeys(("healthy", "unhealthy", "disconnected", "connecting", "unknown"), 0)
    for record in records:
        counts[record.status.value] += 1
    return {
        "status": board.overall().value,
        "monitoring_active": board.active,
        "last_update": _last_update(records),
        "uptime_seconds": round(board.clock.monotonic() - board.started, 3),
        "summary": {"total": len(records), **counts},
    }


def service(record: Record) -> JsonObject:
    """Return one service as it stands in /health/detailed."""
    facts, policy = record.health, record.service.policy
    return {
        "name": record.name,
        "kind": record.service.kind,
        "status": record.status.value,
        "critical": policy.critical,
        "reason": record.trouble.reason.value if record.trouble.reason else None,
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
    }


def with_transitions(record: Record) -> JsonObject:
    """Return one service as /health/service/{name} shows it: with its last transitions, newest first."""
    return {**service(record), "transitions": [transition(t) for t in record.transitions]}


def transition(change: Transition) -> JsonObject:
    """Return one transition."""
    return {
        "at": timestamp(change.at),
        "from": change.previous.value,
        "to": change.status.value,
        "reason": change.reason.value if change.reason else None,
        "message": change.message or None,
    }


def timestamp(seconds: float | None) -> str | None:
    """Return a time since the epoch in RFC 3339, in UTC, with milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _last_update(records: list[Record]) -> str | None:
    return timestamp(max((r.last_check_at for r in records if r.last_check_at is not None), default=None))
