"""Owns the CPU of one check: the exporter's and its peers', of the same servers, at the same rate, in turn."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from benchmarks.figures import Figure, middle
from benchmarks.processes import Program, exporter, paced, peer, running
from exporter.demo.ports import free_port
from exporter.demo.servers import Bot, HttpApi, PostgreSQL, Redis, WebSocket

_SERVICES: Final = 200
_INTERVAL: Final = 1.0
_SECONDS: Final = 4.0
_HAS_DEPTH: Final = ("redis", "postgresql")
"""Kinds that ask for more than blackbox_exporter's probe does, unless they are told not to."""

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


@dataclass(frozen=True, slots=True)
class Cost:
    """What one check or scrape took, in microseconds of CPU, and how many values it gave."""

    microseconds: float
    values: int


@dataclass(frozen=True, slots=True)
class Servers:
    """What is watched."""

    database: PostgreSQL
    redis: Redis
    api: HttpApi
    feed: WebSocket
    bot: Bot

    def services(self) -> Mapping[str, Mapping[str, object]]:
        """Return a service of each kind, with everything on that it has by default."""
        return {
            "http": {"kind": "http", "url": self.api.url},
            "redis": {"kind": "redis", "url": self.redis.url},
            "postgresql": {"kind": "postgresql", "dsn": f"{self.database.dsn()}?sslmode=disable"},
            "websocket": {"kind": "websocket", "url": self.feed.url},
            "process": {"kind": "process", "pidfile": str(self.bot.pidfile)},
        }

    def probe(self, kind: str) -> str:
        """Return the path of blackbox_exporter's probe of the same server."""
        ports = {"redis": self.redis, "postgresql": self.database, "websocket": self.feed}
        target = self.api.url if kind == "http" else f"127.0.0.1:{ports[kind].port}"
        return f"/probe?module={kind}&target={quote(target, safe='')}"


async def measure(folder: Path, *, rounds: int) -> AsyncIterator[Figure]:
    """Yield the figures, kind by kind."""
    async with (
        PostgreSQL(settings={"max_connections": str(_SERVICES + 60)}) as database,
        Redis() as redis,
        HttpApi() as api,
        WebSocket() as feed,
        Bot() as bot,
    ):
        servers = Servers(database, redis, api, feed, bot)
        for kind in servers.services():
            async for figure in _of_kind(kind, servers, folder, rounds=rounds):
                yield figure


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
    mine = middle(cost.microseconds for cost in ours)
    if probes:
        theirs = middle(probes)
        if bare:
            like = middle(cost.microseconds for cost in bare)
            yield Figure(f"CPU of a check, {kind}, no depth; blackbox probe", like, "us", theirs / 3, theirs)
        limit = None if bare else theirs / 3
        yield Figure(f"CPU of a check, {kind}; blackbox probe", mine, "us", limit, theirs)
    if scrapes:
        theirs = middle(cost.microseconds for cost in scrapes)
        note = f"{ours[0].values} values, the peer's {scrapes[0].values}"
        yield Figure(
            f"CPU of a check, {kind}; its own exporter's scrape", mine, "us", theirs / 5, theirs, note
        )


async def _exporter(kind: str, servers: Servers, folder: Path, *, depth: bool = True) -> Cost:
    """Run the exporter with many services of a kind, and return what a check took."""
    service = {**servers.services()[kind], **({} if depth else {"depth": False})}
    config = folder / f"{kind}.yml"
    defaults = {"interval": f"{_INTERVAL:g}s"}
    services = {f"service_{number}": service for number in range(_SERVICES)}
    config.write_text(json.dumps({"defaults": defaults, "services": services}))
    async with exporter(config) as program:
        await program.healthy()
        await asyncio.sleep(2 * _INTERVAL)  # the spread over the interval
        checks, cpu = await _checks(program), program.cpu()
        await asyncio.sleep(_SECONDS)
        used = program.cpu() - cpu
        checks = await _checks(program) - checks
        board = await program.board()
    details = board["services"]["service_0"]["details"]
    return Cost(used / checks * 1e6, len([value for value in details.values() if value is not None]))


async def _checks(program: Program) -> float:
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
        "redis": ("redis", [listen, f"-redis.addr=redis://127.0.0.1:{servers.redis.port}"], {}),
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
