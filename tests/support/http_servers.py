"""Small HTTP servers with scripted responses, and the checks with which the tests of kind http probe them."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from connection_exporter.kind import Check, Observation
from connection_exporter.kinds import load_text
from connection_exporter.kinds.http.check import HttpCheck
from connection_exporter.kinds.http.config import HttpConfig
from connection_exporter.monitor.attempt import waited_for
from connection_exporter.net import Network

from support import streams

Talk = Callable[["Conversation"], Awaitable[None]]


@dataclass
class Server:
    """What a server saw."""

    port: int = 0
    connections: int = 0
    closed: int = 0
    requests: list[bytes] = field(default_factory=list)
    deserted: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str = "/", *, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def all_closed(self) -> None:
        """Wait until every client has closed."""
        async with asyncio.timeout(5):
            await self.deserted.wait()


@dataclass
class Conversation:
    """One connection, from the server's side."""

    server: Server
    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """Read one complete request. Raises IncompleteReadError when the client has closed."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        whole = head + await self.reader.readexactly(length)
        self.server.requests.append(whole)
        return whole

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        self.writer.transport.abort()

    async def until_closed(self) -> None:
        """Stay silent until the client closes."""
        while await self.reader.read(65536):
            pass


def reply(body: bytes | str = b"", status: str = "200 OK", *headers: str, length: bool = True) -> bytes:
    """Return the bytes of one response."""
    raw = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", *headers, *([f"Content-Length: {len(raw)}"] if length else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def answers(*replies: bytes) -> Talk:
    """Send these responses in turn, across all connections, and then repeat the last."""
    waiting = list(replies)

    async def talk(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await conversation.send(waiting.pop(0) if len(waiting) > 1 else waiting[0])

    return talk


@asynccontextmanager
async def serving(
    talk: Talk, *, tls: ssl.SSLContext | None = None, path: Path | None = None
) -> AsyncIterator[Server]:
    """Run a server on a free port of the loopback, or on a Unix socket."""
    server = Server()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        server.deserted.clear()
        try:
            await talk(Conversation(server, server.connections, reader, writer))
        finally:
            server.closed += 1
            if server.closed == server.connections:
                server.deserted.set()

    async with streams.serving(connected, tls=tls, path=path) as server.port:
        yield server


def config(url: str | None = None, **keys: object) -> HttpConfig:
    """Return the config that a user would write with these keys."""
    service = {"kind": "http", **({"url": url} if url else {}), **keys}
    read = load_text(json.dumps({"services": {"api": service}})).services["api"]
    assert isinstance(read, HttpConfig)
    return read


def check(url: str | None = None, **keys: object) -> HttpCheck:
    """Return a check with that config."""
    return HttpCheck(config(url, **keys), Network())


async def attempt(checked: Check, *, timeout: float = 5.0) -> Observation:
    """Make one attempt as the monitor does. Raises the `Failure` that the check reports, also at the deadline."""
    try:
        async with asyncio.timeout(timeout), checked.connect() as session:
            return await session.probe()
    except TimeoutError as error:
        cause = waited_for(error)
        raise cause or error from None


async def ask(url: str, **keys: object) -> Observation:
    """Make one attempt at ``url``."""
    return await attempt(check(url, **keys))
