"""Shows where the CPU of a check goes, for each kind: user and system time, wake-ups, system calls, and our modules.

    python -m benchmarks --profile [--write]

System calls are counted by strace, if it is installed. Opcodes are counted in a process of their own
(`benchmarks.opcodes`).
"""

import asyncio
import json
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from benchmarks.figures import table_of
from benchmarks.per_check import checks_of, running_servers, until_spread, write_config
from benchmarks.processes import Program, exporter

_SECONDS: Final = 5.0
_TRACED: Final = 40
"""Services whose opcodes are counted: tracing makes a check a hundred times slower."""

_SHOWN: Final = 6


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process had used up to a moment: seconds of CPU, wake-ups, and checks made."""

    user: float
    system: float
    wakeups: int
    checks: float


async def measure(folder: Path) -> AsyncIterator[str]:
    """Yield a Markdown table of costs, then one of modules."""
    costs: list[tuple[str, ...]] = []
    modules: list[tuple[str, ...]] = []
    async with running_servers() as servers:
        for kind, of_kind in servers.services().items():
            config = write_config(folder, of_kind)
            async with exporter(config) as program:
                await until_spread(program)
                costs.append((kind, *await _costs(program, folder)))
            few = write_config(folder, of_kind, services=_TRACED)
            modules.append((kind, *await _executed(few)))
            print("  " + "  ".join((*costs[-1], *modules[-1][1:])), flush=True)
    yield table_of(("kind", "user", "system", "wake-ups", "system calls", "of these"), costs)
    yield table_of(("kind", "opcodes", "Python calls", "opcodes of the modules that execute most"), modules)


async def _costs(program: Program, folder: Path) -> tuple[str, ...]:
    before = await _usage(program)
    await asyncio.sleep(_SECONDS)
    after = await _usage(program)
    checks = after.checks - before.checks
    calls, most = await _system_calls(program, folder)
    return (
        f"{(after.user - before.user) / checks * 1e6:.0f} us",
        f"{(after.system - before.system) / checks * 1e6:.0f} us",
        f"{(after.wakeups - before.wakeups) / checks:.1f}",
        calls,
        most,
    )


async def _usage(program: Program) -> Usage:
    process = psutil.Process(program.process.pid)
    times = process.cpu_times()
    return Usage(times.user, times.system, process.num_ctx_switches().voluntary, await checks_of(program))


async def _system_calls(program: Program, folder: Path) -> tuple[str, str]:
    """Return the number of system calls for each check, and the most frequent ones."""
    strace = shutil.which("strace")
    if strace is None:
        return "", "strace is not installed"
    report = folder / "strace"
    before = await checks_of(program)
    tracer = await asyncio.create_subprocess_exec(
        *(strace, "-c", "-f", "-o", str(report), "-p", str(program.process.pid)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    await asyncio.sleep(_SECONDS)
    tracer.send_signal(signal.SIGINT)
    await tracer.wait()
    checks = await checks_of(program) - before
    rows = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", report.read_text(), re.MULTILINE)
    counted = Counter({name: int(calls) / checks for calls, name in rows if name != "total"})
    most = ", ".join(f"{name} {count:.1f}" for name, count in counted.most_common(_SHOWN) if count >= 0.1)
    return f"{counted.total():.1f}", most


async def _executed(config: Path) -> tuple[str, ...]:
    """Return the opcodes and calls of a check, and the modules that execute most of them."""
    command = [sys.executable, "-m", "benchmarks.opcodes", str(config)]
    program = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await program.communicate()
    modules: dict[str, tuple[float, float]] = json.loads(output)
    opcodes = Counter({name: count for name, (count, _) in modules.items()})
    most = ", ".join(f"{name} {count:.0f}" for name, count in opcodes.most_common(_SHOWN))
    return f"{opcodes.total():.0f}", f"{sum(calls for _, calls in modules.values()):.0f}", most
