"""Owns one HTTP/1.1 connection: a request goes out over it, an answer comes in, and its making is timed.

There is no client library between it and the socket: those cannot tell the phases apart, bound what they
read, or say whether the first byte of an answer had come when the connection died.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Self, cast

from exporter.check import Failure
from exporter.checks.http_answer import Answer, AnswerReader
from exporter.core.health import Reason
from exporter.net import Link, Network, TlsOptions, failure_from
from exporter.net.adopt import adopt
from exporter.net.certificate import certificate_expiry


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go, and whether over TLS (RFC 9110, section 4.3.1)."""

    tls: bool
    host: str
    port: int

    @property
    def name(self) -> str:
        """The name of the host; that of a Unix socket is localhost."""
        return "localhost" if self.host.startswith("/") else self.host

    @property
    def address(self) -> str:
        """``host:port`` for messages, or the path of a Unix socket."""
        if self.host.startswith("/"):
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class HttpConnection(asyncio.Protocol):
    """A connection to one origin, for one request at a time."""

    def __init__(self, origin: Origin, link: Link) -> None:
        self.link = link
        self.tls_seconds: float | None = None
        self.certificate_expiry: float | None = None
        self.exchanges = 0
        self._where = origin.address
        self._transport: asyncio.Transport  # `open` returns only what has one
        self._reader: AnswerReader | None = None
        self._answered: asyncio.Future[None] | None = None
        self._unasked: Failure | None = None

    @classmethod
    async def open(
        cls, network: Network, origin: Origin, *, tls: TlsOptions | None, server_name: str | None = None
    ) -> Self:
        """Resolve, connect, and do TLS where ``tls`` is given. Raises `Failure`."""
        context = await network.tls_context(tls) if tls is not None else None
        link = await network.dial(origin.host, origin.port)
        dialled = time.perf_counter()
        transport, connection = await adopt(
            link,
            lambda: cls(origin, link),
            tls=context,
            server_name=server_name or origin.name,
            where=origin.address,
        )
        if context is not None:
            connection.tls_seconds = time.perf_counter() - dialled
            connection.certificate_expiry = certificate_expiry(transport.get_extra_info("ssl_object"))
        return connection

    @property
    def usable(self) -> bool:
        """Whether another request may be tried: nobody is known to have closed."""
        return not self._transport.is_closing()

    @property
    def silent(self) -> bool:
        """Whether no byte has come since the last request."""
        return self._reader is None or not self._reader.received

    async def exchange(self, request: bytes, *, body_limit: int, bodyless: bool = False) -> Answer:
        """Send ``request`` and return the answer to it. Raises `Failure`; the connection is then closed.

        ``body_limit`` is in bytes. ``bodyless``: the answer has no body, whatever it says (HEAD).
        """
        self.exchanges += 1
        if self._unasked is not None:
            raise self._unasked
        reader = self._reader = AnswerReader(self._where, body_limit=body_limit, bodyless=bodyless)
        answered = self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            await answered
        except asyncio.CancelledError as cancelled:
            self.abort()
            raise cancelled from reader.unfinished()
        outcome = reader.outcome
        if isinstance(outcome, Answer):
            return outcome
        self.abort()
        raise outcome or Failure(Reason.EOF, f"{self._where} closed the connection")

    def abort(self) -> None:
        """Close at once, with no word to the other end and no waiting for one. Idempotent."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport, for asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take what came, for asyncio."""
        reader = self._reader
        if reader is None or reader.outcome is not None:
            self._unasked = Failure(Reason.PROTOCOL, f"{self._where} said, unasked: {data[:60]!r}")
            self.abort()  # an early 408, or garbage; what comes next could not be trusted
            return
        reader.feed(data)
        if reader.outcome is not None:
            self._settle()
            if not reader.reusable:
                self.abort()

    def eof_received(self) -> None:
        """Take note, for asyncio: the other end sends no more."""
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note, for asyncio: the connection is gone."""
        self._ended(exc)

    def _ended(self, exc: Exception | None) -> None:
        if self._reader is not None and self._reader.outcome is None:
            if isinstance(exc, BrokenPipeError):
                exc = None  # a FIN came before the RST: it had closed, and we wrote nevertheless
            self._reader.end(failure_from(exc, self._where) if exc is not None else None)
            self._settle()

    def _settle(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)
