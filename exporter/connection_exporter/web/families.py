"""Owns the metric families of a service: their names, help, types, and how a record becomes their samples.

Docs, rules and dashboards are compared with this list.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from connection_exporter.core.health import Status, Verdict
from connection_exporter.kind import Metric, MetricType, Service
from connection_exporter.monitor.record import Record
from connection_exporter.web.samples import (
    Family,
    Shown,
    around,
    escape,
    family_of_histograms,
    family_of_labelled_values,
    family_of_values,
    number,
)

_NUMBERS: Final = (bool, int, float)


class Spent(NamedTuple):
    """What `STATE_SECONDS` shows of a service: text, the one number that moves by itself, and text.

    That number is ``seconds`` until ``since``, on the board's monotonic clock, and goes on from there.
    """

    before: str
    seconds: float
    since: float
    after: str


def spent(record: Record, labels: str) -> Spent:
    """Return the parts of the lines of `STATE_SECONDS`."""
    lines = STATE_SECONDS.text(((record, labels),)).splitlines(keepends=True)
    at = list(record.seconds_in).index(record.status)
    name, _, _ = lines[at].rpartition(" ")
    before, after = "".join((*lines[:at], name, " ")), "".join(("\n", *lines[at + 1 :]))
    return Spent(before, record.seconds_in[record.status], record.entered, after)


def spent_until(now: float, services: Iterable[Spent]) -> str:
    """Return the lines of each service: only one number of five is written, 0.5 us instead of 7.5.

    The exact sum is the one that the board makes at a transition, or a counter could fall by a bit. A status that was
    entered after ``now`` has got no seconds yet.
    """
    return "".join(
        [
            f"{before}{number(seconds + (now - since) if now > since else seconds)}{after}"
            for before, seconds, since, after in services
        ]
    )


def family_of(metric: Metric) -> Family:
    """Return the family that shows a kind's own metric."""
    source = metric.source
    if metric.type is MetricType.COUNTER:
        return family_of_values(
            metric.name, metric.help, metric.type, lambda r: r.counters.get(source), measured=True
        )
    if metric.type is MetricType.HISTOGRAM:
        return family_of_histograms(metric.name, metric.help, lambda r: r.histograms.get(source))

    def each(services: Iterable[Shown]) -> list[str]:
        return [
            f"{metric.name}{{{labels}}} {number(value)}\n"
            if isinstance(value := record.details.get(source), _NUMBERS)
            else ""
            for record, labels in services
        ]

    return Family(metric.name, metric.help, metric.type, each, measured=True)


def _info(service: Service, labels: str) -> str:
    before, after = around(labels, "critical")
    critical = f"{before}{'true' if service.policy.critical else 'false'}{after}"
    before, after = around(critical, "address")
    address = escape(service.address)
    kind, _, name = f"{before}{address}{after}".rpartition(",kind=")
    return f'connection_info{{{kind},group="{escape(service.about.group or "")}",kind={name}}} 1.0\n'


def _up(record: Record) -> float | None:
    return None if record.status is Status.UNKNOWN else float(record.status is Status.HEALTHY)


def _canary_up(record: Record) -> float | None:
    canary = record.health.canary
    return None if canary is Verdict.NONE else float(canary is Verdict.GOOD)


def _gauge(name: str, text: str, read: Callable[[Record], float | None], *, measured: bool = False) -> Family:
    return family_of_values(name, text, MetricType.GAUGE, read, measured=measured)


def _counter(name: str, text: str, read: Callable[[Record], float], *, measured: bool = False) -> Family:
    return family_of_values(name, text, MetricType.COUNTER, read, measured=measured)


_STATES: Final = {at: tuple((s.value, float(s is at)) for s in Status) for at in Status}

STATE_SECONDS: Final = family_of_labelled_values(
    "connection_state_seconds_total",
    "Seconds spent in each status, as reported.",
    MetricType.COUNTER,
    "state",
    lambda r: r.seconds_in.items(),
)

FAMILIES: Final = (
    _gauge("connection_up", "Whether the service is healthy; absent while that is unknown.", _up),
    _gauge(
        "connection_status",
        "Status: 0 unknown, 1 healthy, 2 connecting, 3 unhealthy, 4 disconnected.",
        lambda r: r.status.code,
    ),
    family_of_labelled_values(
        "connection_state",
        "Whether the service is in this status.",
        MetricType.GAUGE,
        "state",
        lambda r: _STATES[r.status],
    ),
    _gauge("connection_session_up", "Whether a session is held.", lambda r: r.health.session_up),
    _gauge(
        "connection_canary_up",
        "Whether the last fresh connection was good; absent until there is one.",
        _canary_up,
    ),
    _gauge("connection_retries", "Failed attempts in a row.", lambda r: r.health.retry_count),
    _gauge(
        "connection_next_attempt_timestamp_seconds",
        "When the next attempt is planned, in seconds since the epoch.",
        lambda r: r.next_attempt_at,
        measured=True,
    ),
    _gauge(
        "connection_last_check_timestamp_seconds",
        "When the last check ended, in seconds since the epoch.",
        lambda r: r.last_check_at,
        measured=True,
    ),
    _gauge(
        "connection_last_success_timestamp_seconds",
        "When the last good answer came, in seconds since the epoch.",
        lambda r: r.last_success_at,
        measured=True,
    ),
    _gauge(
        "connection_last_transition_timestamp_seconds",
        "When the status last changed, in seconds since the epoch.",
        lambda r: r.status_since_at,
    ),
    family_of_labelled_values(
        "connection_detection_bound_seconds",
        "Seconds within which a fault of this sort is noticed.",
        MetricType.GAUGE,
        "event",
        lambda r: r.service.detection_bounds.items(),
        fixed=True,
    ),
    Family(
        "connection_info",
        "What is monitored, whether it is critical, and its group.",
        MetricType.GAUGE,
        lambda services: [_info(record.service, labels) for record, labels in services],
        fixed=True,
    ),
    family_of_labelled_values(
        "connection_caused_by",
        "A dependency that explains why the service is not healthy; absent while there is none.",
        MetricType.GAUGE,
        "cause",
        lambda r: [(cause, 1.0) for cause in r.causes],
    ),
    _gauge(
        "connection_alert_announced",
        "An alert about the service is open that an Alertmanager has accepted directly; absent otherwise.",
        lambda r: 1.0 if r.announced else None,
    ),
    _counter("connection_checks_total", "Checks that ended.", lambda r: r.checks, measured=True),
    _counter(
        "connection_check_failures_total",
        "Checks that ended without a good answer.",
        lambda r: r.check_failures,
    ),
    family_of_labelled_values(
        "connection_check_failures_by_reason_total",
        "Checks that ended without a good answer, by reason.",
        MetricType.COUNTER,
        "reason",
        lambda r: sorted(r.failures_by_reason.items()),
    ),
    _counter("connection_sessions_total", "Sessions that came up.", lambda r: r.sessions),
    _counter("connection_sessions_lost_total", "Sessions that were lost.", lambda r: r.sessions_lost),
    _counter(
        "connection_outages_total",
        "Times the service stopped being healthy for longer than a reconnect.",
        lambda r: r.outages,
    ),
    family_of_labelled_values(
        "connection_transitions_total",
        "Changes of status, by the status that was entered.",
        MetricType.COUNTER,
        "to",
        lambda r: r.transitions_to.items(),
    ),
    STATE_SECONDS,
    family_of_histograms(
        "connection_check_duration_seconds",
        "Duration of answered probes over the held session.",
        lambda r: r.durations,
    ),
)
"""What every service has, whatever its kind, in the order of the exposition."""
