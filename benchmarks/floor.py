"""Measures the floor: a program that holds sessions of Redis, sends PING, takes the time of each response, and no more.

With one wake-up for each check, it shows what a wake-up costs; in batches, what is left without it. No exporter on this
event loop can be cheaper.

    python -m benchmarks.floor PORT SESSIONS BATCHES      prints the microseconds of CPU of a check
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import uvloop
from connection_exporter.demo.servers import Redis

from benchmarks.figures import Figure, middle

_SECONDS: Final = 5
"""Each session is checked once a second."""

_PING: Final = b"*1\r\n$4\r\nPING\r\n"
_CASES: Final = ((200, 200), (200, 8), (1000, 8))
"""Numbers of sessions, and of batches per second."""


async def measure(folder: Path, *, rounds: int) -> AsyncIterator[Figure]:
    """Yield the figures."""
    del folder
    async with Redis() as redis:
        for sessions, batches in _CASES:
            took = [await _in_a_process(redis.port, sessions, batches) for _ in range(rounds)]
            yield Figure(f"floor: PING of {sessions} sessions in {batches} batches", middle(took), "us")


async def _in_a_process(port: int, sessions: int, batches: int) -> float:
    arguments = [str(number) for number in (port, sessions, batches)]
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.floor", *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await program.communicate()
    return float(output)


class _Session(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.latency = 0.0

    def ping(self) -> None:
        self._began = time.monotonic()
        self._transport.write(_PING)  # type: ignore[attr-defined] # uvloop's transports inherit from none of asyncio's

    def data_received(self, data: bytes) -> None:
        del data
        self.latency = time.monotonic() - self._began


async def _ping_all(sessions: Sequence[_Session], offset: float) -> None:
    """Send the PINGs of one batch every second, one in each iteration of the event loop."""
    loop = asyncio.get_running_loop()
    due = loop.time() + offset
    for _ in range(_SECONDS):
        await asyncio.sleep(due - loop.time())
        for session in sessions:
            session.ping()
            await asyncio.sleep(0)
        due += 1.0


async def _run(port: int, count: int, batches: int) -> float:
    loop = asyncio.get_running_loop()
    sessions = [(await loop.create_connection(_Session, "127.0.0.1", port))[1] for _ in range(count)]
    before = time.process_time()
    await asyncio.gather(*(_ping_all(sessions[n::batches], n / batches) for n in range(batches)))
    return (time.process_time() - before) / (_SECONDS * count) * 1e6


if __name__ == "__main__":
    print(uvloop.run(_run(*map(int, sys.argv[1:]))))
