"""Starts the programs that are measured, sends them HTTP requests, and reads what CPU and memory they have used."""

import asyncio
import json
import os
import re
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
from connection_exporter.demo.ports import free_port

ROOT: Final = Path(__file__).resolve().parents[1]
PEERS: Final = ROOT / ".tools" / "peers" / "bin"
_PEERS: Final = ("blackbox", "redis", "postgres", "process")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A checkout of this repository whose package is installed for ``python``, the interpreter of its own ``.venv``."""

    root: Path
    python: str

    @classmethod
    def at(cls, root: Path) -> "Checkout":
        """Return the checkout in a folder. Raises FileNotFoundError if it has no ``.venv``."""
        checkout = cls(root.resolve(), str(root.resolve() / ".venv" / "bin" / "python"))
        if not Path(checkout.exporter).exists():
            raise FileNotFoundError(f"{checkout.exporter} does not exist: run `make .venv/.dev` in {root}")
        return checkout

    @property
    def exporter(self) -> str:
        """The program that users run. Its name is the same in each version, and that of the package is not."""
        return str(Path(self.python).with_name("connection-exporter"))


HERE: Final = Checkout(ROOT, sys.executable)

ENVIRONMENT: Final = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
"""For programs under measurement. An installed program has its modules compiled; to compile them takes twice as long as
all the rest of ``validate``."""


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
    command: Sequence[str],
    port: int,
    *,
    ready: str,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
) -> AsyncIterator[Program]:
    """Run a program in ``folder`` while the block runs, which begins when the program answers the path ``ready``."""
    process = subprocess.Popen(  # noqa: ASYNC220  # it does not block
        command,
        cwd=folder,
        env={**ENVIRONMENT, **(environment or {})},
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
async def exporter(
    config: Path, *, checkout: Checkout = HERE, options: Sequence[str] = ()
) -> AsyncIterator[Program]:
    """Run `connection-exporter serve` as users do."""
    port = free_port()
    command = [checkout.exporter, "serve", f"--config.file={config}", "--log.level=error"]
    command += [f"--web.listen-address=127.0.0.1:{port}", *options]
    async with running(command, port, ready="/-/ready", folder=checkout.root) as program:
        yield program


def peer(name: str) -> str | None:
    """Return the path of the exporter ``name`` (blackbox, redis, postgres, process), or ``None``.

    The folder in the variable PEERS comes first, then that of `scripts/install-tools --bench`, then PATH. A program may
    have the name that its project gives it, or Debian's.
    """
    folders = [os.environ.get("PEERS", ""), str(PEERS), os.environ["PATH"]]
    return _program(name, os.pathsep.join(filter(None, folders)))


def peers_problem() -> str | None:
    """Return what is wrong with the variable PEERS, or ``None``: a wrong folder would mean Debian's peers."""
    folder = os.environ.get("PEERS", "")
    if not folder or any(_program(name, folder) for name in _PEERS):
        return None
    return (
        f"PEERS={folder}: there is none of {', '.join(f'{name}_exporter' for name in _PEERS)} in this folder"
    )


def _program(name: str, path: str) -> str | None:
    names = (f"{name}_exporter", f"{name}-exporter", f"prometheus-{name}-exporter")
    for folder in path.split(os.pathsep):
        for program in names:
            if (found := shutil.which(program, path=folder)) is not None:
                return found
    return None


def peer_versions() -> str:
    """Return name and version of each peer that is measured, as it states them itself."""
    found = []
    for name in _PEERS:
        program = peer(name)
        if program is None:
            continue
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=10)
        version = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
        found.append(f"{name} exporter {version[0] if version else 'of unknown version'}")
    return "Peers: " + (", ".join(found) or "none; `scripts/install-tools --bench` fetches them")


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
