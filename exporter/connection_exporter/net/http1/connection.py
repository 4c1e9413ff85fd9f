"""One HTTP/1.1 connection: sends a request, reads the response, one at a time.

No client library is used, because none reports the phases separately, limits what it reads, and says whether the
first byte of a response had arrived when the connection ended.
"""

import asyncio
from typing import Self

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net.dial import Link
from connection_exporter.net.endpoint import Endpoint
from connection_exporter.net.failures import failure_from
from connection_exporter.net.http1.known import KnownHead
from connection_exporter.net.http1.reader import SLICE
from connection_exporter.net.http1.response import Response, ResponseParser
from connection_exporter.net.pacing import PacedProtocol, Pacer


class HttpConnection(PacedProtocol):
    """A connection to one server. ``where`` names it in messages."""

    def __init__(self, where: str, pacer: Pacer) -> None:
        self.link: Link  # set by `open`
        self.exchanges = 0
        self._where = where
        self._loop = asyncio.get_running_loop()  # which takes a system call each time before Python 3.12
        super().__init__(pacer)
        self._parser: ResponseParser | None = None
        self._answered: asyncio.Future[None] | None = None
        self._ended: Failure | None = None

    @classmethod
    async def open(cls, endpoint: Endpoint, pacer: Pacer) -> Self:
        """Connect through ``endpoint``. Raises `Failure`."""
        link, connection = await endpoint.connect(lambda: cls(endpoint.where, pacer))
        connection.link = link
        return connection

    @property
    def usable(self) -> bool:
        """Whether another request may be sent: neither side has closed, and nothing unsolicited has arrived."""
        return not self.transport.is_closing() and not self._paced.pending

    @property
    def silent(self) -> bool:
        """Whether no byte has arrived since the last request."""
        return self._parser is None or not self._parser.received

    async def exchange(
        self, request: bytes, *, body_limit: int, bodyless: bool = False, known: KnownHead | None = None
    ) -> Response:
        """Send ``request`` and return the response. Raises `Failure`, with the connection closed.

        ``body_limit`` is in bytes. ``bodyless``: the response has no body, whatever its headers say (HEAD). ``known``
        is the usual head of the responses to this request.
        """
        self.exchanges += 1
        if self._ended is not None:
            raise self._ended
        parser = self._parser = ResponseParser(
            self._where, body_limit=body_limit, bodyless=bodyless, known=known
        )
        answered = self._answered = self._loop.create_future()
        if not self.transport.is_closing():  # uvloop raises RuntimeError
            self.transport.write(request)
        try:
            await answered
        except asyncio.CancelledError as cancelled:
            self.abort()
            raise cancelled from parser.timeout()
        outcome = parser.outcome
        if isinstance(outcome, Response):
            self._parser = None  # it has the body
            return outcome
        self.abort()
        raise outcome or Failure(Reason.EOF, f"{self._where} closed the connection")

    def _slice_size(self) -> int:
        return self._parser.slice_size if self._parser is not None else SLICE

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        if parser is None or parser.outcome is not None:
            # an early 408, or garbage: a response to the next request could not be distinguished from it
            self._ended = Failure(
                Reason.PROTOCOL, f"{self._where} sent data before the request: {data[:60]!r}"
            )
            self.abort()
            return
        parser.feed(data)
        if parser.outcome is not None:
            self._settle()
            if not parser.reusable or self._paced.pending:
                self.abort()

    def _end_of(self, exc: Exception | None) -> None:
        if isinstance(exc, BrokenPipeError):
            exc = None  # the server had closed cleanly, and our write came later
        failure = failure_from(exc, self._where) if exc is not None else None
        if self._parser is not None and self._parser.outcome is None:
            self._parser.end(failure)
            self._settle()
        elif self._ended is None:
            closed = f"{self._where} closed the connection without a response"
            self._ended = failure or Failure(Reason.EOF, closed)

    def _settle(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)
