"""Owns the board: the current health of every service, its counters, its last transitions, and the subscribers.

All writing goes through `Board.put`, which is synchronous: a report goes in, the facts advance, and a
change of status comes out to every subscriber before `put` returns. Reading never waits for anything.
The board must not do I/O, and knows no check and no publisher.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain, count, islice, starmap
from math import inf
from typing import Final

from connection_exporter.core.causes import Causes
from connection_exporter.core.health import Blind, Event, Status, advance, status_of
from connection_exporter.core.overall import Overall, Standing, overall_status
from connection_exporter.core.retry import overdue_after
from connection_exporter.kind import About, Service
from connection_exporter.monitor.record import (
    BLIND,
    NO_TROUBLE,
    TRANSITIONS_KEPT,
    Record,
    Report,
    Transition,
)
from connection_exporter.monitor.reports import CANARIES, count_outage, note, prepare, shown, trouble_of
from connection_exporter.system.clock import Clock

_NOT_FAULTY: Final = (Status.HEALTHY, Status.UNKNOWN)


class Board:
    """The present health of all services. Belongs to one event loop; not for use by other threads."""

    def __init__(self, services: Iterable[Service], clock: Clock) -> None:
        self.clock = clock
        self.active = False
        self.started = clock.monotonic()
        self.forced_checks = 0
        self.renderings = 0
        """Long responses that are being rendered from it now."""
        self.transitions = 0
        """How many there have been of all services."""
        self.faults = 0
        """How many of these were to neither healthy nor unknown."""
        self._records: dict[str, Record] = {}
        self._subscribers: dict[int, Callable[[Transition], None]] = {}
        self._places = count()
        self._earliest_overdue = inf
        self._known_overall: tuple[bool, Overall] | None = None
        self.graph = Causes({})
        for service in services:
            self.add(service)
        self.describe({record.name: record.service.about for record in self._records.values()})

    def add(self, service: Service) -> None:
        """Put a service on the board, unknown until its first attempt begins."""
        record = Record(
            service, entered=self.clock.monotonic(), status_since_at=self.clock.wall(), graph=self.graph
        )
        record.trouble = BLIND[Blind.STARTING]
        prepare(record)
        self._records[service.name] = record
        self._known_overall = None

    def remove(self, name: str) -> None:
        """Take a service off the board, and everything that was counted for it. Raises KeyError.

        Subscribers get a last transition, to unknown, so its history does not end as if the service still ran.
        """
        self.put(name, Report(Event.STOPPED))
        del self._records[name]
        self._known_overall = None

    def replace(self, service: Service) -> None:
        """Put a changed service in the place of the one of its name. Raises KeyError.

        Counters continue, or Prometheus would see a reset that did not happen. A service of another
        kind is a different service with different series, and starts from zero.
        """
        record = self._records[service.name]
        self.put(service.name, Report(Event.STOPPED))
        if record.service.kind != service.kind:
            return self.add(service)
        record.service = service
        record.session_trouble = record.answer_trouble = record.canary_trouble = NO_TROUBLE
        prepare(record)
        record.version += 1
        self._known_overall = None
        return None

    def describe(self, abouts: Mapping[str, About]) -> None:
        """Take in the descriptions and dependencies of all services of a config, also of those to be added."""
        self.graph = Causes({name: about.depends_on for name, about in abouts.items()})
        for record in self._records.values():
            self.graph.update(record.name, is_faulty=_is_faulty(record.status))
        for record in self._records.values():
            record.service = record.service.with_about(abouts.get(record.name, record.service.about))
            record.graph = self.graph
            record.version += 1

    def announce(self, name: str, *, announced: bool) -> None:
        """Note whether an Alertmanager has accepted an alert about a service. Ignores unknown names."""
        record = self._records.get(name)
        if record is not None and record.announced != announced:
            record.announced = announced
            record.version += 1

    def reorder(self, names: Iterable[str]) -> None:
        """Bring the services into the order of ``names``, which are all of them. Raises KeyError."""
        self._records = {name: self._records[name] for name in names}

    def recall(self, past: Mapping[str, Iterable[Transition]]) -> None:
        """Put the transitions of before, the newest first, behind those that are known. Raises KeyError."""
        for name, transitions in past.items():
            record = self._records[name]
            record.transitions = tuple(islice(chain(record.transitions, transitions), TRANSITIONS_KEPT))
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

    def is_healthy(self, name: str) -> bool:
        """Return whether a service is healthy, without `refresh`, so for subscribers too. False for unknown names."""
        record = self._records.get(name)
        return record is not None and record.status is Status.HEALTHY

    def overall(self) -> Overall:
        """Return the overall status. It is kept until a status changes: 10,000 services take 3 ms."""
        self.refresh()
        if self._known_overall is None or self._known_overall[0] is not self.active:
            different = {(r.status, r.service.policy.critical, r.has_been_up) for r in self._records.values()}
            status = overall_status(starmap(Standing, different), active=self.active)
            self._known_overall = self.active, status
        return self._known_overall[1]

    def refresh(self) -> None:
        """Mark every result that is too old as such. Called before every read, and by a timer.

        Nothing is overdue before `_earliest_overdue`. A new result can leave it too early, but never too late. So most
        calls look at one number, not at 10,000 records (0.7 ms).
        """
        now = self.clock.monotonic()
        if now <= self._earliest_overdue:
            return
        for record in self._records.values():
            if record.overdue_after is not None and now > record.overdue_after:
                record.overdue_after = None
                self._advance(record, Report(Event.OVERDUE), now)
        self._earliest_overdue = min(
            (r.overdue_after for r in self._records.values() if r.overdue_after is not None), default=inf
        )

    def put(self, name: str, report: Report) -> Transition | None:
        """Take in a report, and return the transition that it made, if any. Raises KeyError."""
        record, now = self._records[name], self.clock.monotonic()
        if report.event in CANARIES and not record.health.session_up:
            return None  # the session of this canary is over, so its result has no meaning
        wall = self.clock.wall()
        report = shown(record, report)
        if report.next_attempt is not None:
            record.next_attempt_at = wall + report.next_attempt - now
            overdue = overdue_after(record.service.policy, next_attempt=report.next_attempt)
            record.overdue_after = overdue
            self._earliest_overdue = min(self._earliest_overdue, overdue)
        note(record, report, wall=wall)
        return self._advance(record, report, now)

    def _advance(self, record: Record, report: Report, now: float) -> Transition | None:
        record.version += 1
        # Most reports are of this sort. All facts stay the same, and to work them out again takes 3 us more.
        if report.event is Event.ANSWERED_GOOD and record.status is Status.HEALTHY:
            record.steady += 1
            return None
        before = record.health
        after = record.health = advance(before, report.event)
        if after.session_up and not before.session_up:
            record.sessions += 1
            record.session_since_at = self.clock.wall()
            record.has_been_up = True
        elif before.session_up and not after.session_up:
            record.sessions_lost += report.event is not Event.STOPPED
            record.session_since_at = record.latency = record.last_canary_at = None
            record.details = {}
        if report.event is Event.STOPPED:
            record.next_attempt_at = record.overdue_after = None
        status = status_of(after, retries=record.service.policy.retries)
        count_outage(record, report, status, now)
        record.trouble = trouble_of(record, status)
        return self._change(record, status, now) if status is not record.status else None

    def _change(self, record: Record, status: Status, now: float) -> Transition:
        name, wall = record.name, self.clock.wall()
        record.seconds_in[record.status] += now - record.entered
        transition = Transition(
            name,
            record.service.kind,
            record.status,
            status,
            record.trouble.reason,
            record.trouble.message,
            wall,
        )
        record.status, record.entered, record.status_since_at = status, now, wall
        for affected in self.graph.update(name, is_faulty=_is_faulty(status)):
            if affected in self._records:
                self._records[affected].version += 1
        record.transitions_to[status] += 1
        self.transitions += 1
        self.faults += _is_faulty(status)
        self._known_overall = None
        record.transitions = (transition, *record.transitions[: TRANSITIONS_KEPT - 1])
        for subscriber in tuple(self._subscribers.values()):
            subscriber(transition)
        return transition


def _is_faulty(status: Status) -> bool:
    return status not in _NOT_FAULTY
