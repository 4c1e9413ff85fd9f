"""WebSocket servers of our own, real and misbehaving."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.utils import accept_key

from exporter.checks.websocket import WebsocketCheck
from exporter.config.kinds.websocket import WebsocketConfig
from exporter.net import Network

Talk = Callable[[ServerConnection], Awaitable[None]]
Raw = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echoes(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def serving(
    talk: Talk = echoes, *, tls: ssl.SSLContext | None = None, **options: object
) -> AsyncIterator[int]:
    """Serve WebSocket connections until the block ends."""

    async def _handle(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await talk(connection)

    async with serve(_handle, "127.0.0.1", 0, ssl=tls, close_timeout=0.1, **options) as server:  # type: ignore[arg-type]
        yield next(iter(server.sockets)).getsockname()[1]


@asynccontextmanager
async def serving_raw(handler: Raw, *, upgraded: bool = False) -> AsyncIterator[int]:
    """Serve bytes until the block ends, after an upgrade if ``upgraded``."""
    writers: list[asyncio.StreamWriter] = []

    async def _handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            if upgraded:
                await upgrade(reader, writer)
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(_handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = next(line for line in request.split("\r\n") if line.startswith("Sec-WebSocket-Key")).split(": ")[1]
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    writer.write("\r\n".join([*lines, f"Sec-WebSocket-Accept: {accept_key(key)}", "\r\n"]).encode())


def check_of(port: int, **config: object) -> WebsocketCheck:
    given = {"kind": "websocket", "host": "127.0.0.1", "port": port, **config}
    return WebsocketCheck(WebsocketConfig.model_validate(given), Network())
