"""What a probe of PostgreSQL asks besides the query, how the answer is read, and what is expected. No I/O."""

import math
from decimal import Decimal, InvalidOperation
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Json, Metric, MetricType, Observation
from connection_exporter.kinds.postgresql.config import PostgresqlConfig
from connection_exporter.kinds.postgresql.messages import malformed
from connection_exporter.kinds.postgresql.question import Answer
from connection_exporter.net.certificate import CERTIFICATE_EXPIRY_METRIC

_PHASES: Final = {
    "connect": "Time to connect, when the session was made.",
    "auth": "Time for TLS and authentication, when the session was made.",
    "query": "Time that the query took in the last probe.",
}
METRICS: Final = (
    Metric(
        "connection_postgresql_in_recovery",
        "Whether the server is a standby.",
        MetricType.GAUGE,
        "in_recovery",
    ),
    Metric(
        "connection_postgresql_replication_lag_seconds",
        "Age of the last transaction replayed, on a standby that has not replayed all it received.",
        MetricType.GAUGE,
        "replication_lag_seconds",
    ),
    Metric(
        "connection_postgresql_connections",
        "Client connections to the server.",
        MetricType.GAUGE,
        "connections",
    ),
    Metric(
        "connection_postgresql_max_connections",
        "Client connections that the server allows.",
        MetricType.GAUGE,
        "max_connections",
    ),
    *(
        Metric(f"connection_postgresql_{phase}_duration_seconds", text, MetricType.GAUGE, f"{phase}_seconds")
        for phase, text in _PHASES.items()
    ),
    CERTIFICATE_EXPIRY_METRIC,
)

DEPTH: Final = """
SELECT pg_catalog.pg_is_in_recovery(),
       CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN NULL
            WHEN pg_catalog.pg_last_wal_receive_lsn() = pg_catalog.pg_last_wal_replay_lsn() THEN 0
            ELSE extract(epoch FROM pg_catalog.now() - pg_catalog.pg_last_xact_replay_timestamp())
       END::float8,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend')::int,
       pg_catalog.current_setting('max_connections')::int
"""
"""The query for depth, which each probe executes besides its own query."""

COLUMNS: Final = 4
"""Columns of `DEPTH`."""

_LONGEST_NUMBER: Final = 100
"""Characters of a number that is read."""

_LARGEST_COUNT: Final = 2**31 - 1
"""The largest integer of PostgreSQL, to which both counts are cast."""


def read_depth(row: list[str | None] | None) -> dict[str, Json]:
    """Return the answer to `DEPTH` as details. Raises `Violation` for one that PostgreSQL would not give."""
    if row is None or len(row) != COLUMNS or row[0] not in ("t", "f"):
        raise malformed("a wrong answer to the query for depth")
    in_recovery, lag, connections, slots = row
    return {
        "role": "standby" if in_recovery == "t" else "primary",
        "in_recovery": in_recovery == "t",
        "replication_lag_seconds": _number(lag),
        "connections": _count(connections),
        "max_connections": _count(slots),
    }


def judge(config: PostgresqlConfig, answer: Answer, details: dict[str, Json]) -> Observation:
    """Return the observation that the ``answer`` to the query and ``details`` amount to."""
    expected = config.expect.value
    value = answer.row[0] if answer.row else None
    if answer.boolean:
        value = {"t": "true", "f": "false"}.get(value or "", value)
    if expected is not None and not _equal(value, expected):
        absent = "NULL" if answer.row else "no value"
        shown = absent if value is None else repr(value[:100])
        return Observation(Reason.EXPECT, f"the query gave {shown}, not {_as_text(expected)!r}", details)
    role = details.get("role", "server of unknown role")
    if config.expect.role is not None and role != config.expect.role:
        return Observation(Reason.ROLE, f"the server is a {role}, not a {config.expect.role}", details)
    return Observation(details=details)


def _equal(value: str | None, expected: bool | float | str) -> bool:
    """Compare as text, and a number by its value as well: 1.0 in the config equals 1 and 1.00 from the server."""
    if value == _as_text(expected):
        return True
    if value is None or isinstance(expected, bool | str) or len(value) > _LONGEST_NUMBER:
        return False
    try:
        return Decimal(value) == Decimal(str(expected))
    except InvalidOperation:
        return False


def _as_text(value: bool | float | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(text: str | None) -> float | None:
    """Return a finite number; ``None`` for NULL and for what JSON cannot express."""
    if text is None:
        return None
    try:
        number = float(text[:_LONGEST_NUMBER])
    except ValueError:
        raise malformed("a number that is none") from None
    return number if math.isfinite(number) else None


def _count(text: str | None) -> int | None:
    """Return a count, or ``None`` for NULL and for a number out of range: some relatives of PostgreSQL send -1."""
    number = _number(text)
    return int(number) if number is not None and 0 <= number <= _LARGEST_COUNT else None
