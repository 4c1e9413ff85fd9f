"""The rows of the Service dashboard that only one kind has; folded away until they are opened."""

from .dashboard import Line, Section
from .palette import (
    DISCONNECTED,
    HEALTHY,
    POSTGRESQL_ROLE,
    UNHEALTHY,
    UP_DOWN,
    Json,
    mappings,
    steps,
)
from .panels import stat, target, targets, timeline, timeseries
from .queries import SELECT, each, increase, last


def sections() -> list[Section]:
    """Return one folded row a kind."""
    return [
        Section([Line(7, _postgresql())], title="PostgreSQL only", collapsed=True),
        Section([Line(7, _redis())], title="Redis only", collapsed=True),
        Section([Line(7, _process())], title="Process only", collapsed=True),
        Section([Line(7, _http())], title="HTTP only", collapsed=True),
        Section([Line(7, _websocket())], title="WebSocket only", collapsed=True),
    ]


def _absent(kind: str) -> dict[str, object]:
    return {"noValue": f"no {kind} service chosen, or not measured yet"}


def _postgresql() -> list[tuple[int, Json]]:
    used = each("connection_postgresql_connections")
    limit = each("connection_postgresql_max_connections")
    role = stat(
        "Role",
        "Primary, or standby that replays another server; the last answer in the range shown.",
        [target(last("connection_postgresql_in_recovery"), "{{name}}", instant=True)],
        mappings=mappings(POSTGRESQL_ROLE),
        extra=_absent("postgresql"),
    )
    connections = timeseries(
        "Connections",
        "Connections in use and the server's limit. At the limit new clients are turned away"
        " (slots_full) while the held session goes on.",
        targets((used, "{{name}} in use"), (limit, "{{name}} limit")),
        unit="short",
        extra=_absent("postgresql"),
    )
    share = timeseries(
        "Share of connections in use",
        "Connections in use over the limit.",
        [target(f"{used} / ({limit} > 0)", "{{name}}")],
        unit="percentunit",
        thresholds=steps((None, HEALTHY), (0.8, UNHEALTHY), (0.95, DISCONNECTED)),
        extra={"max": 1, **_absent("postgresql")},
    )
    lag = timeseries(
        "Replication lag",
        "How far a standby is behind its primary.",
        [target(each("connection_postgresql_replication_lag_seconds"), "{{name}}")],
        unit="s",
        extra={"noValue": "no standby chosen"},
    )
    return [(4, role), (8, connections), (6, share), (6, lag)]


def _redis() -> list[tuple[int, Json]]:
    memory = timeseries(
        "Memory",
        "Memory in use, and the limit (maxmemory) where there is one.",
        targets(
            (each("connection_redis_memory_used_bytes"), "{{name}} in use"),
            (each("connection_redis_memory_max_bytes"), "{{name}} limit"),
        ),
        unit="bytes",
        extra=_absent("redis"),
    )
    link = timeline(
        "Link of a replica to its master",
        "Down means that the replica answers with data that grows old.",
        [target(each("connection_redis_master_link_up"), "{{name}}")],
        mappings=mappings(UP_DOWN),
    )
    return [(14, memory), (10, link)]


def _process() -> list[tuple[int, Json]]:
    total = stat(
        "Restarts",
        "Restarts in the range shown: exact for systemd units, otherwise those that were seen.",
        [
            target(
                f"round({increase('connection_process_restarts_total', '$__range')})",
                "{{name}}",
                instant=True,
            )
        ],
        unit="short",
        thresholds=steps((None, HEALTHY), (1, UNHEALTHY)),
        extra={"decimals": 0, **_absent("process")},
    )
    when = timeseries(
        "Restarts over time",
        "When the process was restarted.",
        [target(increase("connection_process_restarts_total", "$__rate_interval"), "{{name}}")],
        unit="short",
        bars=True,
        interval="1m",
        extra={"decimals": 0, **_absent("process")},
    )
    present = timeline(
        "Process there",
        "Whether the process was there, as its pidfd tells.",
        [target(f'max by (name) (connection_session_up{{{SELECT},kind="process"}})', "{{name}}")],
        mappings=mappings(UP_DOWN),
    )
    return [(4, total), (10, when), (10, present)]


def _http() -> list[tuple[int, Json]]:
    status = timeseries(
        "HTTP status",
        "The code of the last complete answer: 2xx is as it should be, 5xx is the server's fault.",
        [target(each("connection_http_status_code"), "{{name}}")],
        unit="none",
        extra={"decimals": 0, **_absent("http")},
    )
    http = ',kind="http"'
    buckets = increase(
        "connection_check_duration_seconds_bucket", "$__rate_interval", extra=http, by="name, le"
    )
    latency = timeseries(
        "Answer times",
        "Duration of the answered requests over the kept connection, by service.",
        targets(
            (f"histogram_quantile(0.99, {buckets})", "{{name}} p99"),
            (f"histogram_quantile(0.5, {buckets})", "{{name}} p50"),
        ),
        unit="s",
        interval="2m",
        extra=_absent("http"),
    )
    return [(12, status), (12, latency)]


def _websocket() -> list[tuple[int, Json]]:
    buckets = increase("connection_websocket_ping_duration_seconds_bucket", "$__rate_interval", by="name, le")
    ping = timeseries(
        "Ping round trip",
        "How long pings took to come back over the held session.",
        targets(
            (f"histogram_quantile(0.99, {buckets})", "{{name}} p99"),
            (f"histogram_quantile(0.5, {buckets})", "{{name}} p50"),
        ),
        unit="s",
        interval="2m",
        extra=_absent("websocket"),
    )
    # Not time() less the metric: that is as old as the check which read it, however busy the stream is.
    checked = each("connection_last_check_timestamp_seconds")
    received = each("connection_websocket_last_message_timestamp_seconds")
    age = timeseries(
        "Age of the last message",
        "How old the stream's last message was at each check. A line that climbs is a stream that went"
        " silent while its connection stayed up.",
        [target(f"{checked} - {received}", "{{name}}")],
        unit="s",
        extra=_absent("websocket"),
    )
    return [(12, ping), (12, age)]
