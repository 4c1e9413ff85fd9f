"""An HTTP proxy: CONNECT, requests with a whole URL, and Basic authentication. It records what it was asked for."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from support import streams


@dataclass
class HttpProxy:
    """A running proxy. ``login`` is ``user:password`` if it wants one. ``hosts`` are addresses that it knows itself."""

    port: int = 0
    login: str | None = None
    hosts: dict[str, str] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Close every connection."""
        for writer in self.writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            method, target, _ = head.split(" ", 2)
            if self.login is not None and _header(head, "Proxy-Authorization") != _basic(self.login):
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            elif method == "CONNECT":
                host, _, port = target.rpartition(":")
                await self._tunnel(host.strip("[]"), int(port), reader, writer)
                return
            else:
                await self._forward(target, head, reader, writer)

    async def _tunnel(
        self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(self.hosts.get(host, host), port)
        except OSError:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n")
        await streams.join(reader, writer, up_reader, up_writer)

    async def _forward(
        self, target: str, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Forward one request in origin form, without the fields that are for the proxy."""
        url = urlsplit(target)
        assert url.hostname is not None, "a request to a proxy has the whole URL"
        method = head.partition(" ")[0]
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        fields = [line for line in head.split("\r\n")[1:-2] if not line.lower().startswith("proxy-")]
        up_reader, up_writer = await asyncio.open_connection(url.hostname, url.port or 80)
        try:
            up_writer.write("\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode("latin-1"))
            up_writer.write(await reader.readexactly(int(_header(head, "Content-Length") or 0)))
            answer = await up_reader.readuntil(b"\r\n\r\n")
            length = int(_header(answer.decode("latin-1"), "Content-Length") or 0)
            writer.write(answer + await up_reader.readexactly(length))
            await writer.drain()
        finally:
            up_writer.transport.abort()


@asynccontextmanager
async def http_proxy(
    login: str | None = None, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[HttpProxy]:
    """Run a proxy on a free port of the loopback."""
    proxy = HttpProxy(login=login)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy.writers.add(writer)
        try:
            await proxy.serve(reader, writer)
        finally:
            proxy.writers.discard(writer)

    async with streams.serving(connected, tls=tls) as proxy.port:
        yield proxy


def _header(head: str, name: str) -> str | None:
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name.lower():
            return value.strip()
    return None


def _basic(login: str) -> str:
    return "Basic " + b64encode(login.encode()).decode()
