"""Owns the programs under measurement: starting them, asking them over HTTP, and what they have used so far."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from exporter.demo.ports import free_port

ROOT: Final = Path(__file__).resolve().parents[1]
PEERS: Final = ROOT / ".tools" / "peers" / "bin"


@dataclass(frozen=True, slots=True)
class Program:
    """A process under measurement, with an HTTP listener on ``port``."""

    process: subprocess.Popen[bytes]
    port: int

    def cpu(self) -> float:
        """Seconds of CPU that the process, all its threads included, has used since its start.

        By the process's own clock (clock_getcpuclockid(3)) and in nanoseconds: /proc counts in hundredths.
        """
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def resident(self) -> int:
        """Bytes of resident memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    async def get(self, path: str, *, gzipped: bool = False) -> bytes:
        """Return the body of an answer as it is sent. Raises OSError for anything but 200."""
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"} if gzipped else {})

        def read() -> bytes:
            with urllib.request.urlopen(request, timeout=30.0) as answer:
                body: bytes = answer.read()
                return body

        return await asyncio.to_thread(read)

    async def board(self) -> Any:
        """Return /health/detailed."""
        return json.loads(await self.get("/health/detailed"))

    async def healthy(self, *, within: float = 30.0) -> float:
        """Wait until all services are, and return how many seconds that took. Raises TimeoutError."""
        began = time.monotonic()
        while True:
            board = await self.board()
            if board["summary"]["healthy"] == board["summary"]["total"]:
                return time.monotonic() - began
            if time.monotonic() - began > within:
                sick = [s for s in board["services"].values() if s["status"] != "healthy"][:3]
                raise TimeoutError(f"{board['summary']}: {[(s['name'], s['message']) for s in sick]}")
            await asyncio.sleep(0.1)


@asynccontextmanager
async def running(
    command: Sequence[str], port: int, *, ready: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Program]:
    """Run a program until the block is left; it is there once it answers the path ``ready``."""
    process = subprocess.Popen(  # noqa: ASYNC220  # it does not block
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    program = Program(process, port)
    try:
        deadline = time.monotonic() + 30.0
        while True:
            try:
                await program.get(ready)
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} did not start ({process.returncode})") from None
                await asyncio.sleep(0.05)
        yield program
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@asynccontextmanager
async def exporter(config: Path, *arguments: str) -> AsyncIterator[Program]:
    """Run `connection-exporter serve` as users do."""
    port = free_port()
    command = [sys.executable, "-m", "exporter", "serve", f"--config.file={config}", "--log.level=error"]
    command += [f"--web.listen-address=127.0.0.1:{port}", *arguments]
    async with running(command, port, ready="/-/ready") as program:
        yield program


def peer(name: str) -> str | None:
    """Return the path of a peer, from PATH or where `scripts/install-tools --bench` puts it."""
    found = PEERS / f"prometheus-{name}-exporter"
    return str(found) if found.exists() else shutil.which(found.name)


async def paced(program: Program, path: str, *, rate: float, seconds: float) -> int:
    """Ask for ``path`` at ``rate`` a second over kept connections, as Prometheus does; return how often."""
    count = 0
    began = time.monotonic()

    async def ask(place: int, places: int) -> None:
        nonlocal count
        reader, writer = await asyncio.open_connection("127.0.0.1", program.port, limit=2**22)
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n".encode()
        number = place
        try:
            while (due := began + number / rate) < began + seconds:
                await asyncio.sleep(max(due - time.monotonic(), 0.0))
                writer.write(request)
                await _skip_answer(reader)
                count += 1
                number += places
        finally:
            writer.close()

    async with asyncio.TaskGroup() as tasks:
        for place in range(8):
            tasks.create_task(ask(place, 8))
    return count


async def _skip_answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise OSError(head.partition(b"\r\n")[0].decode())
    if b"transfer-encoding: chunked" in head:
        while length := int(await reader.readline(), 16):
            await reader.readexactly(length + 2)
        await reader.readline()
    else:
        await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
