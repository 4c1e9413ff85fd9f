"""Owns direct alerting: follows the board, keeps the ledger, and runs a sender for each Alertmanager.

An alert is posted as soon as a service is disconnected and nothing explains it. Before that, two things are checked:

- dependencies that are healthy: a frozen one is noticed only by a probe, and one alert for the cause is enough;
- a service whose cause has just recovered: it may recover as well, and only its next attempt shows that.

This takes milliseconds if they answer, and their timeout if they do not. `monitor.dependencies` begins such checks as
well, but does not wait for their results. A check that is in flight is joined, not repeated.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib import import_module
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from connection_exporter.alerting.ledger import Alert, Ledger
from connection_exporter.alerting.text import annotations_of, labels_of
from connection_exporter.config.url import place_of
from connection_exporter.core.health import Status
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Record, Transition
from connection_exporter.net.tls import TlsContexts
from connection_exporter.system.log import get_logger
from connection_exporter.system.threads import run_in_thread
from connection_exporter.system.wakeup import Wakeup

if TYPE_CHECKING:
    from connection_exporter.alerting.sender import Sender
    from connection_exporter.config.alerting import AlertingConfig

_DESCRIBE_EVERY: Final = 5.0
"""Seconds after which the text of all open alerts is written again: who is affected changes, and the message does."""
_SLICE: Final = 200
"""Services after which the event loop runs."""
_GRACE: Final = 0.5
"""Seconds beyond the timeout of a service within which a check of it ends."""

log = get_logger(__name__)

CheckNow = Callable[[Sequence[str]], Awaitable[None]]
"""Checks services now, and returns when the results are on the board."""


class Deliveries(NamedTuple):
    """For metrics: whether alerts arrive, and for each Alertmanager how many were sent, and how many failed."""

    healthy: bool
    counts: Mapping[str, tuple[int, int]]


class Push:
    """The alerts of one board, sent to Alertmanager directly while `run` runs, if `configure` was given a config."""

    def __init__(self, board: Board, *, check_now: CheckNow, own_url: str) -> None:
        self.ledger = Ledger()
        self._board = board
        self._check_now = check_now
        self._own_url = own_url
        self._config: AlertingConfig | None = None
        self._external_url = own_url
        self._senders: dict[Sender, asyncio.Task[None]] = {}
        self._contexts = TlsContexts()
        self._changed: dict[str, None] = {}
        self._seen_healthy: set[str] = set()
        self._wakeup = Wakeup()
        self._confirming: dict[str, asyncio.Task[None]] = {}
        self._checks: dict[str, asyncio.Task[None]] = {}
        board.subscribe(self._note)

    def deliveries(self) -> Deliveries | None:
        """Return what metrics show, or None without `alerting`."""
        if self._config is None:
            return None
        counts = {sender.place: (sender.sent, sender.failed) for sender in self._senders}
        return Deliveries(any(sender.healthy for sender in self._senders), counts)

    async def configure(self, config: "AlertingConfig | None") -> None:
        """Send to the Alertmanagers of ``config`` from now on. Open alerts stay open, and go to new ones as well."""
        if config == self._config:
            return
        self._config = config
        self._external_url = (config.external_url if config is not None else None) or self._own_url
        before, self._senders = self._senders, {}
        for task in before.values():
            task.cancel()
        if before:
            await asyncio.wait(before.values())
        if config is None:
            for name in self.ledger.names():
                self._board.announce(name, announced=False)
            return
        counts = {sender.place: sender for sender in before}
        # httpx takes 0.1 s to import, and only this needs it
        module = await run_in_thread(
            lambda: import_module("connection_exporter.alerting.sender"), name="import httpx"
        )
        for url in config.alertmanagers:
            sender: Sender = module.Sender(
                url,
                config,
                self.ledger,
                clock=self._board.clock,
                contexts=self._contexts,
                generator_url=self._external_url,
                accepted=self._accepted,
            )
            if sender.place in counts:
                known = counts[sender.place]
                sender.sent, sender.failed, sender.delivered_at = known.sent, known.failed, known.delivered_at
            self._senders[sender] = asyncio.get_running_loop().create_task(sender.run(), name=f"alerts {url}")
        self._look_again(self._board.names)

    async def run(self) -> None:
        """Follow the board until cancelled."""
        monotonic = self._board.clock.monotonic
        self._look_again(self._board.names)
        due = monotonic() + _DESCRIBE_EVERY
        while True:
            await self._wakeup.wait(max(due - monotonic(), 0.0))
            if monotonic() >= due:
                self._changed |= dict.fromkeys(self.ledger.names())
                self._forget()
                due = monotonic() + _DESCRIBE_EVERY
            if self._config is None:
                self._changed.clear()
            else:
                await self._look_at_changes()

    async def aclose(self) -> None:
        """Stop sending. Open alerts are not resolved: a restart continues them, and otherwise their lease ends."""
        tasks = [*self._senders.values(), *self._confirming.values(), *self._checks.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _note(self, transition: Transition) -> None:
        """Look at the service soon. Called inside `Board.put`."""
        if self._config is not None:
            self._changed[transition.name] = None
            self._wakeup.set()

    def _look_again(self, names: Iterable[str]) -> None:
        self._changed |= dict.fromkeys(names)
        self._wakeup.set()

    async def _look_at_changes(self) -> None:
        """Look at each service that has changed, and at those that depend on it."""
        changed, self._changed = self._changed, {}
        names = dict(changed)
        for name in changed:
            names |= dict.fromkeys(self._board.graph.dependents(name))
        for count, name in enumerate(names, 1):
            self._look(name)
            if count % _SLICE == 0:
                await asyncio.sleep(0)

    def _look(self, name: str, *, confirmed: bool = False) -> None:
        """Start, describe or end the alert of a service, as its status demands."""
        if name not in self._board:
            self._seen_healthy.discard(name)
            if self.ledger.is_open(name):
                self._close(name)
            return
        record = self._board.record(name)
        if self.ledger.is_open(name):
            self._follow(record)
        elif self.ledger.starts(name, record.status, has_cause=self._board.graph.has_cause(name)) and (
            confirmed or not self._confirm(record)
        ):
            self._open(record, down_since(record))
        elif record.status is Status.HEALTHY and name not in self._seen_healthy:
            self._end_of_before(record)

    def _open(self, record: Record, since: float) -> None:
        labels = labels_of(record, place_of(self._external_url))
        annotations = annotations_of(self._board, record, since=since, external_url=self._external_url)
        self.ledger.open(record.name, Alert(labels, annotations, since))
        self._send(record.name)

    def _follow(self, record: Record) -> None:
        """Bring an open alert up to date. Only a healthy service ends it; only a disconnected one changes its text."""
        if record.status is Status.HEALTHY:
            self._seen_healthy.add(record.name)
            self._close(record.name)
        elif record.status is Status.DISCONNECTED:
            since, url = self.ledger.started_at(record.name), self._external_url
            text = annotations_of(self._board, record, since=since, external_url=url)
            if self.ledger.describe(record.name, text):
                self._send(record.name)

    def _end_of_before(self, record: Record) -> None:
        """End the alert of a service that was disconnected before a restart, and is healthy after it.

        If its lease ended while Prometheus reported the exporter down, Alertmanager has not notified of an end. An end
        of an alert that it never notified of is ignored.
        """
        self._seen_healthy.add(record.name)
        since = _disconnected_at(islice(record.transitions, 1, None))
        if since is not None:
            self._open(record, since)
            self._close(record.name)

    def _close(self, name: str) -> None:
        self.ledger.close(name, self._board.clock.wall())
        self._board.announce(name, announced=False)
        self._send(name)

    def _accepted(self, name: str) -> None:
        if self.ledger.is_open(name):
            self._board.announce(name, announced=True)

    def _forget(self) -> None:
        undelivered_since = min((sender.delivered_at for sender in self._senders), default=inf)
        self.ledger.forget(self._board.clock.wall(), undelivered_since=undelivered_since)

    def _send(self, name: str) -> None:
        for sender in self._senders:
            sender.send(name)

    def _confirm(self, record: Record) -> bool:
        """Check what may explain the fault or end it; return False if there is nothing to check. `_look` follows."""
        if record.name in self._confirming:
            return True
        board, checked_at = self._board, record.last_check_at or 0.0
        wanted = [name for name in board.graph.dependencies(record.name) if board.is_healthy(name)]
        if any(board.record(dependency).status_since_at > checked_at for dependency in wanted):
            wanted.append(record.name)  # it has recovered since our last attempt
        if not wanted:
            return False
        task = asyncio.get_running_loop().create_task(self._confirmed(record.name, wanted))
        self._confirming[record.name] = task
        return True

    async def _confirmed(self, name: str, wanted: Sequence[str]) -> None:
        try:
            await asyncio.wait([self._check(each) for each in wanted])
        finally:
            del self._confirming[name]
        self._look(name, confirmed=True)

    def _check(self, name: str) -> "asyncio.Task[None]":
        """Check a service now; all who ask meanwhile share the check."""
        task = self._checks.get(name)
        if task is None:
            timeout = self._board.record(name).service.policy.timeout if name in self._board else 0.0
            task = asyncio.get_running_loop().create_task(self._checked(name, timeout + _GRACE))
            self._checks[name] = task
            task.add_done_callback(lambda _: self._checks.pop(name, None))
        return task

    async def _checked(self, name: str, within: float) -> None:
        try:
            async with asyncio.timeout(within):
                await self._check_now([name])
        except TimeoutError:
            log.debug("check_before_alert_took_too_long", name=name)


def down_since(record: Record) -> float:
    """Return when the service became disconnected, before a restart of the exporter if its history says so."""
    before = _disconnected_at(record.transitions)
    return record.status_since_at if before is None else min(record.status_since_at, before)


def _disconnected_at(newest_first: Iterable[Transition]) -> float | None:
    """Return when the service first became disconnected after it was last healthy, or ``None``."""
    since = None
    for transition in newest_first:
        if transition.status is Status.HEALTHY:
            break
        if transition.status is Status.DISCONNECTED:
            since = transition.at
    return since
