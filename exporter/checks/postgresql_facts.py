"""Owns what is asked of PostgreSQL beside the query, what of it is shown, and what is expected. No I/O."""

from typing import Any, Final

from exporter.check import Json, Metric, MetricType, Observation
from exporter.config.kinds.postgresql import PostgresqlConfig
from exporter.core.health import Reason
from exporter.net.certificate import CERTIFICATE_EXPIRY_METRIC

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
"""What is asked at each probe beside the query."""


def read_depth(row: Any) -> dict[str, Json]:
    """Return what the answer to `DEPTH` says, as details."""
    in_recovery, lag, connections, slots = row
    return {
        "role": "standby" if in_recovery else "primary",
        "in_recovery": bool(in_recovery),
        "replication_lag_seconds": lag,
        "connections": connections,
        "max_connections": slots,
    }


def judge(config: PostgresqlConfig, value: object, details: dict[str, Json]) -> Observation:
    """Return the observation that ``value``, the query's, and ``details`` amount to."""
    expect = config.expect
    if expect.value is not None and _as_text(value) != _as_text(expect.value):
        message = f"the query gave {_as_text(value)[:100]!r}, not {_as_text(expect.value)!r}"
        return Observation(Reason.EXPECT, message, details)
    role = details.get("role", "server of unknown role")
    if expect.role is not None and role != expect.role:
        return Observation(Reason.ROLE, f"the server is a {role}, not a {expect.role}", details)
    return Observation(details=details)


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
