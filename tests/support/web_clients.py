"""A small exporter with a web config, in this process or in its own, and clients that send raw bytes."""

import asyncio
import os
import resource
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from connection_exporter.app import serving
from connection_exporter.config.web import WebConfig, load_web
from connection_exporter.demo.servers import free_port
from connection_exporter.kinds import load_text
from connection_exporter.runtime.settings import Settings, read_settings
from connection_exporter.web.server import bind

ONE_SERVICE = "services:\n  nobody: {kind: process, pidfile: /nonexistent/bot.pid, retries: 1000}\n"


@asynccontextmanager
async def listening(web_file: Path | None = None, *, config: str = ONE_SERVICE) -> AsyncIterator[int]:
    """Yield the port of an exporter with this web config."""

    def read() -> Settings:
        return read_settings(
            lambda: load_text(config), lambda: load_web(web_file) if web_file else WebConfig()
        )

    sockets = bind(["127.0.0.1:0"])
    async with serving(read(), sockets, reread=read):
        yield sockets[0].getsockname()[1]


async def spoken(port: int, said: bytes, *, tls: ssl.SSLContext | None = None) -> bytes:
    """Say something in raw bytes, and return all that comes back until the exporter closes."""
    name = "localhost" if tls else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    try:
        writer.write(said)
        async with asyncio.timeout(15):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def get(port: int, path: str = "/health", **options: object) -> httpx.Response:
    """Ask once over HTTP."""
    async with httpx.AsyncClient() as client:
        return await client.get(f"http://127.0.0.1:{port}{path}", **options)  # type: ignore[arg-type]


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that happens elsewhere."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - nobody here can ring
            await asyncio.sleep(0.01)


class Program:
    """An exporter in a process of its own, so that its memory and its limits can be measured and set."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    def resident(self) -> int:
        """Return its resident memory in MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() >> 20

    async def settled(self) -> int:
        """Return its resident memory once it has stopped growing."""
        before, now = -1, self.resident()
        while now != before:
            await asyncio.sleep(0.5)
            before, now = now, self.resident()
        return now


@asynccontextmanager
async def program(folder: Path, config: str, *flags: str, files: int | None = None) -> AsyncIterator[Program]:
    """Run `serve` on ``config`` in a process of its own; ``files`` is its limit of file descriptors."""
    (folder / "services.yml").write_text(config)
    port = free_port()
    command = [sys.executable, "-m", "connection_exporter", f"--config.file={folder / 'services.yml'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error", *flags]
    if files is not None:
        command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        async with asyncio.timeout(40):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.1)
                    continue
                writer.close()
                break
        yield Program(process, port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
