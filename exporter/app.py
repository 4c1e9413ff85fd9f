"""The composition root: alone knows all parts, and puts them together."""

import asyncio
import resource
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog
from starlette.routing import Route

from exporter import garbage, snapshot
from exporter.aside import aside
from exporter.board import Board
from exporter.building import build, check_class
from exporter.clock import SystemClock
from exporter.config import Config
from exporter.config.changes import Changes, compare
from exporter.config.shown import shown
from exporter.config.web import WebConfig
from exporter.core.health import Status
from exporter.core.retry import NotRunning
from exporter.listeners import Listeners
from exporter.logs import leave_to_host
from exporter.monitor import Watches
from exporter.net import Network
from exporter.net.server_tls import LiveContext
from exporter.publish.api import Api
from exporter.publish.detailed import Detailed
from exporter.publish.events import Events
from exporter.publish.gate import Gate, Rules
from exporter.publish.guard import most_handshakes
from exporter.publish.lifecycle import Lifecycle, Refused, Reload
from exporter.publish.own_metrics import OwnMetrics
from exporter.publish.server import Server
from exporter.record import Transition
from exporter.reload import BadSettings, Reloader, Settings
from exporter.room import files_missing
from exporter.rotation import Rotation
from exporter.stopping import asked_to_stop
from exporter.storage import Past, history

__all__ = ["Monitor", "build", "run", "serving"]

log = structlog.get_logger()


class Monitor:
    """Watches everything that a config names, while its ``async with`` block runs.

    >>> async with Monitor(load(Path("connection-exporter.yml"))) as monitor:
    ...     monitor.add_callback(print)
    """

    def __init__(self, config: Config) -> None:
        leave_to_host()
        self.config = config
        self._network = Network()
        self.board = Board(build(config.services, self._network), SystemClock())
        self.listeners = Listeners()
        self._watches = Watches((r.service for r in self.board.records()), self.board)
        self.board.subscribe(self.listeners.tell)

    async def __aenter__(self) -> Self:
        await self._watches.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._watches.__aexit__(kind, error, traceback)
        finally:
            await self.listeners.aclose()

    def add_callback(
        self, callback: Callable[[Transition], None] | Callable[[Transition], Awaitable[None]]
    ) -> Callable[[], None]:
        """Call ``callback`` for each transition from now on, in order; return the unsubscriber.

        A coroutine function runs in a task of its own, a plain function in a thread of its own. A slow one
        loses its oldest transitions past 1,000, counted by ``connection_exporter_callbacks_dropped_total``.
        """
        return self.listeners.add(callback)

    def status(self) -> dict[str, Any]:
        """Return what /health/detailed shows, from memory."""
        return snapshot.detailed(self.board)

    async def force_check(self, name: str | None = None) -> None:
        """Check one service, or all, now, and wait for the results.

        Raises KeyError for an unknown name, NotRunning outside the block, TooSoon right after another round.
        """
        await self._watches.force_check(name)

    async def try_anew(self, names: Sequence[str]) -> None:
        """Have services tried now, and their canaries with them; for when a secret in a file has changed."""
        await self._watches.try_anew(names)

    async def reload(self, config: Config) -> Changes:
        """Watch what ``config`` says instead; what is the same in both keeps its session and its counters.

        A service that has changed reconnects, and what was counted under its name goes on. Raises NotRunning
        outside the block, and what the making of a check raises; all is then as it was.
        """
        changes = compare(self.config.services, config.services)
        wanted = {name: config.services[name] for name in (*changes.changed, *changes.added)}
        await aside(lambda: [check_class(service.kind) for service in wanted.values()])  # imports drivers
        await self._watches.change(build(wanted, self._network), removed=changes.removed)
        self.board.reorder(config.services)
        self.config = config
        return changes


@asynccontextmanager
async def serving(
    settings: Settings | Config,
    sockets: list[socket.socket],
    *,
    telemetry_path: str = "/metrics",
    origins: Iterable[str] = (),
    storage: Path | None = None,
    reread: Callable[[], Settings] | None = None,
    lifecycle: bool = False,
    hangup: asyncio.Event | None = None,
) -> AsyncIterator[Monitor]:
    """Watch and serve while the block runs, as children of one task group: if either dies, so does all.

    ``reread`` reads the settings again, at each ``hangup``, when their files have changed and, with
    ``lifecycle``, on request. ``storage`` is the folder in which transitions outlive a restart.
    """
    settings = Settings(settings) if isinstance(settings, Config) else settings
    monitor = Monitor(settings.config)
    monitor.board.subscribe(_log_transition)
    own = OwnMetrics(monitor.board, dropped=lambda: monitor.listeners.dropped)
    detailed = Detailed(monitor.board)
    events = Events(monitor.board, detailed=detailed)
    reloader = Reloader(
        settings,
        read=reread or (lambda: settings),
        apply=lambda new: _apply(new, monitor, gate, tls, past),
        noted=lambda good: own.reloaded(successful=good),
        hangup=hangup or asyncio.Event(),
    )
    routes = Lifecycle(
        lambda: shown(monitor.config), _on_request(reloader) if lifecycle else None, frozenset(origins)
    )
    api = Api(
        monitor.board,
        own.registry,
        detailed=detailed,
        force_check=monitor.force_check,
        ready=lambda: server.started and monitor.board.active,
        origins=frozenset(origins),
        telemetry_path=telemetry_path,
        routes=(Route("/events", events.stream), *routes.routes),
    )
    gate = Gate(api.app, _rules(settings.web))
    tls = LiveContext.of(settings.web.context, most=most_handshakes) if settings.web.context else None
    server = Server(gate, sockets, tls=tls)
    async with (
        history(storage, monitor.board, monitor.add_callback)
        if storage
        else nullcontext(_nothing_kept) as past,
        monitor,
        asyncio.TaskGroup() as tasks,
    ):
        beside = [tasks.create_task(own.measure_lag()), tasks.create_task(events.run())]
        rotation = Rotation(lambda: monitor.config, monitor.try_anew)
        beside.append(tasks.create_task(rotation.run()))
        if reread is not None:
            beside.append(tasks.create_task(reloader.run()))
        web = tasks.create_task(server.serve())
        try:
            yield monitor
        finally:
            events.close()
            server.stop()
            await asyncio.wait({web})
            for task in beside:
                task.cancel()


async def run(settings: Settings, sockets: list[socket.socket], **options: Any) -> None:
    """Watch and serve until SIGINT or SIGTERM; SIGHUP reads the settings again."""
    _take_all_files()
    stop, hangup = asked_to_stop(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup.set)
    async with serving(settings, sockets, hangup=hangup, **options):
        log.info(
            "listening",
            addresses=[_shown(s) for s in sockets],
            services=len(settings.config.services),
            config=settings.config.source,
            tls=settings.web.context is not None,
            users=len(settings.web.users),
        )
        _log_notes(settings.web)
        if (missing := files_missing(len(settings.config.services))) is not None:
            log.warning("too_few_files", note=missing)
        garbage.settle()
        await stop.wait()
        log.info("stopping")


def _take_all_files() -> None:
    """Raise our limit of open files to the hard one, by which `validate` reckons: the soft one is often 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _nothing_kept(names: Iterable[str]) -> Past:
    del names
    return {}


async def _apply(
    new: Settings,
    monitor: Monitor,
    gate: Gate,
    tls: LiveContext | None,
    past: Callable[[Iterable[str]], Awaitable[Past]],
) -> Changes:
    """Put ``new`` into force: everything, or by raising `BadSettings` nothing."""
    if (new.web.context is None) != (tls is None):
        raise BadSettings(["tls_server_config: turning TLS on or off needs a restart"])
    known = await past(name for name in new.config.services if name not in monitor.board)
    try:
        changes = await monitor.reload(new.config)
    except NotRunning:
        raise BadSettings(["monitoring is not running"]) from None
    except Exception as error:
        log.error("reload_crashed", exc_info=error)
        raise BadSettings([f"a check could not be made: unexpected {type(error).__name__}"]) from error
    monitor.board.recall(known)
    gate.rules = _rules(new.web)
    if tls is not None and new.web.context is not None:
        tls.current = new.web.context
    _log_notes(new.web)
    return changes


def _on_request(reloader: Reloader) -> Reload:
    async def reload() -> dict[str, Any]:
        try:
            return asdict(await reloader.reload("request"))
        except BadSettings as error:
            raise Refused(error.mistakes) from error

    return reload


def _rules(web: WebConfig) -> Rules:
    limit = web.rate_limit
    return Rules(web.users, web.headers, limit.interval if limit else 0.0, limit.burst if limit else 1)


def _log_notes(web: WebConfig) -> None:
    for note in web.notes:
        log.warning("web_config", note=note)


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _log_transition(transition: Transition) -> None:
    quiet = Status.UNKNOWN in (transition.previous, transition.status) or transition.status is Status.HEALTHY
    level = log.info if quiet else log.warning
    level(
        "transition",
        name=transition.name,
        kind=transition.kind,
        previous=transition.previous.value,
        status=transition.status.value,
        reason=transition.reason.value if transition.reason else None,
        message=transition.message or None,
    )
