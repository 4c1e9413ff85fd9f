"""Shows where the CPU of a check goes, for each kind: user and system time, wake-ups, system calls, and our modules.

    python -m benchmarks --profile [--write]

System calls are counted by strace and modules are sampled by py-spy (`pip install py-spy`), if these are installed.
"""

import asyncio
import os
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
_PACKAGE: Final = "connection_exporter/"
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
                modules.append((kind, await _modules(program, folder)))
            print("  " + "  ".join(costs[-1]), flush=True)
    yield table_of(("kind", "user", "system", "wake-ups", "system calls", "of these"), costs)
    yield table_of(("kind", "share of the time in Python, by our innermost module"), modules)


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


async def _modules(program: Program, folder: Path) -> str:
    """Sample the stacks, and return the share of each of our modules: samples in which it is the innermost of ours."""
    sampler = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if sampler is None:
        return "py-spy is not installed"
    stacks = folder / "stacks"
    command = [sampler, "record", "--format=raw", "--rate=500", "--full-filenames", "--nonblocking", "--gil"]
    command += [f"--duration={_SECONDS * 2:.0f}", f"--output={stacks}", f"--pid={program.process.pid}"]
    quiet = asyncio.subprocess.DEVNULL
    await (await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)).wait()
    shares: Counter[str] = Counter()
    for line in stacks.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        ours = re.findall(rf"{_PACKAGE}([\w/]+\.py)", stack)
        shares[ours[-1] if ours else "libraries"] += int(samples)
    shares["the event loop"] = shares.pop("cli/event_loop.py", 0)
    total = shares.total()
    return ", ".join(f"{name} {own / total:.0%}" for name, own in shares.most_common(_SHOWN))
