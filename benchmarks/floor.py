"""Measures floors: bare programs on the same event loop that do what no exporter can leave out, and no more.

They hold sessions, send the smallest request of each kind, and take the time of each response; read what /proc shows
of a process; notice that all sessions end; or only import the libraries. The difference to the exporter's figure is
what statuses, metrics, secrets, limits and retries cost.

    python -m benchmarks.floor WORK ARGUMENTS…      one of these programs, which prints a number
"""

import asyncio
import os
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.figures import Figure, middle
from benchmarks.per_check import running_servers
from benchmarks.processes import ENVIRONMENT

_SECONDS: Final = 5.0
_UPGRADE: Final = (
    b"GET /prices HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_REQUESTS: Final[Mapping[str, tuple[bytes, bytes]]] = {
    "redis": (b"", b"*1\r\n$4\r\nPING\r\n"),
    "http": (b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "websocket": (_UPGRADE, b"\x89\x80\0\0\0\0"),
}
"""What is sent once, and at each check: PING, a GET, and a ping frame."""

_VALIDATE: Final = """
import gc
gc.disable()  # as the exporter does while it starts
import argparse, yaml
from pydantic import BaseModel, Field, SecretStr
class Model(BaseModel):
    key: int = Field(1, ge=0)
    secret: SecretStr | None = None
Model(key=1)
"""
"""What `validate` needs of Python and others. To import pydantic alone loads nothing: half of it comes with a model."""

_SERVE: Final = f"""{_VALIDATE}
import asyncio, json, logging, ssl
import prometheus_client.openmetrics.exposition, starlette.applications, uvicorn.protocols.http.httptools_impl
try:
    import uvloop, isal.igzip
except ImportError:  # not on every platform
    pass
"""
"""What `serve` with one http service needs of Python and others."""


async def measure(folder: Path, *, rounds: int) -> AsyncIterator[Figure]:
    """Yield the figures."""
    del folder
    async with running_servers() as servers:
        ports = {
            "redis": [redis.port for redis in servers.redis],
            "http": [api.port for api in servers.api],
            "websocket": [feed.port for feed in servers.feed],
        }
        for kind, its in ports.items():
            took = [await _run("checks", kind, 200, 8, 1, *its) for _ in range(rounds)]
            yield Figure(f"floor: check of {kind}, 200 sessions in 8 batches a second", middle(took), "us")
        took = [await _run("checks", "redis", 200, 200, 1, *ports["redis"]) for _ in range(rounds)]
        yield Figure("floor: check of redis, 200 sessions in 200 batches a second", middle(took), "us")
        took = [await _run("checks", "redis", 1000, 64, 30, *ports["redis"]) for _ in range(rounds)]
        share = middle(took) * 1000 / 30 / 1e4
        yield Figure("floor: CPU of 1000 held sessions of redis, at 30 s", share, "% of a core")
        took = [await _run("process", servers.bot.pidfile) for _ in range(rounds)]
        yield Figure("floor: check of a process, 200 in 8 batches a second", middle(took), "us")
    took = [await _notice(1000) for _ in range(rounds)]
    yield Figure("floor: all of 1000 cut at once, the last noticed after", middle(took), "ms")
    validates = [await _imports(_VALIDATE) for _ in range(rounds)]
    serves = [await _imports(_SERVE) for _ in range(rounds)]
    yield Figure("floor: memory of the libraries alone", middle(resident for resident, _ in serves), "MiB")
    for command, took_both in (("validate", validates), ("serve", serves)):
        name = f"floor: CPU to import what `{command}` needs of the libraries"
        yield Figure(name, middle(cpu for _, cpu in took_both), "ms")


async def _run(*arguments: object) -> float:
    program = await _start(*arguments)
    output, _ = await program.communicate()
    return float(output)


async def _start(*arguments: object) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "benchmarks.floor", *map(str, arguments)]
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)


async def _imports(program: str) -> tuple[float, float]:
    """Return the MiB and the milliseconds of CPU of an interpreter that only runs ``program``."""
    tell = "import time; print(*open('/proc/self/statm').read().split()[1:2], time.process_time())"
    bare = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"{program}\n{tell}"),
        stdout=asyncio.subprocess.PIPE,
        env={**ENVIRONMENT, "PYDANTIC_DISABLE_PLUGINS": "__all__"},  # as the exporter sets it
    )
    output, _ = await bare.communicate()
    pages, cpu = map(float, output.split())
    return pages * resource.getpagesize() / 2**20, cpu * 1e3


async def _notice(count: int) -> float:
    """Cut ``count`` connections; return the milliseconds until the other program has noticed the last."""
    with socket.create_server(("127.0.0.1", 0), backlog=count) as listener:
        program = await _start("notice", listener.getsockname()[1], count)
        clients = [(await asyncio.to_thread(listener.accept))[0] for _ in range(count)]
    await asyncio.sleep(1.0)
    began = time.monotonic()
    for client in clients:
        client.close()
    output, _ = await program.communicate()
    return (float(output) - began) * 1e3


class _Session(asyncio.Protocol):
    def __init__(self, first: bytes, request: bytes, lost: Callable[[], None] = lambda: None) -> None:
        self.latency = self._began = 0.0
        self._first, self._request, self._lost = first, request, lost

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._first:
            self._transport.write(self._first)

    def check(self) -> None:
        self._began = time.monotonic()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        del data
        if self._began:
            self.latency = time.monotonic() - self._began

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._lost()


async def _in_batches(checks: Sequence[Callable[[], None]], batches: int, period: float) -> float:
    """Make each check once in ``period`` seconds, one in each iteration of the loop; return its CPU in us."""

    async def batch(number: int) -> None:
        loop = asyncio.get_running_loop()
        due = began + period * number / batches
        while due < began + seconds:
            await asyncio.sleep(due - loop.time())
            for check in checks[number::batches]:
                check()
                await asyncio.sleep(0)
            due += period

    seconds = max(_SECONDS, period)
    await asyncio.sleep(1.0)
    began, before = asyncio.get_running_loop().time(), time.process_time()
    await asyncio.gather(*map(batch, range(batches)))
    return (time.process_time() - before) / (seconds / period * len(checks)) * 1e6


async def _checks(kind: str, sessions: str, batches: str, period: str, *ports: str) -> float:
    loop, (first, request) = asyncio.get_running_loop(), _REQUESTS[kind]
    made = [
        (
            await loop.create_connection(
                lambda: _Session(first, request), "127.0.0.1", int(ports[number % len(ports)])
            )
        )[1]
        for number in range(int(sessions))
    ]
    return await _in_batches([session.check for session in made], int(batches), float(period))


async def _process(pidfile: str) -> float:
    """Read what the kind shows of a process, from files that stay open."""
    pid = int(Path(pidfile).read_text())  # noqa: ASYNC240 - nothing else runs here
    stat, memory = (os.open(f"/proc/{pid}/{name}", os.O_RDONLY) for name in ("stat", "statm"))

    def check() -> None:
        os.stat(pidfile)  # noqa: PTH116 - half the time of Path
        os.pread(stat, 4096, 0).rpartition(b")")[2].split()
        os.pread(memory, 256, 0).split()
        os.stat(f"/proc/{pid}/fd")  # noqa: PTH116 - as above
        resource.prlimit(pid, resource.RLIMIT_NOFILE)

    return await _in_batches([check] * 200, 8, 1.0)


async def _noticed(port: str, count: str) -> float:
    """Return when the last of ``count`` connections had ended, on the monotonic clock."""
    loop, left, ended = asyncio.get_running_loop(), [int(count)], asyncio.Event()

    def lost() -> None:
        left[0] -= 1
        if not left[0]:
            ended.set()

    for _ in range(int(count)):
        await loop.create_connection(lambda: _Session(b"", b"", lost), "127.0.0.1", int(port))
    await ended.wait()
    return time.monotonic()


_WORKS: Final[Mapping[str, Callable[..., Coroutine[Any, Any, float]]]] = {
    "checks": _checks,
    "process": _process,
    "notice": _noticed,
}

if __name__ == "__main__":
    print(uvloop.run(_WORKS[sys.argv[1]](*sys.argv[2:])))
