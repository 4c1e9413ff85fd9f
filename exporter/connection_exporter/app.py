"""The composition root, which alone knows all parts and connects them."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from connection_exporter.alerting.push import Push
from connection_exporter.config import Config
from connection_exporter.config.changes import Changes
from connection_exporter.config.shard import WHOLE, Shard
from connection_exporter.config.web import WebConfig
from connection_exporter.monitor.errors import NotRunning
from connection_exporter.monitor.monitor import Monitor
from connection_exporter.net.names import host_and_port
from connection_exporter.runtime.reload import Reloader
from connection_exporter.runtime.settings import BadSettings, Settings
from connection_exporter.runtime.transition_log import logged_transitions
from connection_exporter.system import collector
from connection_exporter.system.descriptors import files_missing, raise_file_limit
from connection_exporter.system.log import get_logger
from connection_exporter.system.signals import asked_to_stop, hung_up
from connection_exporter.system.wakeup import Wakeup
from connection_exporter.web.api import Api
from connection_exporter.web.authentication import Authentication, Rules
from connection_exporter.web.beats import Beats
from connection_exporter.web.configuration import Configuration, Reload, ReloadRefused
from connection_exporter.web.events import Events
from connection_exporter.web.limits import LongResponses
from connection_exporter.web.own_metrics import OwnMetrics
from connection_exporter.web.rendering import BoardJson
from connection_exporter.web.server import WebServer

if TYPE_CHECKING:
    from connection_exporter.runtime.history import Past

    _ReadPast = Callable[[Iterable[str]], Awaitable[Past]]

RESTART_AFTER: Final = 1.0
"""Seconds before a background task that has failed is started again."""

log = get_logger(__name__)


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
    hangup: Wakeup | None = None,
    lines_dropped: Callable[[], int] = lambda: 0,
    shard: Shard = WHOLE,
) -> AsyncIterator[Monitor]:
    """Monitor and serve while the block runs, as children of one task group: if either dies, everything ends.

    ``reread`` reads the settings again, at each ``hangup``, when their files have changed and, with ``lifecycle``, on
    request. ``storage`` is the folder in which transitions survive a restart. ``lines_dropped`` returns the number of
    log lines that could not be written. ``shard`` is what the config was reduced to.
    """
    settings = Settings(settings) if isinstance(settings, Config) else settings
    monitor = Monitor(settings.config)
    push = Push(monitor.board, check_now=monitor.check_now, own_url=_own_url(sockets))
    own = OwnMetrics(
        monitor.board,
        deliveries=push.deliveries,
        callbacks_dropped=lambda: monitor.subscribers.dropped,
        log_lines_dropped=lines_dropped,
        shard=shard,
    )
    board_json = BoardJson(monitor.board)
    events = Events(monitor.board, board_json=board_json)
    long_responses = LongResponses()

    async def apply(new: Settings) -> Changes:
        changes = await _apply(new, monitor, authentication, tls, past)
        await push.configure(new.config.alerting)
        return changes

    reloader = Reloader(
        settings,
        read=reread or (lambda: settings),
        apply=apply,
        noted=lambda good: own.reloaded(successful=good),
        hangup=hangup or Wakeup(),
        config=lambda: monitor.config,
        retry=monitor.retry,
    )
    configuration = Configuration(
        lambda: monitor.config,
        _on_request(reloader) if lifecycle else None,
        frozenset(origins),
        long_responses,
    )
    api = Api(
        monitor.board,
        own.registry,
        board_json=board_json,
        force_check=monitor.force_check,
        ready=lambda: server.started and monitor.board.active,
        origins=frozenset(origins),
        telemetry_path=telemetry_path,
        handlers={
            "events": events.stream,
            "beat": Beats(monitor.board, monitor.check_now, frozenset(origins)).take,
            "config": configuration.config,
            "reload": configuration.reload,
        },
        long_responses=long_responses,
    )
    authentication = Authentication(api.app, _rules(settings.web))
    tls = _Tls(settings.web.context) if settings.web.context else None
    server = WebServer(authentication, sockets, tls=(lambda: tls.context) if tls else None)

    def end_requests() -> None:
        events.close()
        monitor.end_forced_checks()

    async with (
        logged_transitions(monitor.board),
        _history(storage, monitor) as past,
        monitor,
        aclosing(push),
    ):
        await push.configure(settings.config.alerting)
        background = (own.measure_lag, events.run, reloader.run, push.run)
        async with _running(server, background, end_requests=end_requests):
            yield monitor


async def run(settings: Settings, sockets: list[socket.socket], **options: Any) -> None:
    """Monitor and serve until SIGINT or SIGTERM; SIGHUP reads the settings again."""
    raise_file_limit()
    stop, hangup = asked_to_stop(), hung_up()
    async with serving(settings, sockets, hangup=hangup, **options):
        log.info(
            "listening",
            addresses=[_shown(s) for s in sockets],
            services=len(settings.config.services),
            config=settings.config.source,
            tls=settings.web.context is not None,
            users=len(settings.web.users),
        )
        _log_notes(settings)
        if (missing := files_missing(len(settings.config.services))) is not None:
            log.warning("too_few_files", note=missing)
        collector.settle()
        await stop.wait()
        log.info("stopping")


@asynccontextmanager
async def _running(
    server: WebServer,
    background: Iterable[Callable[[], Awaitable[None]]],
    *,
    end_requests: Callable[[], None],
) -> AsyncIterator[None]:
    """Serve, and do the ``background`` work, while the block runs. Then the server stops first.

    It waits for the requests in progress, so ``end_requests`` ends those that would last.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_keep_running(work)) for work in background]
        web = group.create_task(server.serve())
        try:
            yield
        finally:
            end_requests()
            server.stop()
            await asyncio.wait({web})
            for task in tasks:
                task.cancel()


async def _keep_running(work: Callable[[], Awaitable[None]]) -> None:
    """Run a task of the exporter's own, and start it again if it fails: only the monitor's death ends the process."""
    crashes = 0
    while True:
        try:
            await work()
        except Exception as error:
            crashes += 1
            log.error("background_task_failed", task=work.__qualname__, failures=crashes, exc_info=error)
        await asyncio.sleep(RESTART_AFTER)


class _Tls:
    """The context for the next connection."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context


def _history(storage: Path | None, monitor: Monitor) -> "AbstractAsyncContextManager[_ReadPast]":
    if storage is None:
        return nullcontext(_nothing_kept)
    from connection_exporter.runtime.history import history  # noqa: PLC0415 - 3 ms and 1 MiB, for SQLite

    return history(storage, monitor.board, monitor.add_callback)


async def _nothing_kept(names: Iterable[str]) -> "Past":
    del names
    return {}


async def _apply(
    new: Settings,
    monitor: Monitor,
    authentication: Authentication,
    tls: "_Tls | None",
    past: "_ReadPast",
) -> Changes:
    """Apply ``new``: everything, or raise `BadSettings` and change nothing."""
    if (new.web.context is None) != (tls is None):
        raise BadSettings(["tls_server_config: turning TLS on or off needs a restart"])
    rules = _rules(new.web)
    known = await past(name for name in new.config.services if name not in monitor.board)
    try:
        changes = await monitor.reload(new.config)
    except NotRunning:
        raise BadSettings(["monitoring is not running"]) from None
    monitor.board.recall(known)
    authentication.rules = rules
    if tls is not None and new.web.context is not None:
        tls.context = new.web.context
    _log_notes(new)
    return changes


def _on_request(reloader: Reloader) -> Reload:
    async def reload() -> dict[str, Any]:
        try:
            return (await reloader.reload())._asdict()
        except BadSettings as error:
            raise ReloadRefused(error.mistakes) from error

    return reload


def _rules(web: WebConfig) -> Rules:
    limit = web.rate_limit
    return Rules(
        web.users,
        web.headers,
        limit.interval if limit else 0.0,
        limit.burst if limit else 1,
        web.open_paths,
    )


def _log_notes(settings: Settings) -> None:
    for note in settings.config.notes:
        log.warning("config", note=note)
    for note in settings.web.notes:
        log.warning("web_config", note=note)


def _shown(listener: socket.socket) -> str:
    if listener.family == socket.AF_UNIX:
        return str(listener.getsockname())
    return host_and_port(*listener.getsockname()[:2])


def _own_url(sockets: list[socket.socket]) -> str:
    """Return a URL of this exporter for alerts, if none is configured."""
    ports = [listener.getsockname()[1] for listener in sockets if listener.family != socket.AF_UNIX]
    host = socket.gethostname().lower()
    return f"http://{host}:{ports[0]}" if ports else f"http://{host}"
