"""Provides `Monitor`: the board, the supervisor and the subscribers of one config, as one object."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from connection_exporter.config import Config
from connection_exporter.config.changes import Changes, compare, reconnecting
from connection_exporter.monitor import snapshot
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.broken import build_services, import_kinds
from connection_exporter.monitor.errors import NotRunning
from connection_exporter.monitor.record import Transition
from connection_exporter.monitor.subscribers import Subscribers
from connection_exporter.monitor.supervisor import Supervisor
from connection_exporter.net import Network
from connection_exporter.system.clock import SystemClock
from connection_exporter.system.threads import run_in_thread


class Monitor:
    """Monitors everything that a config names, while its ``async with`` block runs.

    >>> async with Monitor(load_config("connection-exporter.yml")) as monitor:
    ...     monitor.add_callback(print)
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._network = Network()
        self.board = Board(build_services(config.services, self._network), SystemClock())
        self.subscribers = Subscribers()
        self._supervisor = Supervisor((r.service for r in self.board.records()), self.board)
        self._one_reload_at_a_time = asyncio.Lock()
        self.board.subscribe(self.subscribers.publish)

    async def __aenter__(self) -> Self:
        await self._supervisor.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._supervisor.__aexit__(kind, error, traceback)
        finally:
            await self.subscribers.aclose()

    def add_callback(
        self, callback: Callable[[Transition], None] | Callable[[Transition], Awaitable[None]]
    ) -> Callable[[], None]:
        """Call ``callback`` for each transition from now on, in order; return the unsubscribe function.

        A coroutine function runs in a task of its own, a plain function in a daemon thread of its own. Each has a queue
        of 1,000 transitions; a slow callback loses the oldest, counted by
        ``connection_exporter_callbacks_dropped_total``.
        """
        return self.subscribers.add(callback)

    def status(self) -> dict[str, Any]:
        """Return what /health/detailed shows, from memory."""
        return dict(snapshot.detailed(self.board))

    async def force_check(self, name: str | None = None) -> None:
        """Check one service, or all, now, and wait for the results.

        Raises `UnknownService`, `NotRunning` outside the block, and `TooSoon` within a second of the last round.
        """
        await self._supervisor.force_check(name)

    def end_forced_checks(self) -> None:
        """Have those who wait for `force_check` get `NotRunning`: monitoring is about to stop."""
        self._supervisor.end_forced_checks()

    async def check_now(self, names: Sequence[str]) -> None:
        """Check services now, and wait for the results, without a limit of rate or time. Ignores unknown names."""
        await self._supervisor.check_now(names)

    async def retry(self, names: Sequence[str]) -> None:
        """Check services now and run their canaries, because a secret in a file has changed. Ignores unknown names."""
        await self._supervisor.retry(names)

    async def reload(self, config: Config) -> Changes:
        """Monitor the services of ``config`` instead. A service that has not changed keeps its session and counters.

        A changed service reconnects and keeps its counters, except if only its `group`, `description`, `links` or
        `depends_on` have changed: then it keeps its session as well. Reloads run one at a time. One that has begun is
        completed even if its caller is cancelled, so that all of it takes effect or nothing. Raises `NotRunning`
        outside the block and if monitoring stops meanwhile.
        """
        if not self.board.active:
            raise NotRunning
        done: asyncio.Future[Changes] = asyncio.get_running_loop().create_future()
        task = self._supervisor.spawn(self._reload(config, done), name="reload")
        await asyncio.wait({task})
        if not done.done():  # cancelled with the monitor
            raise NotRunning
        return done.result()

    async def _reload(self, config: Config, done: "asyncio.Future[Changes]") -> None:
        async with self._one_reload_at_a_time:
            try:
                changes = compare(self.config.services, config.services)
                reconnect = reconnecting(changes.changed, self.config.services, config.services)
                wanted = {name: config.services[name] for name in (*reconnect, *changes.added)}
                await run_in_thread(lambda: import_kinds(wanted.values()), name="import drivers")
                services = build_services(wanted, self._network)
                self.board.describe({name: service.about for name, service in config.services.items()})
                await self._supervisor.change(services, removed=changes.removed)
                self.board.reorder(config.services)
                self.config = config
            except Exception as error:  # noqa: BLE001 - it belongs to the caller
                done.set_exception(error)
                done.exception()  # retrieved, if the caller has been cancelled
            else:
                done.set_result(changes)
