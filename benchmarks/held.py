"""Measures what 1,000 held sessions cost, and how soon the exporter notices that they break."""

import asyncio
import json
import random
import resource
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import trustme
from connection_exporter.demo.ports import free_port
from connection_exporter.demo.servers import HttpApi, PostgreSQL, Redis

from benchmarks.cutter import Cutter
from benchmarks.figures import Figure, percentile
from benchmarks.per_check import QuietFeed
from benchmarks.processes import HERE, Checkout, Program, exporter

OF_EACH: Final = 200
"""Services of each of the five kinds. Each PostgreSQL session is a process, and no machine has room for thousands."""

_MANY: Final = 10_000
"""Services for the largest measurement. Redis services replace those of PostgreSQL, for the same reason."""

_KILLS: Final = 150
_STILL: Final = 0.5
"""Seconds for which the forwarder does nothing after it has cut all sessions at once. In production, other machines
clean up after a thousand sessions. Here, that work would take the exporter's CPU, and 200 PostgreSQL processes end too.
"""

_AT_REST: Final = 30.0
_SCRAPE_EVERY: Final = 5.0


class KeepingApi(HttpApi):
    """An HTTP API that keeps idle connections as long as nginx does by default, and not for uvicorn's 5 s."""

    def command(self) -> list[str]:
        """Return the API of the demo, which keeps idle connections for 75 s."""
        return [*super().command(), "--keep-alive", "75"]


@dataclass
class World:
    """The servers, and the forwarders through which the sessions go."""

    folder: Path
    database: PostgreSQL
    api: HttpApi
    ways: Mapping[str, Cutter]
    ca_file: Path | None
    sleepers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def services(self, of_each: int) -> dict[str, dict[str, Any]]:
        """Return ``of_each`` services of each kind."""
        s, tls = ("s", {"tls": {"ca_file": str(self.ca_file)}}) if self.ca_file else ("", {})
        ways = self.ways
        login = f"postgres:{self.database.password}"
        dsn = f"postgresql://{login}@127.0.0.1:{ways['postgresql'].port}/postgres"
        kinds: dict[str, dict[str, Any]] = {
            "redis": {"url": f"redis{s}://127.0.0.1:{ways['redis'].port}/0", **tls},
            "http": {"url": f"http{s}://127.0.0.1:{ways['http'].port}/health", **tls},
            "websocket": {"url": f"ws{s}://127.0.0.1:{ways['websocket'].port}/prices", **tls},
            "postgresql": {"dsn": dsn, "sslmode": "require" if s else "disable"},
        }
        services = {
            f"{kind}_{number}": {"kind": kind, **config}
            for number in range(of_each)
            for kind, config in kinds.items()
        }
        for number in range(of_each):
            services[f"process_{number}"] = {
                "kind": "process",
                "pidfile": str(self._sleeper(f"process_{number}")),
            }
        return services

    def _sleeper(self, name: str) -> Path:
        pidfile = self.folder / f"{name}.pid"
        if name not in self.sleepers:
            self.sleepers[name] = subprocess.Popen(["sleep", "86400"])
            pidfile.write_text(str(self.sleepers[name].pid))
        return pidfile

    def restart(self, name: str) -> None:
        """Start a process that was killed."""
        self.sleepers.pop(name).wait()
        self._sleeper(name)


async def measure(folder: Path, *, rounds: int) -> AsyncIterator[Figure]:
    """Yield the figures, without TLS and over TLS."""
    del rounds  # a round holds 1,000 sessions for a minute, and differs little from the next
    for tls in (False, True):
        async with world_of(folder, tls=tls) as world:
            async for figure in _memory_and_rest(world, tls=tls):
                yield figure
            if not tls:
                async for figure in _kills(world):
                    yield figure
                async for figure in _many(world):
                    yield figure


async def _memory_and_rest(world: World, *, tls: bool) -> AsyncIterator[Figure]:
    over = "over TLS" if tls else "without TLS"
    one_of_each, all_of_them = world.services(1), world.services(OF_EACH)
    if not tls:
        bot = {name: one for name, one in one_of_each.items() if one["kind"] == "process"}
        idle = await _resident(world, bot)
        yield Figure("memory, idle, one process watched", idle / 2**20, "MiB", 60.0)
        with_http = await _resident(world, {n: o for n, o in one_of_each.items() if o["kind"] == "http"})
        yield Figure("memory, idle, one http service", with_http / 2**20, "MiB", 45.0)
    idle = await _resident(world, one_of_each)
    yield Figure(f"memory, idle, one of each kind, {over}", idle / 2**20, "MiB")
    began = time.monotonic()
    async with exporter(write_config(world, all_of_them)) as program:
        await program.healthy(within=60.0)
        yield Figure(
            f"start to all of {len(all_of_them)} healthy, {over}", time.monotonic() - began, "s", 5.0
        )
        await scrapes(program, 8.0)
        each = (program.resident() - idle) / (len(all_of_them) - len(one_of_each))
        limit = 60.0 if tls else 24.0
        yield Figure(
            f"memory of a service, {over}, {len(all_of_them)} of mixed kinds", each / 1024, "KiB", limit
        )
        yield await _share_of_a_core(program, len(all_of_them), 2.0 if tls else 1.5, over)


async def _many(world: World) -> AsyncIterator[Figure]:
    services = world.services(_MANY // 5)
    for number in range(_MANY // 5):
        services[f"postgresql_{number}"] = services[f"redis_{number}"]
    began = time.monotonic()
    async with exporter(write_config(world, services)) as program:
        await program.healthy(within=90.0)
        yield Figure(f"start to all of {_MANY} healthy, without TLS", time.monotonic() - began, "s")
        await scrapes(program, 10.0)
        yield Figure(f"memory of {_MANY} services, without TLS", program.resident() / 2**20, "MiB")
        yield await _share_of_a_core(program, _MANY, 10.0, "without TLS")


async def _share_of_a_core(program: Program, services: int, limit: float, over: str) -> Figure:
    share = await share_of_a_core(program, seconds=_AT_REST)
    note = "interval 30 s, scraped every 5 s"
    return Figure(f"CPU of {services} held sessions, {over}", share, "% of a core", limit, note=note)


async def share_of_a_core(program: Program, *, seconds: float) -> float:
    """Return the CPU that a program uses while it is scraped, in percent of a core."""
    cpu, began = program.cpu(), time.monotonic()
    await scrapes(program, seconds)
    return (program.cpu() - cpu) / (time.monotonic() - began) * 100


async def _resident(world: World, services: Mapping[str, Mapping[str, Any]]) -> int:
    async with exporter(write_config(world, services)) as program:
        await program.healthy()
        await scrapes(program, 3.0)
        return program.resident()


async def scrapes(program: Program, seconds: float) -> None:
    """Scrape /metrics as Prometheus does, for so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await program.get("/metrics", gzipped=True)
        await asyncio.sleep(max(min(_SCRAPE_EVERY, until - time.monotonic()), 0.0))


class Watched:
    """An exporter that prints each transition (`benchmarks.watched`), and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.transitions: list[tuple[str, str, float, float]] = []
        self.lags: list[float] = []
        self.pid = process.pid
        self._process = process
        self._came = asyncio.Event()

    async def listen(self) -> None:
        """Read its output until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            words = line.decode().split()
            if words[0] == "lag":
                self.lags.append(float(words[1]))
            elif words[0] == "transition":
                self.transitions.append((words[1], words[2], float(words[3]), float(words[4])))
            self._came.set()

    async def until(self, condition: Callable[[], bool], *, within: float) -> bool:
        """Wait until ``condition`` holds, and return whether it does."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not condition():
                    self._came.clear()
                    await self._came.wait()
        return condition()


async def _kills(world: World) -> AsyncIterator[Figure]:
    async with watching(world) as (watched, port, total):
        took = await kill_one_by_one(world, watched, kills=_KILLS)
        one = f"one of {total} killed, noticed after"
        yield Figure(f"{one}, p50", percentile(took, 0.5) * 1e3, "ms", 2.0)
        yield Figure(f"{one}, p99", percentile(took, 0.99) * 1e3, "ms", 10.0)
        yield Figure("lag of the event loop meanwhile, worst", max(watched.lags) * 1e3, "ms")
        await asyncio.sleep(12.0)
        watched.lags.clear()
        async for figure in kill_all(world, watched, port, total):
            yield figure
    # 200 sessions of PostgreSQL start as many processes, which take the cores that the exporter needs.
    async with watching(world, by_redis=("http", "postgresql")) as (watched, port, total):
        _, slowest, _ = [figure async for figure in kill_all(world, watched, port, total)]
        yield replace(slowest, what=f"{slowest.what}, without PostgreSQL")


@asynccontextmanager
async def watching(
    world: World, *, checkout: Checkout = HERE, by_redis: Collection[str] = ("http",)
) -> AsyncIterator[tuple[Watched, int, int]]:
    """Run an exporter that prints its transitions; yield it, its port, and its number of services, once it is at rest.

    Kills whatever it watches afterwards at will: processes that were killed are started again. Redis services replace
    those of the kinds in ``by_redis``; http is always one, because it holds no session.
    """
    services = {name: one for name, one in world.services(OF_EACH).items() if one["kind"] not in by_redis}
    for number in range(OF_EACH, OF_EACH * (1 + len(by_redis))):
        services[f"redis_{number}"] = services["redis_0"]
    port = free_port()
    command = [checkout.python, "-m", "benchmarks.watched", str(write_config(world, services)), str(port)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=checkout.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    watched = Watched(process)
    listening = asyncio.create_task(watched.listen())
    try:
        healthy: set[str] = set()

        def all_healthy() -> bool:
            healthy.update(name for name, status, *_ in watched.transitions if status == "healthy")
            return len(healthy) == len(services)

        assert await watched.until(all_healthy, within=60.0), len(healthy)
        await asyncio.sleep(8.0)  # so that all sessions are older than retry_delay
        watched.lags.clear()
        yield watched, port, len(services)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await listening  # to its end, because its last output would otherwise fill the pipe
        await process.wait()
        for name, sleeper in list(world.sleepers.items()):
            if sleeper.poll() is not None:
                world.restart(name)


def _kill(world: World, target: str | Any) -> None:
    if isinstance(target, str):
        world.sleepers[target].kill()
    else:
        Cutter.cut(target)


def _targets(world: World) -> list[Any]:
    return [
        *world.sleepers,
        *(sock for kind, way in world.ways.items() if kind != "http" for sock in way.open),
    ]


async def kill_one_by_one(world: World, watched: Watched, *, kills: int) -> list[float]:
    """Kill sessions one after another; return the seconds after which each was noticed."""
    took: list[float] = []
    for target in random.sample(_targets(world), kills):
        watched.transitions.clear()
        began = time.monotonic()
        _kill(world, target)
        if await watched.until(lambda: bool(watched.transitions), within=5.0):
            took.append(watched.transitions[0][2] - began)
        if isinstance(target, str):
            world.restart(target)
        await asyncio.sleep(0.05)
    return took


async def kill_all(world: World, watched: Watched, port: int, total: int) -> AsyncIterator[Figure]:
    """Kill all sessions at once, and yield how soon that was noticed, and what /metrics took meanwhile."""
    watched.transitions.clear()
    targets = _targets(world)
    lost: dict[str, float] = {}
    used: dict[str, float] = {}

    def all_lost() -> bool:
        for name, status, at, cpu in watched.transitions:
            if status != "healthy":
                lost.setdefault(name, at)
                used.setdefault(name, cpu)
        return len(lost) >= total

    command = [sys.executable, "-c", _SCRAPER, str(port), str(watched.pid)]
    scraper = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert scraper.stdout is not None
    await scraper.stdout.readline()
    began = time.monotonic()
    for target in targets:
        _kill(world, target)
    killed = time.monotonic() - began
    time.sleep(_STILL)  # noqa: ASYNC251 - the forwarder is in this very loop
    await watched.until(all_lost, within=20.0)
    cpu = max(used.values()) - min(used.values())
    note = (
        f"{len(lost)} of {total} noticed; to kill them took {killed * 1e3:.0f} ms of it, and "
        f"the exporter's own CPU {cpu * 1e3:.0f} ms"
    )
    yield Figure(
        f"all {total} killed at once, the last noticed after",
        (max(lost.values()) - began) * 1e3,
        "ms",
        60.0,
        note=note,
    )
    scraped = json.loads((await scraper.communicate())[0])
    slowest, ran, waited = max(scraped)
    note = f"{len(scraped)} answers; during this one, the exporter ran for {ran * 1e3:.0f} ms"
    note += f" and waited for a free core for {waited * 1e3:.0f} ms"
    yield Figure("/metrics meanwhile, slowest answer", slowest * 1e3, "ms", 100.0, note=note)
    await asyncio.sleep(0.6)
    yield Figure("lag of the event loop meanwhile, worst", max(watched.lags, default=0.0) * 1e3, "ms")


_SCRAPER: Final = """
import json, sys, time, urllib.request
def scheduled():  # for how long the main thread ran, and waited for a core: see the kernel's sched-stats
    ran, waited, _ = open(f"/proc/{sys.argv[2]}/task/{sys.argv[2]}/schedstat").read().split()
    return int(ran) / 1e9, int(waited) / 1e9
def scrape():
    before, (ran, waited) = time.monotonic(), scheduled()
    request = urllib.request.Request(f"http://127.0.0.1:{sys.argv[1]}/metrics", headers={"Accept-Encoding": "gzip"})
    urllib.request.urlopen(request, timeout=10).read()
    took, (ran_by_now, waited_by_now) = time.monotonic() - before, scheduled()
    return took, ran_by_now - ran, waited_by_now - waited
took = []
scrape()
time.sleep(1.0)
print("ready", flush=True)
began = time.monotonic()
while time.monotonic() < began + 2.0:
    took.append(scrape())
print(json.dumps(took))
"""


def write_config(world: World, services: Mapping[str, Mapping[str, Any]]) -> Path:
    path = world.folder / "held.yml"
    path.write_text(json.dumps({"services": services}))
    return path


@asynccontextmanager
async def world_of(folder: Path, *, tls: bool = False, exporters: int = 1) -> AsyncIterator[World]:
    """Run the servers and the forwarders, for so many exporters at the same time."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    home = folder / ("tls" if tls else "plain")
    home.mkdir()
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    certificate = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
    context: ssl.SSLContext | None = None
    ca_file: Path | None = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        ca_file = home / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
    async with AsyncExitStack() as stack:
        database = PostgreSQL(settings={"max_connections": str(exporters * OF_EACH + 60)})
        redis, api, feed = Redis(), KeepingApi(), QuietFeed()
        ways: dict[str, Cutter] = {}
        for kind, server in (("postgresql", database), ("redis", redis), ("http", api), ("websocket", feed)):
            await stack.enter_async_context(server)
            way = Cutter.before(server.port, tls=context, postgresql=kind == "postgresql")
            ways[kind] = await stack.enter_async_context(way)
        world = World(home, database, api, ways, ca_file)
        try:
            yield world
        finally:
            for sleeper in world.sleepers.values():
                sleeper.kill()
                sleeper.wait()
