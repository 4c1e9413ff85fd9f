"""Writes into the record of a service what a report says, made fit to be shown."""

from functools import lru_cache
from typing import Final

from connection_exporter.core.health import Blind, Event, Reason, Status, Verdict
from connection_exporter.kind import Metric, MetricType, Observation
from connection_exporter.monitor.details import BadDetail, clean, presentable
from connection_exporter.monitor.record import BLIND, NO_TROUBLE, Histogram, Record, Report, Trouble

CANARIES: Final = (Event.CANARY_GOOD, Event.CANARY_BAD)
_CHECKS: Final = (Event.ANSWERED_GOOD, Event.ANSWERED_BAD, Event.FAILED, Event.CRASHED)
_OF_SESSION: Final = (Event.BEGUN, Event.FAILED, Event.LOST, Event.CRASHED)


def shown(record: Record, report: Report) -> Report:
    """Return a report as it may be shown; one that cannot be shown becomes a crash that says why.

    This is the only way onto the board, so no secret and no control character gets past it, whatever the kind.
    """
    seen, hide = report.observation, record.service.hide
    try:
        if report.reason is not None and not isinstance(report.reason, Reason):
            raise BadDetail("the reason is not one of Reason")
        if seen is not None:
            details = clean(seen.details, hide, keep=record.metric_keys, shown=record.details)
            if details is not seen.details:
                report = report._replace(observation=seen._replace(details=details))
    except BadDetail as error:
        return Report(Event.CRASHED, Reason.INTERNAL, str(error), next_attempt=report.next_attempt)
    message = presentable(report.message, hide)
    return report if message == report.message else report._replace(message=message)


def prepare(record: Record) -> None:
    """Create every counter and histogram of the kind, so that they exist from the first second."""
    record.metric_keys = _sources_of(record.service.traits.metrics)
    for metric in record.service.traits.metrics:
        if metric.type is MetricType.COUNTER:
            record.counters.setdefault(metric.source, 0)
        elif metric.type is MetricType.HISTOGRAM:
            record.histograms.setdefault(metric.source, Histogram(metric.buckets))


@lru_cache(maxsize=64)
def _sources_of(metrics: tuple[Metric, ...]) -> frozenset[str]:
    """Return the keys of details that metrics show: one set of 0.7 to 2 KiB for all services of a kind."""
    return frozenset(metric.source for metric in metrics)


def note(record: Record, report: Report, *, wall: float) -> None:
    """Write down what a report says, whatever it may mean for the status. ``wall`` is the time, in Unix seconds."""
    event, reason, message, observation, latency, held, _ = report
    trouble = Trouble(reason, message) if reason or message else NO_TROUBLE
    if event in _CHECKS:
        record.checks += 1
        record.last_check_at = wall
        if event is Event.ANSWERED_GOOD:
            record.last_success_at = wall
        else:
            record.check_failures += 1
            if reason is not None:
                record.failures_by_reason[reason] = record.failures_by_reason.get(reason, 0) + 1
    if observation is not None:
        record.answer_trouble = trouble
        _measure(record, observation, latency, held=held)
    elif event in CANARIES:
        record.last_canary_at = wall
        record.canary_trouble = trouble
    elif event in _OF_SESSION:
        record.session_trouble = trouble


def _measure(record: Record, observation: Observation, latency: float | None, *, held: bool) -> None:
    """Keep what an answer brought: latency, details, and the kind's own counters and histograms."""
    record.latency = latency
    if latency is not None and held:
        record.durations.observe(latency)
    for key, number in observation.counts.items():
        record.counters[key] += number
    for key, histogram in record.histograms.items():
        value = observation.details.get(key)
        if isinstance(value, int | float):
            histogram.observe(value)
    record.details = {**observation.details, **record.counters}


def count_outage(record: Record, report: Report, status: Status, now: float) -> None:
    """Count an outage once, when the status is still not healthy after the attempt that follows at once.

    While such an attempt is about to begin (the first of all, or right after a loss) it is too early to say.
    """
    if status is Status.HEALTHY:
        record.in_outage = False
        return
    pending = report.event is Event.BEGUN or (
        report.event is Event.LOST and report.next_attempt is not None and report.next_attempt <= now
    )
    if status is not Status.UNKNOWN and not record.in_outage and not pending:
        record.in_outage = True
        record.outages += 1


def trouble_of(record: Record, status: Status) -> Trouble:
    """Say why ``record`` is in ``status``: the trouble that its facts point to."""
    health = record.health
    if status is Status.HEALTHY:
        return NO_TROUBLE
    if health.blind is Blind.INTERNAL:
        return record.session_trouble
    if health.blind is not Blind.NONE:
        return BLIND[health.blind]
    if not health.session_up:
        return record.session_trouble
    return record.answer_trouble if health.answer is Verdict.BAD else record.canary_trouble
