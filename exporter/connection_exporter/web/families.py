"""Owns the metric families of a service: their names, help, types, and how a record becomes their samples.

Docs, rules and dashboards are compared with this list.
"""

from collections.abc import Callable, Sequence
from typing import Final

from connection_exporter.core.health import Status, Verdict
from connection_exporter.kind import Json, Metric, MetricType, Service
from connection_exporter.monitor.record import Record
from connection_exporter.web.samples import (
    Family,
    Labelled,
    around,
    escape,
    family_of_histograms,
    family_of_labelled_counts,
    family_of_labelled_values,
    family_of_lines,
    family_of_values,
    pairs_of,
)


def family_of(metric: Metric) -> Family:
    """Return the family that shows a kind's own metric."""
    source = metric.source
    if metric.type is MetricType.HISTOGRAM:
        return family_of_histograms(metric.name, metric.help, lambda r: r.histograms.get(source))

    def counts(records: Sequence[Record]) -> list[Json]:
        return [record.counters.get(source) for record in records]

    def values(records: Sequence[Record]) -> list[Json]:
        return [record.details.get(source) for record in records]

    read = counts if metric.type is MetricType.COUNTER else values
    return family_of_values(metric.name, metric.help, metric.type, read, measured=True)


def _info(service: Service, labels: str) -> str:
    before, after = around(pairs_of(labels), "critical")
    critical = f"{before}{'true' if service.policy.critical else 'false'}{after}"
    before, after = around(critical, "address")
    address = escape(service.address)
    kind, _, name = f"{before}{address}{after}".rpartition(",kind=")
    return f'connection_info{{{kind},group="{escape(service.about.group or "")}",kind={name}}} 1.0\n'


def _up(records: Sequence[Record]) -> list[float | None]:
    return [None if r.status is Status.UNKNOWN else r.status is Status.HEALTHY for r in records]


def _canary_up(records: Sequence[Record]) -> list[float | None]:
    canaries = [record.health.canary for record in records]
    return [None if canary is Verdict.NONE else canary is Verdict.GOOD for canary in canaries]


_Read = Callable[[Sequence[Record]], Sequence[Json]]


def _gauge(name: str, text: str, read: _Read, *, measured: bool = False) -> Family:
    return family_of_values(name, text, MetricType.GAUGE, read, measured=measured)


def _counter(name: str, text: str, read: _Read, *, measured: bool = False) -> Family:
    return family_of_values(name, text, MetricType.COUNTER, read, measured=measured)


_NONE: Final[Labelled] = (), ()
_ALL: Final = tuple(s.value for s in Status)
_STATES: Final = {at: (_ALL, tuple(int(s is at) for s in Status)) for at in Status}
_OTHERS: Final = {at: tuple(s.value for s in Status if s is not at) for at in Status}


def _past(record: Record) -> Labelled:
    now = record.status
    return _OTHERS[now], tuple([seconds for s, seconds in record.seconds_in.items() if s is not now])


def _bounds(record: Record) -> Labelled:
    bounds = record.service.detection_bounds
    return tuple(bounds), tuple(bounds.values())


def _failures(record: Record) -> Labelled:
    if not record.failures_by_reason:
        return _NONE
    by_reason = sorted(record.failures_by_reason.items())
    return tuple([reason for reason, _ in by_reason]), tuple([count for _, count in by_reason])


STATE_SECONDS: Final = family_of_labelled_values(
    "connection_state_seconds_total",
    "Seconds spent in each status, as reported.",
    MetricType.COUNTER,
    "state",
    _past,
)
"""Has no line for the present status, whose number differs at each scrape: see `in_present_status`."""


def in_present_status(labels: str, status: Status) -> str:
    """Return the labels of that line, of a service with these `labels`."""
    return f'{{{pairs_of(labels)},state="{status}"}} '


FAMILIES: Final = (
    _gauge("connection_up", "Whether the service is healthy; absent while that is unknown.", _up),
    _gauge(
        "connection_status",
        "Status: 0 unknown, 1 healthy, 2 connecting, 3 unhealthy, 4 disconnected.",
        lambda records: [r.status.code for r in records],
    ),
    family_of_labelled_counts(
        "connection_state",
        "Whether the service is in this status.",
        MetricType.GAUGE,
        "state",
        lambda r: _STATES[r.status],
    ),
    _gauge(
        "connection_session_up",
        "Whether a session is held.",
        lambda records: [r.health.session_up for r in records],
    ),
    _gauge(
        "connection_canary_up",
        "Whether the last fresh connection was good; absent until there is one.",
        _canary_up,
    ),
    _gauge(
        "connection_retries",
        "Failed attempts in a row.",
        lambda records: [r.health.retry_count for r in records],
    ),
    _gauge(
        "connection_next_attempt_timestamp_seconds",
        "When the next attempt is planned, in seconds since the epoch.",
        lambda records: [r.next_attempt_at for r in records],
        measured=True,
    ),
    _gauge(
        "connection_last_check_timestamp_seconds",
        "When the last check ended, in seconds since the epoch.",
        lambda records: [r.last_check_at for r in records],
        measured=True,
    ),
    _gauge(
        "connection_last_success_timestamp_seconds",
        "When the last good answer came, in seconds since the epoch.",
        lambda records: [r.last_success_at for r in records],
        measured=True,
    ),
    _gauge(
        "connection_last_transition_timestamp_seconds",
        "When the status last changed, in seconds since the epoch.",
        lambda records: [r.status_since_at for r in records],
    ),
    family_of_labelled_values(
        "connection_detection_bound_seconds",
        "Seconds within which a fault of this sort is noticed.",
        MetricType.GAUGE,
        "event",
        _bounds,
        fixed=True,
    ),
    family_of_lines(
        "connection_info",
        "What is monitored, whether it is critical, and its group.",
        MetricType.GAUGE,
        lambda records, labels: [_info(r.service, its) for r, its in zip(records, labels, strict=True)],
        fixed=True,
    ),
    family_of_labelled_counts(
        "connection_caused_by",
        "A dependency that explains why the service is not healthy; absent while there is none.",
        MetricType.GAUGE,
        "cause",
        lambda r: (causes := r.causes, (1,) * len(causes)),
    ),
    _gauge(
        "connection_alert_announced",
        "An alert about the service is open that an Alertmanager has accepted directly; absent otherwise.",
        lambda records: [1.0 if r.announced else None for r in records],
    ),
    _counter(
        "connection_checks_total",
        "Checks that ended.",
        lambda records: [r.checks for r in records],
        measured=True,
    ),
    _counter(
        "connection_check_failures_total",
        "Checks that ended without a good answer.",
        lambda records: [r.check_failures for r in records],
    ),
    family_of_labelled_counts(
        "connection_check_failures_by_reason_total",
        "Checks that ended without a good answer, by reason.",
        MetricType.COUNTER,
        "reason",
        _failures,
    ),
    _counter(
        "connection_sessions_total", "Sessions that came up.", lambda records: [r.sessions for r in records]
    ),
    _counter(
        "connection_sessions_lost_total",
        "Sessions that were lost.",
        lambda records: [r.sessions_lost for r in records],
    ),
    _counter(
        "connection_outages_total",
        "Times the service stopped being healthy for longer than a reconnect.",
        lambda records: [r.outages for r in records],
    ),
    family_of_labelled_counts(
        "connection_transitions_total",
        "Changes of status, by the status that was entered.",
        MetricType.COUNTER,
        "to",
        lambda r: (_ALL, tuple(r.transitions_to.values())),
    ),
    STATE_SECONDS,
    family_of_histograms(
        "connection_check_duration_seconds",
        "Duration of answered probes over the held session.",
        lambda r: r.durations,
    ),
)
"""What every service has, whatever its kind, in the order of the exposition."""
