"""Owns the metric families of a service: their names, help, types, and how a record becomes their samples.

The one list that docs, rules and dashboards are held against. Sample lines are written by hand for
speed (a thousand services are 48,000 of them); tests hold every byte against prometheus_client.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from prometheus_client.utils import floatToGoString

from exporter.bounds import detection_bounds
from exporter.check import Metric, MetricType, Service
from exporter.core.health import Status, Verdict
from exporter.histogram import Histogram
from exporter.record import Record

_PLAIN: Final = 1_000_000
"""From here on the reference library writes an exponent."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family with one block of sample lines for each service.

    ``read`` takes from a record what the family shows, as a value that is equal while that stays the same; ``write``
    makes sample lines, each ended by a newline, of such a value and the label pairs (``kind="…",name="…"``). They
    are two, since most of what is read at a scrape has not changed, and writing is what takes the time.
    """

    name: str
    help: str
    type: MetricType
    read: Callable[[Record], Any]
    write: Callable[[Any, str], str]

    def lines(self, record: Record, labels: str) -> str:
        """Return the sample lines of a record."""
        return self.write(self.read(record), labels)


def label_pairs(record: Record) -> str:
    """Return the label pairs that every sample of a service has."""
    return f'kind="{record.service.kind}",name="{record.name}"'


def around(labels: str, key: str) -> tuple[str, str]:
    """Return what stands before and after the value of one more pair, in the reference library's order: by name."""
    if key < "kind":
        return f'{key}="', f'",{labels}'
    if key > "name":
        return f'{labels},{key}="', '"'
    kind, _, name = labels.partition(",")
    return f'{kind},{key}="', f'",{name}'


def escape(text: str) -> str:
    """Escape a label value as the text format wants it."""
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def seconds_here(record: Record, now: float) -> float:
    """Return the exact seconds spent in the present status until ``now``, on the board's monotonic clock."""
    # summed as the board does at a transition, or a counter could fall by a bit
    return record.seconds_in[record.status] + (now - record.entered)


def around_seconds_here(record: Record, labels: str) -> tuple[str, str]:
    """Return the lines of ``connection_state_seconds_total`` before and after the one number that moves by itself.

    It is the only one to be written when nothing has happened: 1.4 us a service and scrape, where all five take 7.5.
    """
    lines = STATE_SECONDS.write(record.seconds_in.items(), labels).splitlines(keepends=True)
    at = list(record.seconds_in).index(record.status)
    name, _, _ = lines[at].rpartition(" ")
    return "".join((*lines[:at], name, " ")), "".join(("\n", *lines[at + 1 :]))


def family_of(metric: Metric) -> Family:
    """Return the family that shows a kind's own metric."""
    source = metric.source
    if metric.type is MetricType.COUNTER:
        return _value(metric.name, metric.help, metric.type, lambda r: r.counters.get(source))
    if metric.type is MetricType.HISTOGRAM:
        return _histogram(metric.name, metric.help, lambda r: r.histograms.get(source))

    def measured(record: Record) -> float | None:
        value = record.details.get(source)
        return float(value) if isinstance(value, bool | int | float) else None

    return _value(metric.name, metric.help, metric.type, measured)


def number(value: float) -> str:
    """Return ``value`` as the reference library writes it; what needs no exponent, which is most, by a shorter way."""
    if -_PLAIN < value < _PLAIN:
        return f"{value}.0" if type(value) is int else repr(float(value))
    return floatToGoString(value)  # type: ignore[no-any-return,no-untyped-call,unused-ignore]


def _value(name: str, text: str, of_type: MetricType, read: Callable[[Record], float | None]) -> Family:
    def write(value: float | None, labels: str) -> str:
        return "" if value is None else f"{name}{{{labels}}} {number(value)}\n"

    return Family(name, text, of_type, read, write)


def _labelled(
    name: str,
    text: str,
    of_type: MetricType,
    label: str,
    read: Callable[[Record], Iterable[tuple[str, float]]],
) -> Family:
    def write(pairs: Iterable[tuple[str, float]], labels: str) -> str:
        before, after = around(labels, label)
        return "".join(f"{name}{{{before}{key}{after}}} {number(value)}\n" for key, value in pairs)

    return Family(name, text, of_type, lambda record: tuple(read(record)), write)


def _histogram(name: str, text: str, source: Callable[[Record], Histogram | None]) -> Family:
    def read(record: Record) -> tuple[tuple[float, ...], tuple[int, ...], float] | None:
        histogram = source(record)
        if histogram is None:
            return None
        return histogram.bounds, tuple(histogram.cumulative()), histogram.sum

    def write(value: tuple[tuple[float, ...], tuple[int, ...], float] | None, labels: str) -> str:
        if value is None:
            return ""
        bounds, counts, total = value
        before, after = around(labels, "le")
        buckets = "".join(
            f"{name}_bucket{{{before}{bound}{after}}} {number(count)}\n"
            for bound, count in zip(_bounds(bounds), counts, strict=True)
        )
        return f"{buckets}{name}_count{{{labels}}} {number(counts[-1])}\n{name}_sum{{{labels}}} {number(total)}\n"

    return Family(name, text, MetricType.HISTOGRAM, read, write)


@cache
def _bounds(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*map(number, bounds), "+Inf")


def _info(service: Service, labels: str) -> str:
    before, after = around(labels, "critical")
    critical = f"{before}{'true' if service.policy.critical else 'false'}{after}"
    before, after = around(critical, "address")
    return f"connection_info{{{before}{escape(service.check.address)}{after}}} 1.0\n"


def _up(record: Record) -> float | None:
    return None if record.status is Status.UNKNOWN else float(record.status is Status.HEALTHY)


def _canary_up(record: Record) -> float | None:
    canary = record.health.canary
    return None if canary is Verdict.NONE else float(canary is Verdict.GOOD)


def _gauge(name: str, text: str, read: Callable[[Record], float | None]) -> Family:
    return _value(name, text, MetricType.GAUGE, read)


def _counter(name: str, text: str, read: Callable[[Record], float]) -> Family:
    return _value(name, text, MetricType.COUNTER, read)


_STATES: Final = {at: tuple((s.value, float(s is at)) for s in Status) for at in Status}

STATE_SECONDS: Final = _labelled(
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
    _labelled(
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
    ),
    _gauge(
        "connection_last_check_timestamp_seconds",
        "When the last check ended, in seconds since the epoch.",
        lambda r: r.last_check_at,
    ),
    _gauge(
        "connection_last_success_timestamp_seconds",
        "When the last good answer came, in seconds since the epoch.",
        lambda r: r.last_success_at,
    ),
    _gauge(
        "connection_last_transition_timestamp_seconds",
        "When the status last changed, in seconds since the epoch.",
        lambda r: r.status_since_at,
    ),
    _labelled(
        "connection_detection_bound_seconds",
        "Seconds within which a fault of this sort is noticed.",
        MetricType.GAUGE,
        "event",
        lambda r: detection_bounds(r.service.policy, r.service.check.traits).items(),
    ),
    Family(
        "connection_info",
        "What is watched, and whether it is critical.",
        MetricType.GAUGE,
        lambda r: r.service,
        _info,
    ),
    _counter("connection_checks_total", "Checks that ended.", lambda r: r.checks),
    _counter(
        "connection_check_failures_total",
        "Checks that ended without a good answer.",
        lambda r: r.check_failures,
    ),
    _labelled(
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
    _labelled(
        "connection_transitions_total",
        "Changes of status, by the status that was entered.",
        MetricType.COUNTER,
        "to",
        lambda r: r.transitions_to.items(),
    ),
    STATE_SECONDS,
    _histogram(
        "connection_check_duration_seconds",
        "Duration of answered probes over the held session.",
        lambda r: r.durations,
    ),
)
"""What every service has, whatever its kind, in the order of the exposition."""
