"""The rows of the Service dashboard for one kind only; collapsed until somebody opens them."""

from .dashboard import Line, Section
from .palette import (
    DISCONNECTED,
    HEALTHY,
    NEUTRAL,
    POSTGRESQL_ROLE,
    PROCESS,
    REPLICA,
    UNHEALTHY,
    Json,
    mappings,
    steps,
)
from .panels import stat, target, targets, timeline, timeseries
from .queries import SELECT, each, if_none, increase, last, while_up


def sections() -> list[Section]:
    """Return one collapsed row for each kind."""
    return [
        Section([Line(7, _postgresql())], title="PostgreSQL only", collapsed=True),
        Section([Line(7, _redis())], title="Redis only", collapsed=True),
        Section([Line(7, _process())], title="Process only", collapsed=True),
        Section([Line(7, _http())], title="HTTP only", collapsed=True),
        Section([Line(7, _websocket())], title="WebSocket only", collapsed=True),
        Section([Line(7, _tcp())], title="TCP only", collapsed=True),
        Section([Line(7, _heartbeat())], title="Heartbeat only", collapsed=True),
    ]


def _absent(kind: str) -> dict[str, object]:
    return {"noValue": f"not a {kind} service, or not measured yet"}


def _postgresql() -> list[tuple[int, Json]]:
    used = each("connection_postgresql_connections")
    limit = each("connection_postgresql_max_connections")
    role = stat(
        "Role",
        "The last role that the server reported in the range: primary, or standby, which replicates another server.",
        [target(last("connection_postgresql_in_recovery"), "{{name}}", instant=True)],
        mappings=mappings(POSTGRESQL_ROLE),
        extra=_absent("postgresql"),
    )
    connections = timeseries(
        "Connections",
        "Connections in use and the server's limit. At the limit, the server rejects new clients (slots_full),"
        " while the held session continues.",
        targets((used, "in use"), (limit, "limit")),
        unit="short",
        extra=_absent("postgresql"),
    )
    share = timeseries(
        "Share in use",
        "Connections in use divided by the limit.",
        [target(f"{used} / ({limit} > 0)", "in use")],
        unit="percentunit",
        thresholds=steps((None, HEALTHY), (0.8, UNHEALTHY), (0.95, DISCONNECTED)),
        extra={"max": 1, **_absent("postgresql")},
    )
    lag = timeseries(
        "Replication lag",
        "How far a standby is behind its primary.",
        [target(each("connection_postgresql_replication_lag_seconds"), "lag")],
        unit="s",
        extra={"noValue": "not a standby"},
    )
    return [(4, role), (8, connections), (6, share), (6, lag)]


def _redis() -> list[tuple[int, Json]]:
    memory = timeseries(
        "Memory",
        "Memory in use, and the limit (maxmemory) if there is one.",
        targets(
            (each("connection_redis_memory_used_bytes"), "in use"),
            (each("connection_redis_memory_max_bytes"), "limit"),
        ),
        unit="bytes",
        extra=_absent("redis"),
    )
    master = "connection_redis_master_link_up"
    link = timeline(
        "Link of a replica to its master",
        "Down means that the replica serves old data.",
        [target(f"{each(master)} or {if_none(f'{master}{{{SELECT}}}', 'link', 2)}", "link")],
        mappings=mappings(REPLICA),
    )
    return [(14, memory), (10, link)]


def _process() -> list[tuple[int, Json]]:
    total = stat(
        "Restarts",
        "Restarts in the range: all of them for systemd units, otherwise those that the exporter observed.",
        [
            target(
                f"round({increase('connection_process_restarts_total', '$__range')})",
                "{{name}}",
                instant=True,
            )
        ],
        unit="short",
        thresholds=steps((None, NEUTRAL), (0, HEALTHY), (1, UNHEALTHY)),
        extra={"decimals": 0, **_absent("process")},
    )
    when = timeseries(
        "Restarts over time",
        "When the process was restarted.",
        [target(increase("connection_process_restarts_total", "$__rate_interval"), "restarts")],
        unit="short",
        bars=True,
        interval="1m",
        extra={"decimals": 0, **_absent("process")},
    )
    running = f'connection_session_up{{{SELECT},kind="process"}}'
    present = timeline(
        "Process running",
        "Whether the process was running, according to its pidfd.",
        [target(f"max by (name) ({running}) or {if_none(running, 'process', 2)}", "process")],
        mappings=mappings(PROCESS),
    )
    return [(4, total), (10, when), (10, present)]


def _http() -> list[tuple[int, Json]]:
    status = timeseries(
        "HTTP status",
        "The code of the last complete response: 2xx is a success, 5xx is a fault of the server.",
        [target(each("connection_http_status_code"), "status code")],
        unit="none",
        extra={"decimals": 0, **_absent("http")},
    )
    http = ',kind="http"'
    buckets = increase(
        "connection_check_duration_seconds_bucket", "$__rate_interval", extra=http, by="name, le"
    )
    latency = timeseries(
        "Response times",
        "Duration of the answered requests over the kept connection. There is no line while there is no session.",
        targets(
            (while_up(f"histogram_quantile(0.99, {buckets})"), "p99"),
            (while_up(f"histogram_quantile(0.5, {buckets})"), "p50"),
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
        "Round-trip time of pings over the held session.",
        targets(
            (while_up(f"histogram_quantile(0.99, {buckets})"), "p99"),
            (while_up(f"histogram_quantile(0.5, {buckets})"), "p50"),
        ),
        unit="s",
        interval="2m",
        extra=_absent("websocket"),
    )
    # Not time() minus the metric: the exporter updates it only at each check, so that age would grow between checks.
    checked = each("connection_last_check_timestamp_seconds")
    received = each("connection_websocket_last_message_timestamp_seconds")
    age = timeseries(
        "Age of the last message",
        "How old the last message was at each check. A rising line means that no messages arrive while the connection"
        " is up.",
        [target(f"{checked} - {received}", "age")],
        unit="s",
        extra=_absent("websocket"),
    )
    return [(12, ping), (12, age)]


def _tcp() -> list[tuple[int, Json]]:
    round_trip = timeseries(
        "Round trip",
        "Round-trip time to the host, as the kernel measures it. It depends on the network, not on the server's load.",
        [target(each("connection_tcp_round_trip_seconds"), "round trip")],
        unit="s",
        extra=_absent("tcp"),
    )
    dialogue = timeseries(
        "Dialogue",
        "Duration of the dialogue of each probe: the round trip and the time that the server needs.",
        [target(each("connection_tcp_dialogue_duration_seconds"), "dialogue")],
        unit="s",
        extra={"noValue": "not a tcp service, or without on_probe"},
    )
    return [(12, round_trip), (12, dialogue)]


def _heartbeat() -> list[tuple[int, Json]]:
    # Unlike a WebSocket's messages, each beat is shown at once, so its age may be measured on the clock.
    age = timeseries(
        "Age of the last beat",
        "How long ago the service last sent a beat. The service is disconnected when this reaches its max_age.",
        [target(f"time() - {each('connection_heartbeat_last_beat_timestamp_seconds')}", "age")],
        unit="s",
        extra=_absent("heartbeat"),
    )
    beats = timeseries(
        "Beats",
        "Beats that the exporter received.",
        [target(increase("connection_heartbeat_beats_total", "$__rate_interval"), "beats")],
        unit="short",
        bars=True,
        interval="1m",
        extra=_absent("heartbeat"),
    )
    return [(12, age), (12, beats)]
