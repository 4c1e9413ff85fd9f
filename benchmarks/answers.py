"""Owns what answers cost: /metrics and /health/detailed over boards of 10 to 10,000 services."""

import asyncio
import gzip
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure, middle
from benchmarks.processes import ROOT, Program
from exporter.demo.ports import free_port

_SIZES: Final = (10, 100, 1000, 10_000)
_LIMITS: Final = {1000: 30.0, 10_000: 300.0}
"""Milliseconds of CPU for /metrics, gzip included."""

_ANSWERS: Final = 8


@dataclass(frozen=True, slots=True)
class Cost:
    """What an answer took, in milliseconds, and how long it is."""

    cpu: float
    stall: float
    body: bytes


async def measure(folder: Path, *, rounds: int) -> AsyncIterator[Figure]:
    """Yield the figures, size by size."""
    del folder
    for size in _SIZES:
        async with _board_server(size) as program:
            plain = await _cost(program, "/metrics", count=_ANSWERS * rounds)
            packed = await _cost(program, "/metrics", count=_ANSWERS * rounds, gzipped=True)
            shown = await _cost(program, "/health/detailed", count=_ANSWERS * rounds)
        samples = sum(not line.startswith(b"#") for line in gzip.decompress(packed.body).splitlines())
        limit, note = _LIMITS.get(size), f"{samples} samples, {len(packed.body) / 1024:.0f} KiB"
        yield Figure(f"CPU of /metrics, gzip, {size} services", packed.cpu, "ms", limit, note=note)
        yield Figure(f"CPU of /metrics, text, {size} services", plain.cpu, "ms")
        yield Figure(f"loop held up by /metrics, gzip, {size} services", packed.stall, "ms", 5.0)
        yield Figure(f"CPU of /health/detailed, {size} services", shown.cpu, "ms")
        yield Figure(f"loop held up by /health/detailed, {size} services", shown.stall, "ms")


async def _cost(program: Program, path: str, *, count: int, gzipped: bool = False) -> Cost:
    cpu: list[float] = []
    stalls: list[float] = []
    body = await program.get(path, gzipped=gzipped)
    for _ in range(count):
        await _tell(program, "change")
        began = program.cpu()
        body = await program.get(path, gzipped=gzipped)
        cpu.append((program.cpu() - began) * 1e3)
        await _tell(program, "change")
        await _tell(program, "look")
        await program.get(path, gzipped=gzipped)
        stalls.append(await _tell(program, "stop") * 1e3)
    return Cost(middle(cpu), middle(stalls), body)


async def _tell(program: Program, word: str) -> float:
    process = program.process
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{word}\n".encode())
    process.stdin.flush()
    return float(await asyncio.to_thread(process.stdout.readline))


@asynccontextmanager
async def _board_server(services: int) -> AsyncIterator[Program]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.board_server", str(port), str(services)]
    process = subprocess.Popen(  # noqa: ASYNC220  # it does not block
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    program = Program(process, port)
    try:
        await _tell(program, "ready?")
        await asyncio.sleep(0.5)
        yield program
    finally:
        process.terminate()
        process.wait()
