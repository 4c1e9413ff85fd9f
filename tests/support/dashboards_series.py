"""Write 30 days of series as the exporter, Prometheus and Alertmanager export them, with known faults.

A service of each kind, two of them in a group. Each is disconnected for 30 minutes on two days; 90 minutes before the
end, all but the HTTP API are disconnected at once, and that gives bad answers. The last three hours are dense, as
scraped; the days before are sparse and contain only what History reads. A second exporter, always healthy, is killed
20 minutes before the end. Its target has no browser_url.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

SCRAPE = 15
SPARSE = 900
DAY = 86400

KINDS = {
    "database": "postgresql",
    "redis": "redis",
    "bot_process": "process",
    "external_api": "http",
    "websocket": "websocket",
    "mail": "tcp",
    "backup": "heartbeat",
}
STATES = ("unknown", "healthy", "connecting", "unhealthy", "disconnected")
UNKNOWN, HEALTHY, CONNECTING, UNHEALTHY, DISCONNECTED = range(5)
REASONS = {
    "database": "refused",
    "redis": "eof",
    "bot_process": "missing",
    "external_api": "expect",
    "websocket": "timeout",
    "mail": "eof",
    "backup": "heartbeat",
}
BUCKETS = ("0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "1", "5")
FAULT_SECONDS = 1200
OLD_OUTAGE_SECONDS = 1800
OTHER = "ledger"  # the service of the second exporter
GROUPS = {"database": ',group="shop"', "redis": ',group="shop"'}
RETIRED = "retired"  # a service that was removed from the configuration an hour before the end

PUSHED = "redis"  # the exporter itself sends its alert to Alertmanager
FOREIGN = 'alertname="KubePodCrashLooping",severity="warning"'  # of other rules in the same Prometheus

_EXPORTER = 'instance="exporter:8000",job="connection-exporter"'
_SECOND = 'instance="second:8000",job="connection-exporter"'
_TARGET = ',browser_url="http://localhost:8000",runbooks_url="http://localhost:9090/user/runbooks"'
SECOND_KILLED = 1200  # seconds before the end
_PROMETHEUS = 'instance="localhost:9090",job="prometheus"'
_NODE = 'instance="node:9100",job="node"'
_ALERTMANAGER = 'instance="alertmanager:9093",job="alertmanager"'


@dataclass(frozen=True, slots=True)
class History:
    """When things happened, in Unix seconds; `end` is the last sample."""

    end: int
    start: int = field(init=False)
    dense: int = field(init=False)
    fault: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "end", self.end // SPARSE * SPARSE)
        object.__setattr__(self, "start", self.end - 30 * DAY)
        object.__setattr__(self, "dense", self.end - 3 * 3600)
        object.__setattr__(self, "fault", self.end - 5400)

    @property
    def before(self) -> int:
        """Return a moment at which everything is healthy."""
        return self.fault - 900

    @property
    def during(self) -> int:
        """Return a moment during the fault."""
        return self.fault + 600

    @property
    def after(self) -> int:
        """Return a moment at which everything is healthy again."""
        return self.fault + FAULT_SECONDS + 1800

    @property
    def gone(self) -> int:
        """Return a moment at which the exporter has not been scraped for a while."""
        return self.end + 1200

    def status(self, name: str, at: int) -> int:
        """Return the status code of a service."""
        number = list(KINDS).index(name)
        for day in (20, 10):
            began = self.end - (day - number) * DAY
            if began <= at < began + OLD_OUTAGE_SECONDS:
                return DISCONNECTED
        since = at - self.fault
        if not 0 <= since < FAULT_SECONDS:
            return HEALTHY
        if name == "external_api":
            return UNHEALTHY
        return CONNECTING if since < 30 else DISCONNECTED

    def moments(self) -> list[int]:
        """Return the times of all samples."""
        sparse = list(range(self.start, self.dense, SPARSE))
        return sparse + list(range(self.dense, self.end + 1, SCRAPE))


def openmetrics(history: History) -> Iterator[str]:
    """Yield the lines of an OpenMetrics text with timestamps."""
    for name, kind in KINDS.items():
        yield from _service(history, name, kind)
    dense = [at for at in history.moments() if at >= history.dense]
    labels = f'name="{RETIRED}",kind="http",{_EXPORTER}'
    for at in dense:
        if at < history.end - 3600:
            yield f"connection_status{{{labels}}} 1 {at}"
            yield f'connection_info{{address="old:80",critical="false",{labels}}} 1 {at}'
    for series, value in _machinery(history).items():
        for at in history.moments() if series.startswith("ALERTS") else dense:
            sample = value(at)
            if sample is not None:
                yield f"{series} {sample} {at}"
    yield "# EOF"


@dataclass(slots=True)
class Tally:
    """What the exporter has counted for one service so far."""

    at: int
    status: int = HEALTHY
    changed: int = 0
    succeeded: int = 0
    outages: int = 0
    losses: int = 0
    retries: int = 0
    answered: int = 0
    checks: int = 0
    failures: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STATES, 0.0))
    entered: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))

    @property
    def down(self) -> bool:
        """Return whether there is no session."""
        return self.status in (CONNECTING, DISCONNECTED)

    def advance(self, at: int, status: int) -> None:
        """Count the time since the last moment, and the effects of the new status."""
        self.seconds[STATES[self.status]] += at - self.at
        if status != self.status:
            self.entered[STATES[status]] += 1
            self.changed = at
            self.outages += self.status == HEALTHY
            self.losses += self.status == HEALTHY and status != UNHEALTHY
        self.at, self.status = at, status
        self.retries = self.retries + 1 if self.down else 0
        self.failures += status != HEALTHY
        self.checks += 1
        self.answered += not self.down
        self.succeeded = at if status == HEALTHY else self.succeeded


def _service(history: History, name: str, kind: str) -> Iterator[str]:
    tally = Tally(history.start, changed=history.start, succeeded=history.start)
    labels = f'name="{name}",kind="{kind}",{_EXPORTER}'
    for at in history.moments():
        tally.advance(at, history.status(name, at))
        samples = _long_kept(history, name, kind, tally)
        if at >= history.dense:
            samples |= _as_scraped(kind, tally)
            if not tally.down:
                samples |= _measured(kind, at, tally.status)
            if at >= history.fault:
                reason = f',reason="{REASONS[name]}"'
                samples["connection_check_failures_by_reason_total", reason] = tally.failures
        for (metric, more), value in samples.items():
            yield f"{metric}{{{labels}{more}}} {value} {at}"


Samples = dict[tuple[str, str], float]


def _long_kept(history: History, name: str, kind: str, tally: Tally) -> Samples:
    samples: Samples = {
        ("connection_status", ""): tally.status,
        ("connection_up", ""): int(tally.status == HEALTHY),
        ("connection_info", f',address="{name}:1",critical="true"{GROUPS.get(name, "")}'): 1,
        ("connection_outages_total", ""): tally.outages,
    }
    for state in STATES:
        samples["connection_state_seconds_total", f',state="{state}"'] = tally.seconds[state]
        samples["connection_transitions_total", f',to="{state}"'] = tally.entered[state]
    if kind == "process":
        samples["connection_process_restarts_total", ""] = tally.outages
    if kind == "heartbeat":
        samples["connection_heartbeat_beats_total", ""] = tally.answered
    if kind in ("http", "websocket"):
        metric = "connection_tls_certificate_expiry_timestamp_seconds"
        samples[metric, ""] = history.end + 40 * DAY
    return samples


def _as_scraped(kind: str, tally: Tally) -> Samples:
    histogram = "connection_check_duration_seconds"
    samples: Samples = {
        ("connection_retries", ""): tally.retries,
        ("connection_next_attempt_timestamp_seconds", ""): tally.at + 20,
        ("connection_last_check_timestamp_seconds", ""): tally.at - 3,
        ("connection_last_success_timestamp_seconds", ""): tally.succeeded,
        ("connection_last_transition_timestamp_seconds", ""): tally.changed,
        ("connection_checks_total", ""): tally.checks,
        ("connection_check_failures_total", ""): tally.failures,
        ("connection_sessions_total", ""): 1 + tally.losses - tally.down,
        ("connection_sessions_lost_total", ""): tally.losses,
        ("connection_session_up", ""): int(not tally.down),
        (f"{histogram}_bucket", ',le="+Inf"'): tally.answered,
        (f"{histogram}_sum", ""): tally.answered * 0.012,
        (f"{histogram}_count", ""): tally.answered,
    }
    for state in STATES:
        samples["connection_state", f',state="{state}"'] = int(STATES[tally.status] == state)
    for event in ("closed", "vanished", "frozen"):
        samples["connection_detection_bound_seconds", f',event="{event}"'] = 11
    for number, bound in enumerate(BUCKETS):
        within = tally.answered if number > 4 else 0
        samples[f"{histogram}_bucket", f',le="{float(bound)}"'] = within
    if kind == "websocket":
        pings = "connection_websocket_ping_duration_seconds"
        samples |= {
            (metric.replace(histogram, pings), more): value
            for (metric, more), value in samples.items()
            if metric.startswith(histogram)
        }
    if not tally.down and kind not in ("process", "heartbeat"):
        samples["connection_canary_up", ""] = 1
    return samples


PHASES = {
    "http": ("resolve", "connect", "tls", "processing", "transfer"),
    "postgresql": ("connect", "auth", "query"),
    "websocket": ("handshake",),
}


def _measured(kind: str, at: int, status: int) -> Samples:
    values: dict[str, float]
    match kind:
        case "postgresql":
            values = {
                "connection_postgresql_in_recovery": 1,
                "connection_postgresql_replication_lag_seconds": 0.2,
                "connection_postgresql_connections": 12,
                "connection_postgresql_max_connections": 100,
            }
        case "redis":
            values = {
                "connection_redis_master_link_up": 1,
                "connection_redis_memory_used_bytes": 1.5e6,
                "connection_redis_memory_max_bytes": 1e7,
            }
        case "http":
            values = {"connection_http_status_code": 500 if status == UNHEALTHY else 200}
        case "websocket":
            values = {
                "connection_websocket_last_message_timestamp_seconds": at - 5,  # 2 before the check
            }
        case "tcp":
            values = {
                "connection_tcp_round_trip_seconds": 0.004,
                "connection_tcp_dialogue_duration_seconds": 0.006,
            }
        case "heartbeat":
            values = {"connection_heartbeat_last_beat_timestamp_seconds": at - 5}
        case _:
            values = {}
    for phase in PHASES.get(kind, ()):
        values[f"connection_{kind}_{phase}_duration_seconds"] = 0.004
    return {(metric, ""): value for metric, value in values.items()}


def _machinery(history: History) -> dict[str, Callable[[int], float | None]]:
    def constant(value: float) -> Callable[[int], float]:
        return lambda at: value

    def growing(speed: float) -> Callable[[int], float]:
        return lambda at: (at - history.start) * speed

    def overall(at: int) -> float:
        return 3 if history.fault <= at < history.fault + FAULT_SECONDS else 1

    series: dict[str, Callable[[int], float | None]] = {
        f"connection_overall_status{{{_EXPORTER}}}": overall,
        f"connection_monitor_active{{{_EXPORTER}}}": constant(1),
        f"connection_forced_checks_total{{{_EXPORTER}}}": constant(2),
        f'connection_exporter_build_info{{version="0.9.0",{_EXPORTER}}}': constant(1),
        f"connection_exporter_config_last_reload_successful{{{_EXPORTER}}}": constant(1),
        f"connection_exporter_callbacks_dropped_total{{{_EXPORTER}}}": constant(0),
        f"connection_exporter_log_lines_dropped_total{{{_EXPORTER}}}": constant(0),
        f"scrape_duration_seconds{{{_EXPORTER}}}": constant(0.002),
        f"scrape_samples_scraped{{{_EXPORTER}}}": constant(260),
        f'prometheus_build_info{{version="3.5",{_PROMETHEUS}}}': constant(1),
        f"prometheus_config_last_reload_successful{{{_PROMETHEUS}}}": constant(1),
        f"prometheus_notifications_sent_total{{{_PROMETHEUS}}}": growing(0.1),
        f"prometheus_notifications_errors_total{{{_PROMETHEUS}}}": constant(0),
        f"prometheus_notifications_dropped_total{{{_PROMETHEUS}}}": constant(0),
        f"prometheus_notifications_alertmanagers_discovered{{{_PROMETHEUS}}}": constant(1),
        f"prometheus_rule_evaluation_failures_total{{{_PROMETHEUS}}}": constant(0),
        f"prometheus_rule_group_iterations_missed_total{{{_PROMETHEUS}}}": constant(0),
        f"prometheus_rule_group_last_duration_seconds{{{_PROMETHEUS}}}": constant(0.004),
        f"prometheus_tsdb_head_series{{{_PROMETHEUS}}}": constant(1200),
        f"prometheus_tsdb_storage_blocks_bytes{{{_PROMETHEUS}}}": constant(1e7),
        f"prometheus_tsdb_wal_storage_size_bytes{{{_PROMETHEUS}}}": constant(1e6),
        f'alertmanager_build_info{{version="0.28",{_ALERTMANAGER}}}': constant(1),
        f"alertmanager_config_last_reload_successful{{{_ALERTMANAGER}}}": constant(1),
        f'alertmanager_alerts{{state="active",{_ALERTMANAGER}}}': constant(1),
        f'alertmanager_silences{{state="active",{_ALERTMANAGER}}}': constant(0),
    }
    for number in range(2):
        labels = f'integration="{("email", "webhook")[number]}",{_ALERTMANAGER}'
        series |= {
            f"alertmanager_notifications_total{{{labels}}}": constant(0),
            f"alertmanager_notifications_failed_total{{{labels}}}": constant(0),
            f'alertmanager_notification_latency_seconds_bucket{{le="1.0",{labels}}}': constant(0),
            f'alertmanager_notification_latency_seconds_bucket{{le="+Inf",{labels}}}': constant(0),
        }
    for bound, speed in (("0.001", 0.9), ("0.01", 1), ("+Inf", 1)):
        bucket = f'connection_exporter_loop_lag_seconds_bucket{{le="{bound}",{_EXPORTER}}}'
        series[bucket] = growing(speed)
    for labels in (_EXPORTER, _PROMETHEUS, _ALERTMANAGER):
        series |= {
            f"up{{{labels}{_TARGET if labels == _EXPORTER else ''}}}": constant(1),
            f"process_start_time_seconds{{{labels}}}": constant(history.dense),
            f"process_cpu_seconds_total{{{labels}}}": growing(0.01),
            f"process_resident_memory_bytes{{{labels}}}": constant(6e7),
            f"process_open_fds{{{labels}}}": constant(30),
            f"process_max_fds{{{labels}}}": constant(1024),
        }
    # Of another job in the same Prometheus.
    series |= {f"up{{{_NODE}}}": constant(0), f"process_resident_memory_bytes{{{_NODE}}}": constant(2e7)}
    return series | _second(history) | _alerts(history)


def _second(history: History) -> dict[str, Callable[[int], float | None]]:
    """Return the series of another exporter; after it is killed, only `up` remains."""
    labels = f'name="{OTHER}",kind="redis",{_SECOND}'
    killed = history.end - SECOND_KILLED

    def while_alive(at: int) -> float | None:
        return 1 if at < killed else None

    return {
        f"connection_overall_status{{{_SECOND}}}": while_alive,
        f"connection_monitor_active{{{_SECOND}}}": while_alive,
        f"connection_status{{{labels}}}": while_alive,
        f'connection_info{{address="other:1",critical="true",{labels}}}': while_alive,
        f"up{{{_SECOND}}}": lambda at: int(at < killed),
        f"process_cpu_seconds_total{{{_SECOND}}}": while_alive,
        f"process_resident_memory_bytes{{{_SECOND}}}": while_alive,
        f"process_open_fds{{{_SECOND}}}": while_alive,
        f"process_max_fds{{{_SECOND}}}": while_alive,
    }


def _alerts(history: History) -> dict[str, Callable[[int], float | None]]:
    began = history.fault + 60

    def burning(value: float) -> Callable[[int], float | None]:
        return lambda at: value if began <= at < history.fault + FAULT_SECONDS else None

    watchdog = 'alertname="Watchdog",severity="none"'
    series: dict[str, Callable[[int], float | None]] = {
        f'ALERTS{{alertstate="firing",{watchdog}}}': lambda at: 1,
        f"ALERTS_FOR_STATE{{{watchdog}}}": lambda at: history.start,
        f'ALERTS{{alertstate="firing",{FOREIGN}}}': lambda at: 1,
        f"ALERTS_FOR_STATE{{{FOREIGN}}}": lambda at: history.start,
        f'connection_alert_announced{{name="{PUSHED}",kind="{KINDS[PUSHED]}",{_EXPORTER}}}': burning(1),
    }
    for name, kind in KINDS.items():
        if name == PUSHED:
            continue
        alert = "ConnectionUnhealthy" if name == "external_api" else "ConnectionDisconnected"
        labels = f'alertname="{alert}",name="{name}",kind="{kind}",severity="critical"'
        series[f'ALERTS{{alertstate="firing",{labels}}}'] = burning(1)
        series[f"ALERTS_FOR_STATE{{{labels}}}"] = burning(began)
    return series
