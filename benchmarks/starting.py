"""Measures how long the command line takes to its first output, and `serve` to its first response."""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connection_exporter.config import EXAMPLE
from connection_exporter.demo.ports import free_port

from benchmarks.figures import Figure, middle
from benchmarks.processes import ENVIRONMENT, HERE, Checkout

_TIMES: Final = 5
_LOOK: Final = 0.002


@dataclass(frozen=True, slots=True)
class Took:
    """Milliseconds of a clock, and of CPU, which says more on a machine that others use too."""

    clock: float
    cpu: float


async def measure(folder: Path, *, rounds: int) -> AsyncIterator[Figure]:
    """Yield the figures."""
    config = write_example(folder)
    await serve(config)  # which also compiles the modules
    version = [await run(["--version"]) for _ in range(_TIMES * rounds)]
    yield Figure("time of --version", middle(took.clock for took in version), "ms", 150.0)
    valid = [await run(["validate", f"--config.file={config}"]) for _ in range(_TIMES * rounds)]
    yield Figure("time of validate, five services", middle(took.clock for took in valid), "ms", 200.0)
    served = [await serve(config) for _ in range(_TIMES * rounds)]
    yield Figure("start of serve to its first response", middle(took.clock for took in served), "ms", 400.0)


def write_example(folder: Path) -> Path:
    """Write the example config, which has a service of each kind, and return its path."""
    config = folder / "example.yml"
    config.write_text(EXAMPLE)
    return config


async def run(arguments: list[str], *, checkout: Checkout = HERE) -> Took:
    """Run a command to its end."""
    return await asyncio.to_thread(_run, arguments, checkout)


async def serve(config: Path, *, checkout: Checkout = HERE) -> Took:
    """Start the exporter, and end it when it has answered a request."""
    return await asyncio.to_thread(_serve, config, checkout)


def _run(arguments: list[str], checkout: Checkout) -> Took:
    began = time.monotonic()
    process = subprocess.Popen(
        [checkout.exporter, *arguments],
        cwd=checkout.root,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)  # the only way to the CPU of one child
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments} failed")
    return Took((time.monotonic() - began) * 1e3, (used.ru_utime + used.ru_stime) * 1e3)


def _serve(config: Path, checkout: Checkout) -> Took:
    port = free_port()
    command = [
        checkout.exporter,
        "serve",
        f"--config.file={config}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    began = time.monotonic()
    with _start(command, checkout) as process:
        try:
            while not _answers(port):
                if process.poll() is not None:
                    raise RuntimeError(f"serve ended with status {process.returncode}")
                time.sleep(_LOOK)
            clock = time.monotonic() - began
            return Took(clock * 1e3, time.clock_gettime((~process.pid << 3) | 2) * 1e3)  # as in Program.cpu
        finally:
            process.kill()


def _start(command: list[str], checkout: Checkout) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=checkout.root,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5.0) as connection:
        connection.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return connection.recv(64).startswith(b"HTTP/1.1 200")
    return False
