"""Owns how long the command line takes to its first answer."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure, middle
from benchmarks.processes import ROOT
from exporter.config import EXAMPLE

_TIMES: Final = 5


async def measure(folder: Path, *, rounds: int) -> AsyncIterator[Figure]:
    """Yield the figures."""
    config = folder / "example.yml"
    config.write_text(EXAMPLE)
    validate = ["validate", f"--config.file={config}"]
    version = [await _seconds(["--version"]) for _ in range(_TIMES * rounds)]
    yield Figure("time of --version", middle(version) * 1e3, "ms", 150.0)
    valid = [await _seconds(validate) for _ in range(_TIMES * rounds)]
    yield Figure("time of validate, five services", middle(valid) * 1e3, "ms", 400.0)


async def _seconds(arguments: list[str]) -> float:
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "exporter", *arguments), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    if await process.wait():
        raise RuntimeError(f"{arguments} failed")
    return time.monotonic() - began
