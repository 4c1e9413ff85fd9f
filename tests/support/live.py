"""Owns what the tests of events and page watch: a real HTTP service that can be broken, and an exporter on it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from connection_exporter.app import serving
from connection_exporter.kinds import load_text
from connection_exporter.monitor.monitor import Monitor
from connection_exporter.web.server import bind

QUICK: Final = (
    "interval: 200ms, timeout: 200ms, retry_delay: 100ms, max_retry_delay: 200ms, retries: 2, canary: off"
)
SLOW: Final = "interval: 1h, timeout: 1s, canary: off"


class Web:
    """A real HTTP service on a port of its own, which can be stopped, started and made to answer badly."""

    def __init__(self) -> None:
        self.port = 0
        self.asked = 0
        self.status = "200 OK"
        self.silent = False
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
            serving = [task for task in self._open.values() if task is not None]
            for writer in self._open:
                writer.close()
            if serving:
                await asyncio.wait(serving, timeout=5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = asyncio.current_task()
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked += 1
                if self.silent:
                    continue
                writer.write(f"HTTP/1.1 {self.status}\r\nContent-Length: 2\r\n\r\nok".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            del self._open[writer]
            writer.close()


@asynccontextmanager
async def web() -> AsyncIterator[Web]:
    """Run a `Web`."""
    service = Web()
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


@asynccontextmanager
async def exporter(
    services: str, *, port: int = 0, origins: Sequence[str] = ()
) -> AsyncIterator[tuple[str, Monitor]]:
    """Run an exporter on the lines of a ``services:`` block, and give its address."""
    sockets = bind([f"127.0.0.1:{port}"])
    config = load_text(
        "services:\n" + "".join(f"  {line}\n" for line in services.splitlines()), source="test"
    )
    async with serving(config, sockets, origins=origins) as monitor:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}", monitor
