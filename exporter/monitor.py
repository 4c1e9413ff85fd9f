"""Owns the watches of all services: start, stop, force-check, and the timer that finds results too old.

All tasks are children of one task group, so that a watch that dies takes the whole monitor with it,
and with it the process: a dead monitor must never look like a quiet one.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from exporter.board import Board
from exporter.check import Service
from exporter.core.health import Event
from exporter.core.retry import NotRunning, TooSoon, first_start
from exporter.record import Report
from exporter.turnstile import Turnstile
from exporter.watch import Watch

_SWEEP_EVERY: Final = 1.0
_ROUND_EVERY: Final = 1.0
"""Seconds from the end of one forced round to the earliest start of the next."""
_BETWEEN_CHANGES: Final = 0.01
_CHANGES_WITHIN: Final = 2.0


class Watches:
    """Watches every service on the board while its ``async with`` block runs."""

    def __init__(
        self, services: Iterable[Service], board: Board, *, rand: Callable[[], float] = random.random
    ) -> None:
        self._services = tuple(services)
        self._board = board
        self._rand = rand
        self._tasks = asyncio.TaskGroup()
        self._turnstile = Turnstile()
        self._watches: dict[str, Watch] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._rounds: dict[str | None, asyncio.Task[None]] = {}
        self._round_ended: dict[str | None, float] = {}

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        for index, service in enumerate(self._services):
            self.start(service, delay=first_start(service.policy, index=index, total=len(self._services)))
        self._sweeper = self._tasks.create_task(self._sweep())
        self._board.active = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._board.active = False
        owned = [*self._running.values(), *self._rounds.values()]
        if self._sweeper is not None:
            owned.append(self._sweeper)
        for task in owned:
            task.cancel()
        try:
            if isinstance(
                error, asyncio.CancelledError
            ):  # ours, or the group's, which has to tell them apart
                await self._tasks.__aexit__(kind, error, traceback)
            else:  # what the block raised is the block's, and goes on as it is
                await self._tasks.__aexit__(None, None, None)
        finally:
            for name in self._board.names:  # also one that a change has stopped, and will not start again
                self._board.put(name, Report(Event.STOPPED))

    def start(self, service: Service, *, delay: float = 0.0) -> None:
        """Begin to watch a service that is on the board, ``delay`` seconds from now."""
        watch = Watch(
            service,
            self._board,
            rand=self._rand,
            spawn=self._spawn,
            delay=delay,
            turnstile=self._turnstile,
        )
        self._watches[service.name] = watch
        self._running[service.name] = self._tasks.create_task(watch.run(), name=f"watch {service.name}")

    async def stop(self, name: str) -> None:
        """End the watch of one service. Raises KeyError."""
        await self._end(name)
        del self._watches[name]

    async def _end(self, name: str) -> None:
        """End the watch, which stays known until another takes its place: to force one that is over does nothing."""
        task = self._running.pop(name)
        task.cancel()
        await asyncio.wait({task})

    async def change(self, services: Sequence[Service], *, removed: Iterable[str]) -> None:
        """Watch ``services``, each instead of the one of its name if there is one, and the ``removed`` no more.

        New ones begin spread, as at a start. Changed ones reconnect one after the other, within 2 s
        altogether: if the defaults have changed, that is all of them. Raises `NotRunning`, also when monitoring
        stops meanwhile.
        """
        if not self._board.active:
            raise NotRunning
        for name in removed:
            await self.stop(name)
            self._board.remove(name)
        for index, service in enumerate(services):
            if known := service.name in self._watches:
                await self._end(service.name)
            if not self._board.active:
                raise NotRunning  # a stop has overtaken us, and would wait for ever for what is started now
            if not known:
                self._board.add(service)
                self.start(service, delay=first_start(service.policy, index=index, total=len(services)))
                continue
            self._board.replace(service)
            self.start(service)
            await asyncio.sleep(_pause(len(services)))

    async def try_anew(self, names: Sequence[str]) -> None:
        """Have services and their canaries tried, one after the other within 2 s altogether; unknown names are none."""
        for name in names:
            if self._board.active and (watch := self._watches.get(name)) is not None:
                self._spawn(watch.force())
            await asyncio.sleep(_pause(len(names)))

    async def force_check(self, name: str | None = None) -> None:
        """Check one service, or all, now; those who ask while a round is under way share it.

        Raises `NotRunning`, also when monitoring stops meanwhile, `TooSoon`, and KeyError for a name that nobody
        knows.
        """
        if not self._board.active:
            raise NotRunning
        if name is not None and name not in self._watches:
            raise KeyError(name)
        current = self._rounds.get(name) or self._rounds.get(None)
        if current is None:
            self._refuse_if_too_soon(name)
            watches = list(self._watches.values()) if name is None else [self._watches[name]]
            current = self._rounds[name] = self._spawn(self._round(name, watches))
        await asyncio.wait({current})
        if current.cancelled():
            raise NotRunning

    async def _round(self, name: str | None, watches: Iterable[Watch]) -> None:
        self._board.forced_checks += 1
        try:
            await asyncio.gather(*(watch.force() for watch in watches))
        finally:
            del self._rounds[name]
            self._round_ended[name] = self._board.clock.monotonic()

    def _refuse_if_too_soon(self, name: str | None) -> None:
        ended = [self._round_ended[key] for key in {name, None} if key in self._round_ended]
        left = max(ended, default=float("-inf")) + _ROUND_EVERY - self._board.clock.monotonic()
        if left > 0:
            raise TooSoon(left)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        return self._tasks.create_task(work)

    async def _sweep(self) -> None:
        """Find results that are overdue while nobody reads."""
        while True:
            await asyncio.sleep(_SWEEP_EVERY)
            self._board.refresh()


def _pause(count: int) -> float:
    """Return the seconds between one of ``count`` services and the next, where all have something to do at once."""
    return min(_BETWEEN_CHANGES, _CHANGES_WITHIN / count)
