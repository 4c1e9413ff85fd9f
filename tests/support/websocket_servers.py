"""WebSocket servers for tests: real ones, and hostile ones."""

import asyncio
import socket
import ssl
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from connection_exporter.kinds.websocket.check import WebsocketCheck
from connection_exporter.kinds.websocket.config import WebsocketConfig
from connection_exporter.net import Network
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.utils import accept_key

from support import streams
from support.streams import Handler

Talk = Callable[[ServerConnection], Awaitable[None]]


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
async def serving_upgraded(handler: Handler, *, headers: str = "") -> AsyncIterator[int]:
    """Serve bytes until the block ends, after an upgrade with further ``headers``."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrade(reader, writer, headers)
        await handler(reader, writer)

    async with streams.serving(handle) as port:
        yield port


@contextmanager
def flooding(
    data: bytes,
    *,
    first: bytes = b"",
    headers: str = "",
    tls: ssl.SSLContext | None = None,
    seconds: float = 30,
) -> Iterator[int]:
    """Upgrade each connection, send ``first``, and then ``data`` without end (nothing, if it is empty).

    Runs in threads of its own, until the block ends or for ``seconds``.
    """
    ends = time.monotonic() + seconds
    over = threading.Event()

    def flood(accepted: socket.socket) -> None:
        with (
            suppress(OSError),
            accepted if tls is None else tls.wrap_socket(accepted, server_side=True) as sock,
        ):
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += sock.recv(65536)
            sock.sendall(response_to(request.decode(), headers) + first)
            if not data:
                over.wait(seconds)
            while not over.is_set() and time.monotonic() < ends:
                sock.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while not over.is_set():
                sock, _ = listener.accept()
                sock.settimeout(seconds)
                threading.Thread(target=flood, args=(sock,), name="flood", daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, name="accept", daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: str = "") -> None:
    request = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.write(response_to(request, headers))


def response_to(request: str, headers: str = "") -> bytes:
    """Return the response that accepts the upgrade; each line of ``headers`` ends with CRLF."""
    key = next(line for line in request.split("\r\n") if line.startswith("Sec-WebSocket-Key")).split(": ")[1]
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"{headers}Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n"
    ).encode("latin-1")


def frame(first: int, payload: bytes = b"") -> bytes:
    """Return a frame as a server sends it; ``first`` holds its flags and its opcode."""
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2) + payload
    return bytes((first, 127)) + length.to_bytes(8) + payload


def deflated(payload: bytes) -> bytes:
    """Return the payload of a compressed message (RFC 7692, section 7.2.1)."""
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def config_of(**config: object) -> WebsocketConfig:
    return WebsocketConfig.model_validate({"kind": "websocket", **config})


def check_of(port: int, **config: object) -> WebsocketCheck:
    return WebsocketCheck(config_of(host="127.0.0.1", port=port, **config), Network())
