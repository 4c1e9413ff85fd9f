"""Small HTTP servers that answer as a test tells them to, and what the tests of kind http ask them with."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from exporter.attempt import waited_for
from exporter.check import Check, Observation
from exporter.checks.http import HttpCheck
from exporter.config import load_text
from exporter.config.kinds.http import HttpConfig
from exporter.net import Network

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
        """Wait until every client has gone."""
        async with asyncio.timeout(5):
            await self.deserted.wait()


@dataclass
class Conversation:
    """One connection, as a server's talk sees it."""

    server: Server
    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """Read one request whole. Raises IncompleteReadError when the client has gone."""
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
        """Stay silent until the client goes."""
        while await self.reader.read(65536):
            pass


def reply(body: bytes | str = b"", status: str = "200 OK", *headers: str, length: bool = True) -> bytes:
    """Put one answer in bytes."""
    raw = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", *headers, *([f"Content-Length: {len(raw)}"] if length else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def answers(*replies: bytes) -> Talk:
    """Answer with these in turn, over all connections, and then with the last for ever."""
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
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.connections += 1
        server.deserted.clear()
        try:
            await talk(Conversation(server, server.connections, reader, writer))
        except (OSError, EOFError, asyncio.CancelledError, asyncio.LimitOverrunError):
            pass
        finally:
            server.closed += 1
            if server.closed == server.connections:
                server.deserted.set()
            tasks.discard(task)
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    if path is not None:
        listener = await asyncio.start_unix_server(connected, path)
    else:
        listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
        server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()


def config(url: str | None = None, **keys: object) -> HttpConfig:
    """Read the config that a user would have written with these keys."""
    service = {"kind": "http", **({"url": url} if url else {}), **keys}
    read = load_text(json.dumps({"services": {"api": service}})).services["api"]
    assert isinstance(read, HttpConfig)
    return read


def check(url: str | None = None, **keys: object) -> HttpCheck:
    """Make a check of that config."""
    return HttpCheck(config(url, **keys), Network())


async def attempt(checked: Check, *, timeout: float = 5.0) -> Observation:
    """Make one attempt as the monitor does; a deadline ends in the `Failure` that the check left."""
    try:
        async with asyncio.timeout(timeout), checked.connect() as session:
            return await session.probe()
    except TimeoutError as error:
        cause = waited_for(error)
        raise cause or error from None


async def ask(url: str, **keys: object) -> Observation:
    """Make one attempt at ``url``."""
    return await attempt(check(url, **keys))
