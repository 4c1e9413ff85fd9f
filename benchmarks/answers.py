"""Measures the CPU of /metrics and /health/detailed for boards of 10 to 10,000 services."""

import asyncio
import gzip
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connection_exporter.demo.ports import free_port

from benchmarks.board_server import CHANGED
from benchmarks.figures import Figure, middle
from benchmarks.processes import HERE, Checkout, Program

_SIZES: Final = (10, 100, 1000, 10_000)
_LIMITS: Final = {1000: 5.0, 10_000: 60.0}
"""Milliseconds of CPU for one /metrics with gzip."""

_STALL: Final = 2.0
"""Milliseconds for which it may block the event loop."""

_ANSWERS: Final = 8

_APART: Final = 0.3
"""Seconds between two requests. A large board is rendered at most four times a second, see `rendering.Shared`; what is
sent in between costs almost nothing."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one response takes, in milliseconds, and its body. ``stall``: the longest time of a blocked loop."""

    cpu: float
    stall: float
    body: bytes


async def measure(folder: Path, *, rounds: int) -> AsyncIterator[Figure]:
    """Yield the figures, size by size."""
    del folder
    for size in _SIZES:
        async with board_server(size) as program:
            await one_interval(program)
            plain = await _cost(program, "/metrics", count=_ANSWERS * rounds)
            packed = await _cost(program, "/metrics", count=_ANSWERS * rounds, gzipped=True)
            shown = await _cost(program, "/health/detailed", count=_ANSWERS * rounds)
        samples = sum(not line.startswith(b"#") for line in gzip.decompress(packed.body).splitlines())
        limit, note = _LIMITS.get(size), f"{samples} samples, {len(packed.body) / 1024:.0f} KiB"
        yield Figure(f"CPU of /metrics, gzip, {size} services", packed.cpu, "ms", limit, note=note)
        yield Figure(f"CPU of /metrics, text, {size} services", plain.cpu, "ms")
        yield Figure(f"loop blocked by /metrics, gzip, {size} services", packed.stall, "ms", _STALL)
        yield Figure(f"CPU of /health/detailed, {size} services", shown.cpu, "ms")
        yield Figure(f"loop blocked by /health/detailed, {size} services", shown.stall, "ms")


async def _cost(program: Program, path: str, *, count: int, gzipped: bool = False) -> Cost:
    cpu: list[float] = []
    stalls: list[float] = []
    body = await program.get(path, gzipped=gzipped)
    for _ in range(count):
        cpu.append(await cpu_of_response(program, path, gzipped=gzipped))
        await _change(program)
        await _tell(program, "look")
        await program.get(path, gzipped=gzipped)
        stalls.append(await _tell(program, "stop") * 1e3)
    return Cost(middle(cpu), middle(stalls), body)


async def cpu_of_response(program: Program, path: str, *, gzipped: bool) -> float:
    """Return the milliseconds of CPU of one response, after one service in six has a new result."""
    await _change(program)
    began = program.cpu()
    await program.get(path, gzipped=gzipped)
    return (program.cpu() - began) * 1e3


async def one_interval(program: Program) -> None:
    """Scrape for as long as it takes until each service has had a new result."""
    for _ in range(CHANGED):
        await cpu_of_response(program, "/metrics", gzipped=True)


async def _change(program: Program) -> None:
    await asyncio.sleep(_APART)
    await _tell(program, "change")


async def _tell(program: Program, word: str) -> float:
    process = program.process
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{word}\n".encode())
    process.stdin.flush()
    return float(await asyncio.to_thread(process.stdout.readline))


@asynccontextmanager
async def board_server(services: int, *, checkout: Checkout = HERE) -> AsyncIterator[Program]:
    """Run the program `benchmarks.board_server` of a checkout."""
    port = free_port()
    command = [checkout.python, "-m", "benchmarks.board_server", str(port), str(services)]
    process = subprocess.Popen(  # noqa: ASYNC220 - it does not block
        command, cwd=checkout.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    program = Program(process, port)
    try:
        await _tell(program, "ready?")
        await asyncio.sleep(0.5)
        yield program
    finally:
        process.terminate()
        process.wait()
