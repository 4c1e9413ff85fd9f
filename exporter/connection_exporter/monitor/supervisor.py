"""Runs the loops of all services: start, stop, reload, force-check, and the timer that finds overdue results.

A loop that dies ends the whole monitor, and with it the process: a dead monitor must never look like a quiet one. A
check that cannot be stopped ends nothing: its task is abandoned after a while.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from connection_exporter.core.health import Event
from connection_exporter.core.retry import first_start, pause
from connection_exporter.kind import Service, takes_beats
from connection_exporter.monitor.attempt import CLOSE_WITHIN
from connection_exporter.monitor.batches import Batches
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.deadlines import Deadlines
from connection_exporter.monitor.dependencies import Dependencies
from connection_exporter.monitor.errors import NotRunning, TooSoon, UnknownService
from connection_exporter.monitor.rate_limiter import RateLimiter
from connection_exporter.monitor.record import Report
from connection_exporter.monitor.service_loop import ServiceLoop
from connection_exporter.system.log import get_logger
from connection_exporter.system.wakeup import until_next

STOP_WITHIN: Final = CLOSE_WITHIN + 1.0
"""Seconds after which a task that has been cancelled is abandoned."""

_TICK: Final = 1.0
_JUMP: Final = 1.0
"""Seconds by which the board's clock runs ahead of the event loop's before it counts as a suspend."""
_ROUND_EVERY: Final = 1.0
"""Seconds from the end of one forced round to the earliest start of the next."""

log = get_logger(__name__)


class Supervisor:
    """Monitors every service on the board while its ``async with`` block runs."""

    def __init__(
        self, services: Iterable[Service], board: Board, *, rand: Callable[[], float] = random.random
    ) -> None:
        self._services = tuple(services)
        self._board = board
        self._rand = rand
        self._group = asyncio.TaskGroup()
        self._owned: set[asyncio.Task[None]] = set()
        self._abandoned: set[asyncio.Task[None]] = set()
        self._died: asyncio.Future[None] | None = None
        self._limiter = RateLimiter(lambda: board.renderings > 0)
        self._batches = Batches(origin=board.clock.monotonic())
        self._deadlines = Deadlines()
        self._loops: dict[str, ServiceLoop] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._watchdog: asyncio.Task[None] | None = None
        self._rounds: dict[str | None, asyncio.Task[None]] = {}
        self._round_ended: dict[str | None, float] = {}
        self._dependencies = Dependencies(
            board, spawn=self.spawn, attempt_now=self._attempt_now, check_now=self.check_now
        )

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._died = asyncio.get_running_loop().create_future()
        for index, service in enumerate(self._services):
            self.start(service, delay=first_start(service.policy, index=index, total=len(self._services)))
        self._watchdog = self._group.create_task(self._watch(self._died))
        self._board.active = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._board.active = False
        self._dependencies.stop()
        if self._watchdog is not None:
            self._watchdog.cancel()
        try:
            await self._stop_tasks(self._owned)
            # The group has to distinguish a cancellation from outside from its own. An error of the block passes.
            cancelled = isinstance(error, asyncio.CancelledError)
            await self._group.__aexit__(*((kind, error, traceback) if cancelled else (None, None, None)))
        finally:
            for name in self._board.names:  # including one that a change has stopped and will not start again
                self._board.put(name, Report(Event.STOPPED))

    def start(self, service: Service, *, delay: float = 0.0) -> None:
        """Begin to monitor a service that is on the board, ``delay`` seconds from now."""
        loop = ServiceLoop(
            service,
            self._board,
            rand=self._rand,
            spawn=self.spawn,
            delay=delay,
            limiter=self._limiter,
            batches=self._batches,
            deadlines=self._deadlines,
        )
        self._loops[service.name] = loop
        self._batches.resize(len(self._loops))
        self._running[service.name] = self.spawn(loop.run(), name=f"service {service.name}")

    async def stop(self, name: str) -> None:
        """End the loop of one service, within `STOP_WITHIN` seconds. Raises KeyError."""
        await self._end(name)
        del self._loops[name]
        self._batches.resize(len(self._loops))

    async def change(self, services: Sequence[Service], *, removed: Iterable[str]) -> None:
        """Monitor ``services``, each in place of the one of the same name, and stop monitoring those in ``removed``.

        New ones start spread, as at the beginning. Changed ones reconnect one after another, within 2 s altogether,
        because a change of the defaults changes them all. Raises `NotRunning`, also if monitoring stops meanwhile.
        """
        for name in removed:
            self._require_running()
            await self.stop(name)
            self._board.remove(name)
        for index, service in enumerate(services):
            if known := service.name in self._loops:
                await self._end(service.name)
            self._require_running()  # a stop that overtook us would wait forever for a loop that starts now
            if not known:
                self._board.add(service)
                self.start(service, delay=first_start(service.policy, index=index, total=len(services)))
                continue
            _continue_beats(service, self._board.record(service.name).service)
            self._board.replace(service)
            self.start(service)
            await asyncio.sleep(pause(len(services)))

    async def retry(self, names: Sequence[str]) -> None:
        """Check services and run their canaries, one after another within 2 s altogether. Ignores unknown names."""
        await self._one_by_one(names, lambda loop: self.spawn(loop.force()))

    async def check_now(self, names: Iterable[str]) -> None:
        """Check services now, and return when the results are on the board. Ignores unknown names."""
        loops = [self._loops[name] for name in names if name in self._loops]
        if self._board.active and loops:
            await asyncio.gather(*(loop.force() for loop in loops))

    async def force_check(self, name: str | None = None) -> None:
        """Check one service, or all, now. Callers during a round share it.

        Raises `NotRunning`, also if monitoring stops meanwhile, `TooSoon`, and `UnknownService`.
        """
        self._require_running()
        if name is not None and name not in self._loops:
            raise UnknownService(name, self._loops)
        current = self._rounds.get(name) or self._rounds.get(None)
        if current is None:
            self._refuse_if_too_soon(name)
            loops = list(self._loops.values()) if name is None else [self._loops[name]]
            current = self._rounds[name] = self.spawn(self._round(name, loops))
        await asyncio.wait({current})
        if current.cancelled():
            raise NotRunning

    def end_forced_checks(self) -> None:
        """Have those who wait for a forced check get `NotRunning`: monitoring is about to stop."""
        for current in self._rounds.values():
            current.cancel()

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str | None = None) -> "asyncio.Task[None]":
        """Start a task that ends with the monitor, and that ends the monitor if it fails."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._owned.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        abandoned = task not in self._owned
        self._owned.discard(task)
        if abandoned or task.cancelled() or (error := task.exception()) is None:
            return
        if self._died is not None and not self._died.done():
            self._died.set_exception(error)

    async def _stop_tasks(self, tasks: Iterable["asyncio.Task[None]"]) -> None:
        """Cancel tasks and wait for them, up to `STOP_WITHIN` seconds."""
        waiting = set(tasks)
        for task in waiting:
            task.cancel()
        if waiting:
            _, waiting = await asyncio.wait(waiting, timeout=STOP_WITHIN)
        for task in waiting:
            log.error("task_abandoned", task=task.get_name(), seconds=STOP_WITHIN)
            self._owned.discard(task)
            self._abandoned.add(task)
            task.add_done_callback(self._abandoned.discard)

    async def _end(self, name: str) -> None:
        """End a loop, which stays known until another takes its place: to force a loop that has ended does nothing."""
        await self._stop_tasks([self._running.pop(name)])
        self._loops[name].abandon()

    async def _round(self, name: str | None, loops: Iterable[ServiceLoop]) -> None:
        self._board.forced_checks += 1
        try:
            await asyncio.gather(*(loop.force() for loop in loops))
        finally:
            del self._rounds[name]
            self._round_ended[name] = self._board.clock.monotonic()

    def _attempt_now(self, name: str) -> None:
        if self._board.active and (loop := self._loops.get(name)) is not None:
            loop.attempt_now()

    def _require_running(self) -> None:
        if not self._board.active:
            raise NotRunning

    def _refuse_if_too_soon(self, name: str | None) -> None:
        ended = [self._round_ended[key] for key in {name, None} if key in self._round_ended]
        left = max(ended, default=float("-inf")) + _ROUND_EVERY - self._board.clock.monotonic()
        if left > 0:
            raise TooSoon(left)

    async def _watch(self, died: "asyncio.Future[None]") -> None:
        """Raise the error of a task that died. Each second, mark overdue results, and notice a suspend.

        The timers of event loops run on CLOCK_MONOTONIC, which stops while the machine sleeps; the board's
        clock goes on. After a suspend, the loops would therefore wait for the rest of their interval.
        """
        loop, now = asyncio.get_running_loop(), self._board.clock.monotonic
        ahead = now() - loop.time()
        while not died.done():
            await asyncio.wait({died}, timeout=until_next(_TICK))
            self._board.refresh()
            before, ahead = ahead, now() - loop.time()
            if ahead - before > _JUMP:
                log.info("resumed_from_suspend", seconds=round(ahead - before, 1))
                self._batches.recheck_clock()
                self.spawn(self._one_by_one(tuple(self._loops), ServiceLoop.recheck_clock))
        died.result()

    async def _one_by_one(self, names: Sequence[str], act: Callable[[ServiceLoop], object]) -> None:
        """Call ``act`` for one loop after another, within 2 s altogether. Ignores unknown names."""
        for name in names:
            if self._board.active and (loop := self._loops.get(name)) is not None:
                act(loop)
            await asyncio.sleep(pause(len(names)))


def _continue_beats(service: Service, replaced: Service) -> None:
    """Let a check that takes beats continue from the one that it replaces. An error of the check is logged."""
    check, earlier = service.check, replaced.check
    if takes_beats(check) and takes_beats(earlier):
        try:
            check.continue_from(earlier)
        except BaseException as error:  # a reload that is left halfway would harm all services
            log.error("beats_not_continued", name=service.name, kind=service.kind, exc_info=error)
