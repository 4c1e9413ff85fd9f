"""Owns the board: the present health of every service, its counters, its last transitions, who is told.

All writing goes through `Board.put`, which is synchronous: a report goes in, the facts advance, and a
change of status comes out to every subscriber before `put` returns. Reading never waits for anything.
The board must not do I/O, and knows no check and no publisher.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import count, islice
from typing import Final

from exporter.check import MetricType, Observation, Service
from exporter.clock import Clock
from exporter.core.health import Blind, Event, Status, Verdict, advance, status_of
from exporter.core.overall import Overall, Standing, overall_status
from exporter.core.retry import due
from exporter.histogram import Histogram
from exporter.record import (
    BLIND,
    NO_TROUBLE,
    TRANSITIONS_KEPT,
    Record,
    Report,
    Transition,
    Trouble,
    presentable,
)

_CHECKS: Final = (Event.ANSWERED_GOOD, Event.ANSWERED_BAD, Event.FAILED, Event.CRASHED)
_CANARIES: Final = (Event.CANARY_GOOD, Event.CANARY_BAD)
_NEVER: Final = float("inf")


class Board:
    """The present health of all services. Belongs to one event loop; not for use by other threads."""

    def __init__(self, services: Iterable[Service], clock: Clock) -> None:
        self.clock = clock
        self.active = False
        self.started = clock.monotonic()
        self.forced_checks = 0
        self._records: dict[str, Record] = {}
        self._subscribers: dict[int, Callable[[Transition], None]] = {}
        self._places = count()
        self._earliest_due = _NEVER
        self._known_overall: tuple[bool, Overall] | None = None
        for service in services:
            self.add(service)

    def add(self, service: Service) -> None:
        """Put a service on the board, unknown until its first attempt begins."""
        record = Record(service, entered=self.clock.monotonic(), status_since_at=self.clock.wall())
        record.trouble = BLIND[Blind.STARTING]
        _prepare(record)
        self._records[service.name] = record
        self._known_overall = None

    def remove(self, name: str) -> None:
        """Take a service off the board, and everything that was counted for it. Raises KeyError.

        Subscribers are told of a last transition, to unknown: its history does not end as if it went on.
        """
        self.put(name, Report(Event.STOPPED))
        del self._records[name]
        self._known_overall = None

    def replace(self, service: Service) -> None:
        """Put a changed service in the place of the one of its name. Raises KeyError.

        What was counted goes on, or Prometheus would see a reset that never was. A service of another
        kind is another service, with other series, and begins anew.
        """
        record = self._records[service.name]
        self.put(service.name, Report(Event.STOPPED))
        if record.service.kind != service.kind:
            return self.add(service)
        record.service = service
        record.session_trouble = record.answer_trouble = record.canary_trouble = NO_TROUBLE
        _prepare(record)
        record.version += 1
        self._known_overall = None
        return None

    def reorder(self, names: Iterable[str]) -> None:
        """Bring the services into the order of ``names``, which are all of them. Raises KeyError."""
        self._records = {name: self._records[name] for name in names}

    def recall(self, past: Mapping[str, Iterable[Transition]]) -> None:
        """Put the transitions of before, the newest first, behind those that are known. Raises KeyError."""
        for name, transitions in past.items():
            record = self._records[name]
            record.transitions.extend(islice(transitions, TRANSITIONS_KEPT - len(record.transitions)))
            record.version += 1

    def subscribe(self, subscriber: Callable[[Transition], None]) -> Callable[[], None]:
        """Call ``subscriber`` for each transition, in order, inside `put`; it must not block or raise.

        Returns the unsubscriber.
        """
        place = next(self._places)
        self._subscribers[place] = subscriber

        def unsubscribe() -> None:
            self._subscribers.pop(place, None)

        return unsubscribe

    def __contains__(self, name: str) -> bool:
        return name in self._records

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all services, in the order of the config."""
        return tuple(self._records)

    def record(self, name: str) -> Record:
        """Return what is known of ``name`` now. Raises KeyError."""
        self.refresh()
        return self._records[name]

    def records(self) -> list[Record]:
        """Return what is known of every service now."""
        self.refresh()
        return list(self._records.values())

    def retry_count(self, name: str) -> int:
        """Return how many attempts in a row have failed. Raises KeyError."""
        return self._records[name].health.retry_count

    def overall(self) -> Overall:
        """Return the overall status. It is kept until a status changes: 10,000 services take 12 ms."""
        self.refresh()
        if self._known_overall is None or self._known_overall[0] is not self.active:
            standings = (
                Standing(r.status, r.service.policy.critical, r.has_been_up) for r in self._records.values()
            )
            self._known_overall = self.active, overall_status(standings, active=self.active)
        return self._known_overall[1]

    def refresh(self) -> None:
        """Mark every result that is too old as such. Called before every read, and by a timer.

        Nothing is older than `_earliest_due` allows, which later results only make too early: so most calls
        look at one number, not at 10,000 records (0.7 ms).
        """
        now = self.clock.monotonic()
        if now <= self._earliest_due:
            return
        for record in self._records.values():
            if record.due is not None and now > record.due:
                record.due = None
                self._advance(record, Report(Event.OVERDUE), now)
        self._earliest_due = min((r.due for r in self._records.values() if r.due is not None), default=_NEVER)

    def put(self, name: str, report: Report) -> Transition | None:
        """Take in a report, and return the transition that it made, if any. Raises KeyError."""
        record, now = self._records[name], self.clock.monotonic()
        if report.event in _CANARIES and not record.health.session_up:
            return None  # its session is over: what it saw says nothing any more
        if report.next_attempt is not None:
            record.next_attempt_at = self.clock.wall() + report.next_attempt - now
            record.due = due(record.service.policy, next_attempt=report.next_attempt)
            self._earliest_due = min(self._earliest_due, record.due)
        if report.event is Event.STOPPED:
            record.next_attempt_at = record.due = None
        self._note(record, report)
        return self._advance(record, report, now)

    def _note(self, record: Record, report: Report) -> None:
        """Write down what a report says, whatever it may mean for the status."""
        wall = self.clock.wall()
        trouble = Trouble(report.reason, presentable(report.message))
        if report.event in _CHECKS:
            record.checks += 1
            record.last_check_at = wall
            if report.event is Event.ANSWERED_GOOD:
                record.last_success_at = wall
            else:
                record.check_failures += 1
                if report.reason is not None:
                    by_reason = record.failures_by_reason
                    by_reason[report.reason] = by_reason.get(report.reason, 0) + 1
        if report.event in _CANARIES:
            record.last_canary_at = wall
            record.canary_trouble = trouble
        elif report.observation is not None:
            record.answer_trouble = trouble
            _measure(record, report, report.observation)
        elif report.event in (Event.FAILED, Event.LOST, Event.CRASHED):
            record.session_trouble = trouble

    def _advance(self, record: Record, report: Report, now: float) -> Transition | None:
        before, after = record.health, advance(record.health, report.event)
        record.health = after
        if after.session_up and not before.session_up:
            record.sessions += 1
            record.session_since_at = self.clock.wall()
            record.has_been_up = True
        elif before.session_up and not after.session_up:
            record.sessions_lost += report.event is not Event.STOPPED
            record.session_since_at = record.latency = record.last_canary_at = None
            record.details = {}
        status = status_of(after, retries=record.service.policy.retries)
        _count_outage(record, report, status, now)
        record.trouble = _trouble(record, status)
        record.version += 1
        return self._change(record, status, now) if status is not record.status else None

    def _change(self, record: Record, status: Status, now: float) -> Transition:
        wall = self.clock.wall()
        record.seconds_in[record.status] += now - record.entered
        transition = Transition(
            record.name,
            record.service.kind,
            record.status,
            status,
            record.trouble.reason,
            record.trouble.message,
            wall,
        )
        record.status, record.entered, record.status_since_at = status, now, wall
        record.transitions_to[status] += 1
        self._known_overall = None
        record.transitions.appendleft(transition)
        for subscriber in tuple(self._subscribers.values()):
            subscriber(transition)
        return transition


def _prepare(record: Record) -> None:
    """Have every counter and histogram of the kind there from the first second."""
    for metric in record.service.check.traits.metrics:
        if metric.type is MetricType.COUNTER:
            record.counters.setdefault(metric.source, 0)
        elif metric.type is MetricType.HISTOGRAM:
            record.histograms.setdefault(metric.source, Histogram(metric.buckets))


def _measure(record: Record, report: Report, observation: Observation) -> None:
    """Keep what an answer brought: latency, details, and the kind's own counters and histograms."""
    record.latency = report.latency
    if report.latency is not None and report.held:
        record.durations.observe(report.latency)
    for key, number in observation.counts.items():
        record.counters[key] += number
    for key, histogram in record.histograms.items():
        value = observation.details.get(key)
        if isinstance(value, int | float):
            histogram.observe(value)
    record.details = {**observation.details, **record.counters}


def _count_outage(record: Record, report: Report, status: Status, now: float) -> None:
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


def _trouble(record: Record, status: Status) -> Trouble:
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
