"""Measures the CPU of one check and of one probe of the peers, of the same servers at the same rate, in turn."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from connection_exporter.demo.ports import free_port
from connection_exporter.demo.servers import Bot, HttpApi, PostgreSQL, Redis, WebSocket

from benchmarks.figures import Figure, middle
from benchmarks.processes import Program, exporter, paced, peer, running

_SERVICES: Final = 200
_INTERVAL: Final = 1.0
_SECONDS: Final = 4.0
_ADDRESSES: Final = tuple(f"127.0.0.{number}" for number in range(1, 9))
"""Each kind has so many servers: checks of the same address follow each other, and those of different ones do not."""

_HAS_DEPTH: Final = ("redis", "postgresql")
"""Kinds that ask for more than blackbox_exporter's probe does, unless that is turned off."""

_TARGETS: Final = {"http": 0.1, "redis": 0.1, "websocket": 0.1, "postgresql": 0.15}
_TARGET_WITH_DEPTH: Final = 0.2
"""Shares of the CPU of blackbox_exporter's probe."""

_TARGET_OF_PROCESS: Final = 60.0

_SCRAPES: Final = 20.0
"""A second. A peer's scrape takes milliseconds: its own rate, or it would be slowed down by itself."""

# The first message of a session (PostgreSQL docs, 55.2.1). The newline that blackbox_exporter puts behind what it sends
# is an answer that the server does not take, and so it tells what it wanted, and closes.
_STARTUP: Final = "\0\0\0\x17\0\3\0\0user\0postgres\0\0"

_MODULES: Final = {
    "http": {"prober": "http", "http": {"preferred_ip_protocol": "ip4"}},
    "redis": {"prober": "tcp", "tcp": {"query_response": [{"send": "PING"}, {"expect": r"^\+PONG"}]}},
    "postgresql": {"prober": "tcp", "tcp": {"query_response": [{"send": _STARTUP}, {"expect": "SCRAM"}]}},
    "websocket": {
        "prober": "tcp",
        "tcp": {
            "query_response": [
                {"send": "GET /prices HTTP/1.1\r"},
                {"send": "Host: localhost\r"},
                {"send": "Upgrade: websocket\r"},
                {"send": "Connection: Upgrade\r"},
                {"send": "Sec-WebSocket-Version: 13\r"},
                {"send": "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r"},
                {"send": "\r"},
                {"expect": "^HTTP/1.1 101"},
            ]
        },
    },
}


class QuietFeed(WebSocket):
    """A WebSocket server that sends few messages, because their cost is not measured here."""

    def command(self) -> list[str]:
        """Return the feed of the demo, with a message every half minute."""
        return [*super().command(), "--every", "30"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one check or scrape took, in microseconds of CPU, and how many values it gave.

    ``latency`` is the median of what the services show, in microseconds.
    """

    microseconds: float
    values: int
    latency: float = 0.0


@dataclass(frozen=True, slots=True)
class Servers:
    """What is watched. PostgreSQL has a process for each session, and so one server at several addresses will do."""

    database: PostgreSQL
    redis: Sequence[Redis]
    api: Sequence[HttpApi]
    feed: Sequence[WebSocket]
    bot: Bot

    def services(self) -> Mapping[str, Sequence[Mapping[str, object]]]:
        """Return services of each kind, each with a server of its own and everything on that it has by default."""
        dsn = f"{self.database.dsn()}?sslmode=disable"
        return {
            "http": [{"kind": "http", "url": api.url} for api in self.api],
            "redis": [{"kind": "redis", "url": redis.url} for redis in self.redis],
            "postgresql": [
                {"kind": "postgresql", "dsn": dsn.replace("127.0.0.1", address)} for address in _ADDRESSES
            ],
            "websocket": [{"kind": "websocket", "url": feed.url} for feed in self.feed],
            "process": [{"kind": "process", "pidfile": str(self.bot.pidfile)}],
        }

    def probe(self, kind: str) -> str:
        """Return the path of blackbox_exporter's probe of the first of these servers."""
        ports = {"redis": self.redis[0], "postgresql": self.database, "websocket": self.feed[0]}
        target = self.api[0].url if kind == "http" else f"127.0.0.1:{ports[kind].port}"
        return f"/probe?module={kind}&target={quote(target, safe='')}"


async def measure(folder: Path, *, rounds: int) -> AsyncIterator[Figure]:
    """Yield the figures, kind by kind."""
    async with running_servers() as servers:
        for kind in servers.services():
            async for figure in _of_kind(kind, servers, folder, rounds=rounds):
                yield figure


@asynccontextmanager
async def running_servers(*, sessions: int = _SERVICES) -> AsyncIterator[Servers]:
    """Run the servers; that of PostgreSQL has room for ``sessions``."""
    settings = {"max_connections": str(sessions + 60), "listen_addresses": ",".join(_ADDRESSES)}
    async with AsyncExitStack() as stack, PostgreSQL(settings=settings) as database, Bot() as bot:
        redis = [await stack.enter_async_context(Redis()) for _ in _ADDRESSES]
        apis = [await stack.enter_async_context(HttpApi()) for _ in _ADDRESSES]
        feeds = [await stack.enter_async_context(QuietFeed()) for _ in _ADDRESSES]
        yield Servers(database, redis, apis, feeds, bot)


async def _of_kind(kind: str, servers: Servers, folder: Path, *, rounds: int) -> AsyncIterator[Figure]:
    ours: list[Cost] = []
    probes: list[float] = []
    scrapes: list[Cost] = []
    bare: list[Cost] = []
    async with AsyncExitStack() as stack:
        blackbox = await _blackbox(stack, folder) if kind in _MODULES else None
        own = await _own_exporter(stack, kind, servers)
        for _ in range(rounds):
            ours.append(await _exporter(kind, servers, folder))
            if blackbox is not None:
                if kind in _HAS_DEPTH:
                    bare.append(await _exporter(kind, servers, folder, depth=False))
                probes.append(await _cpu(blackbox, servers.probe(kind), rate=_SERVICES / _INTERVAL))
            if own is not None:
                cpu = await _cpu(own, "/metrics", rate=_SCRAPES)
                scrapes.append(Cost(cpu, _values(await own.get("/metrics"), _PREFIXES[kind])))
        if kind == "redis":
            async for figure in _latencies(kind, servers, folder, ours, rounds=rounds):
                yield figure
    mine = middle(cost.microseconds for cost in ours)
    if probes:
        theirs = middle(probes)
        target = _TARGETS[kind]
        if bare:
            like = middle(cost.microseconds for cost in bare)
            yield Figure(
                f"CPU of a check, {kind}, no depth; blackbox probe", like, "us", theirs * target, theirs
            )
            target = _TARGET_WITH_DEPTH
        yield Figure(f"CPU of a check, {kind}; blackbox probe", mine, "us", theirs * target, theirs)
    if scrapes:
        theirs = middle(cost.microseconds for cost in scrapes)
        note = f"{ours[0].values} values, the peer's {scrapes[0].values}"
        limit = _TARGET_OF_PROCESS if kind == "process" else None
        yield Figure(f"CPU of a check, {kind}; its own exporter's scrape", mine, "us", limit, theirs, note)


async def _latencies(
    kind: str, servers: Servers, folder: Path, ours: Sequence[Cost], *, rounds: int
) -> AsyncIterator[Figure]:
    """Yield what services show as their latency when they are many, and the cost if all are on the same server."""
    alone = [await _exporter(kind, servers, folder, services=1) for _ in range(rounds)]
    crowded = [await _exporter(kind, servers, folder, places=1) for _ in range(rounds)]
    note = f"{middle(cost.latency for cost in alone):.0f} us with one service"
    for where, costs in (("8 servers", ours), ("one server", crowded)):
        shown = middle(cost.latency for cost in costs)
        yield Figure(f"latency shown, {kind}, {_SERVICES} services on {where}", shown, "us", note=note)
    cpu = middle(cost.microseconds for cost in crowded)
    yield Figure(f"CPU of a check, {kind}, {_SERVICES} services on one server", cpu, "us")


async def _exporter(
    kind: str,
    servers: Servers,
    folder: Path,
    *,
    depth: bool = True,
    services: int = _SERVICES,
    places: int = len(_ADDRESSES),
) -> Cost:
    """Run the exporter with so many services of a kind, on so many servers, and return what a check took."""
    options = {} if depth else {"depth": False}
    of_kind = [{**service, **options} for service in servers.services()[kind]]
    async with exporter(write_config(folder, of_kind[:places], services=services)) as program:
        await until_spread(program)
        microseconds = await cpu_of_check(program, seconds=_SECONDS)
        board = await program.board()
    details = board["services"]["service_0"]["details"]
    latency = middle(service["latency_seconds"] for service in board["services"].values()) * 1e6
    return Cost(microseconds, len([value for value in details.values() if value is not None]), latency)


def write_config(folder: Path, of_kind: Sequence[Mapping[str, object]], *, services: int = _SERVICES) -> Path:
    """Write a config of many services, of which each is one of those given, and return its path."""
    config = folder / f"{of_kind[0]['kind']}.yml"
    defaults = {"interval": f"{_INTERVAL:g}s"}
    named = {f"service_{number}": of_kind[number % len(of_kind)] for number in range(services)}
    config.write_text(json.dumps({"defaults": defaults, "services": named}))
    return config


async def until_spread(program: Program) -> None:
    """Wait until all services are healthy, and their checks are spread over the interval."""
    await program.healthy()
    await asyncio.sleep(2 * _INTERVAL)


async def cpu_of_check(program: Program, *, seconds: float) -> float:
    """Return the microseconds of CPU of the whole process for each check that it makes meanwhile."""
    checks, cpu = await checks_of(program), program.cpu()
    await asyncio.sleep(seconds)
    used = program.cpu() - cpu
    return used / (await checks_of(program) - checks) * 1e6


async def checks_of(program: Program) -> float:
    lines = (await program.get("/metrics")).decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if line.startswith("connection_checks_total{")
    )


async def _cpu(program: Program, path: str, *, rate: float) -> float:
    before = program.cpu()
    asked = await paced(program, path, rate=rate, seconds=_SECONDS)
    return (program.cpu() - before) / asked * 1e6


async def _blackbox(stack: AsyncExitStack, folder: Path) -> Program | None:
    program = peer("blackbox")
    if program is None:
        return None
    config, port = folder / "blackbox.yml", free_port()
    config.write_text(json.dumps({"modules": _MODULES}))
    command = [program, f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
    return await stack.enter_async_context(running(command, port, ready="/-/healthy"))


_PREFIXES: Final = {"redis": "redis_", "postgresql": "pg_", "process": "namedprocess_"}


async def _own_exporter(stack: AsyncExitStack, kind: str, servers: Servers) -> Program | None:
    port = free_port()
    listen = f"-web.listen-address=127.0.0.1:{port}"
    commands: Mapping[str, tuple[str, Sequence[str], Mapping[str, str]]] = {
        "redis": ("redis", [listen, f"-redis.addr=redis://127.0.0.1:{servers.redis[0].port}"], {}),
        "postgresql": (
            "postgres",
            [f"-{listen}"],
            {"DATA_SOURCE_NAME": f"{servers.database.dsn()}?sslmode=disable"},
        ),
        "process": ("process", [listen, "-procnames=python", "-children=false"], {}),
    }
    if kind not in commands:
        return None
    name, arguments, environment = commands[kind]
    program = peer(name)
    if program is None:
        return None
    command = [program, *arguments]
    return await stack.enter_async_context(running(command, port, ready="/metrics", environment=environment))


def _values(exposition: bytes, prefix: str) -> int:
    return sum(line.startswith(prefix) for line in exposition.decode().splitlines())
