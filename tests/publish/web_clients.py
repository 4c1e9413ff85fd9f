"""An exporter of nothing much with a web config, and clients that speak to it in raw bytes."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from exporter.app import serving
from exporter.config import load_text
from exporter.config.web import WebConfig, load_web
from exporter.publish.server import bind
from exporter.reload import Settings, read_settings

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
