"""Chaos against many services for a given time, and what it costs the exporter: nothing may grow.

    python benchmarks/soak.py --minutes 10 --services 200

A few real servers stand behind a proxy for each service, which cuts, resets, garbles, swallows and refuses at
random; the servers themselves are killed and started again. The exporter runs in a process of its own. Each minute
the chaos rests until all is healthy, and what the exporter holds is counted: sockets, file descriptors, tasks,
threads, memory, and the transitions that a callback received, against connection_transitions_total.

Exit status: 0 no growth and no transition lost, 1 otherwise.
"""
# ruff: noqa: E402  # the proxy is that of the adversity suite, which is no package

import argparse
import asyncio
import json
import random
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Awaitable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import uvloop

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests")]

from connection_exporter.app import serving
from connection_exporter.demo.servers import Bot, HttpApi, PostgreSQL, Redis, Server, WebSocket
from connection_exporter.kinds import load
from connection_exporter.monitor.record import Transition
from connection_exporter.runtime.logs import log_to_stderr
from connection_exporter.web.server import bind
from support.proxy import Mode, Proxy

MANY = 0.10
"""Share by which sockets, descriptors and tasks may differ: http keeps a connection or not, canaries come and go."""


THREADS = 2
MEBIBYTES = 8.0
"""Memory above that of the first minute, which is the first with every path of the code run once."""

KINDS = ("redis", "http", "websocket", "postgresql", "process")
FAULTS = (Mode.SWALLOW, Mode.GARBLE, Mode.HANG_UP, Mode.RESET, Mode.ANSWER_ONCE, Mode.TRICKLE, Mode.ENDLESS)
DEFAULTS = """\
defaults: {interval: 2s, timeout: 1s, retry_delay: 500ms, max_retry_delay: 2s, canary: 10s}
services:
"""


@dataclass
class World:
    """What is watched, and how to break it."""

    database: PostgreSQL
    redis: Redis
    api: HttpApi
    feed: WebSocket
    bots: list[Bot]
    proxies: list[Proxy] = field(default_factory=list)
    acts: int = 0

    @property
    def servers(self) -> list[Server]:
        """All of them."""
        return [self.database, self.redis, self.api, self.feed, *self.bots]

    def service(self, number: int) -> tuple[str, Proxy | None]:
        """Return the config of one service, and the proxy that it goes through."""
        kind = KINDS[number % len(KINDS)]
        name = f"{kind}_{number}"
        if kind == "process":
            bot = self.bots[number // len(KINDS) % len(self.bots)]
            return f"  {name}: {{kind: process, pidfile: {bot.pidfile}}}\n", None
        upstream = {
            "redis": self.redis,
            "http": self.api,
            "websocket": self.feed,
            "postgresql": self.database,
        }
        proxy = Proxy(upstream[kind].port)
        where = f"127.0.0.1:{proxy.port}"
        address = {
            "redis": f'url: "redis://{where}/0"',
            "http": f'url: "http://{where}/health"',
            "websocket": f'url: "ws://{where}/prices", canary: 10s',
            "postgresql": f'dsn: "postgresql://postgres:{self.database.password}@{where}/postgres?sslmode=disable"',
        }[kind]
        return f"  {name}: {{kind: {kind}, {address}}}\n", proxy

    async def rage(self, rand: random.Random, until: float) -> None:
        """Break something four times a second, a server every ten seconds; repair everything at the end."""
        next_kill = time.monotonic() + 5.0
        async with asyncio.TaskGroup() as acts:
            while time.monotonic() < until:
                proxy = rand.choice(self.proxies)
                acts.create_task(
                    rand.choice((self._cut, self._reset, self._refuse, self._spoil))(proxy, rand)
                )
                if time.monotonic() > next_kill:
                    next_kill += 10.0
                    acts.create_task(self._kill(rand.choice(self.servers)))
                self.acts += 1
                await asyncio.sleep(0.25)

    async def _cut(self, proxy: Proxy, _: random.Random) -> None:
        proxy.cut()

    async def _reset(self, proxy: Proxy, _: random.Random) -> None:
        proxy.reset()

    async def _refuse(self, proxy: Proxy, _: random.Random) -> None:
        proxy.refuse()
        proxy.cut()
        await asyncio.sleep(3.0)
        await proxy.accept()

    async def _spoil(self, proxy: Proxy, rand: random.Random) -> None:
        proxy.mode = rand.choice(FAULTS)
        await asyncio.sleep(3.0)
        proxy.mode = Mode.PASS

    async def _kill(self, server: Server) -> None:
        if server.running:
            await server.kill()
            await asyncio.sleep(1.0)
            await server.start()


class Exporter:
    """The exporter in its own process, and what it holds."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self._port = port
        self._psutil = psutil.Process(process.pid)
        self.slowest = 0.0

    @classmethod
    async def start(cls, config: Path) -> "Exporter":
        """Start it, and wait until it serves."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--watch", str(config)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        return cls(process, int(await process.stdout.readline()))

    async def stop(self) -> None:
        """End it, and wait until it has ended."""
        if self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), 10)
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def scrape(self) -> str:
        """Return /metrics, and remember the slowest."""
        return await asyncio.to_thread(self._get, "/metrics")

    async def settled(self, *, within: float = 60.0) -> bool:
        """Wait until all services are healthy; tell whether they are."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            summary = json.loads(await asyncio.to_thread(self._get, "/health/detailed"))["summary"]
            if summary["healthy"] == summary["total"]:
                return True
            await asyncio.sleep(0.25)
        return False

    async def count(self) -> dict[str, float]:
        """Return what it holds now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        inside: dict[str, float] = json.loads(await self._process.stdout.readline())
        counted = sum(
            float(line.rpartition(" ")[2])
            for line in (await self.scrape()).splitlines()
            if line.startswith("connection_transitions_total{")
        )
        return {
            "sockets": len(self._psutil.net_connections("all")),
            "files": self._psutil.num_fds(),
            "tasks": inside["tasks"],
            "threads": self._psutil.num_threads(),
            "MiB": self._psutil.memory_info().rss / 1024 / 1024,
            "transitions": counted,
            "lost": counted - inside["reported"],
        }

    def _get(self, path: str) -> str:
        began = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=30) as answer:
            text: str = answer.read().decode()
        self.slowest = max(self.slowest, time.monotonic() - began)
        return text


async def soak(*, minutes: float, services: int, seed: int) -> int:
    """Run, print a row each minute, and return the exit status."""
    rand = random.Random(seed)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        slots = {"max_connections": str(services + 20)}
        world = World(PostgreSQL(settings=slots), Redis(), HttpApi(), WebSocket(), [Bot() for _ in range(4)])
        for server in world.servers:
            await stack.enter_async_context(server)
        config = DEFAULTS
        for number in range(services):
            text, proxy = world.service(number)
            config += text
            if proxy is not None:
                world.proxies.append(await stack.enter_async_context(proxy))
        (folder / "soak.yml").write_text(config)
        exporter = await Exporter.start(folder / "soak.yml")
        stack.push_async_callback(exporter.stop)
        return await _soak(world, exporter, rand, minutes)


async def _soak(world: World, exporter: Exporter, rand: random.Random, minutes: float) -> int:
    settled = await exporter.settled()
    await asyncio.sleep(2.0)
    rows = [await exporter.count()]
    print(f"{'minute':>6} {'acts':>6} " + " ".join(f"{key:>11}" for key in rows[0]) + f" {'slowest ms':>11}")
    _print_row("start", world, rows[0], exporter)
    began = time.monotonic()
    while settled and time.monotonic() - began < minutes * 60:
        minute = 60.0 - (time.monotonic() - began) % 60.0
        until = time.monotonic() + min(minute, began + minutes * 60 - time.monotonic())
        await _scraping(exporter, world.rage(rand, until - min(12.0, (until - time.monotonic()) / 2)))
        settled = await exporter.settled()
        await asyncio.sleep(max(until - time.monotonic(), 2.0))
        rows.append(await exporter.count())
        _print_row(f"{(time.monotonic() - began) / 60:.1f}", world, rows[-1], exporter)
    faults = _faults(rows) if settled else ["not all services came back by themselves within a minute"]
    for fault in faults:
        print(f"soak: {fault}")
    print(f"soak: {'failed' if faults else 'no growth, no transition lost'}, {world.acts} faults")
    return int(bool(faults))


async def _scraping(exporter: Exporter, chaos: Awaitable[None]) -> None:
    """Scrape each second, as Prometheus would, while the chaos goes on."""
    raging = asyncio.ensure_future(chaos)
    while not raging.done():
        await exporter.scrape()
        await asyncio.wait({raging}, timeout=1.0)
    await raging


def _print_row(label: str, world: World, row: dict[str, float], exporter: Exporter) -> None:
    values = " ".join(f"{value:>11.1f}" if key == "MiB" else f"{value:>11.0f}" for key, value in row.items())
    print(f"{label:>6} {world.acts:>6} {values} {exporter.slowest * 1000:>11.1f}", flush=True)
    exporter.slowest = 0.0


def _faults(rows: list[dict[str, float]]) -> list[str]:
    start, first, end = rows[0], rows[min(1, len(rows) - 1)], rows[-1]
    limits = {key: start[key] * (1 + MANY) + 2 for key in ("sockets", "files", "tasks")}
    limits |= {"threads": start["threads"] + THREADS, "MiB": first["MiB"] + MEBIBYTES, "lost": 0}
    return [
        f"{key} grew from {start[key]:.0f} to {end[key]:.0f}, more than {limit:.0f}"
        for key, limit in limits.items()
        if end[key] > limit
    ]


async def watch(config: Path) -> None:
    """Be the exporter: print the port, and for each line of stdin what is held; end with stdin."""
    reported = 0

    def count(_: Transition) -> None:
        nonlocal reported
        reported += 1

    sockets = bind(["127.0.0.1:0"])
    loop = asyncio.get_running_loop()
    asked: asyncio.Queue[str] = asyncio.Queue()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(asked.put_nowait, line)
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(asked.put_nowait, "")

    async with serving(load(config), sockets) as monitor:
        monitor.add_callback(count)
        print(sockets[0].getsockname()[1], flush=True)
        threading.Thread(target=listen, daemon=True).start()
        while await asked.get():
            held: dict[str, Any] = {"tasks": len(asyncio.all_tasks()), "reported": reported}
            print(json.dumps(held), flush=True)


def main() -> int:
    """Take the arguments, and run."""
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: %(default)s)")
    parser.add_argument("--services", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the chaos (default: %(default)s)")
    parser.add_argument("--watch", type=Path, metavar="CONFIG", help=argparse.SUPPRESS)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if given.watch is not None:
            with log_to_stderr(level="error", replace_streams=False):  # transitions by the thousand
                runner.run(watch(given.watch))
            return 0
        return runner.run(soak(minutes=given.minutes, services=given.services, seed=given.seed))


if __name__ == "__main__":
    sys.exit(main())
