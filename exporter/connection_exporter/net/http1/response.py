"""Reads one HTTP/1.1 response from bytes: interim responses, head, body, and limits on each. Does no I/O."""

import time
from collections.abc import Iterable
from itertools import chain
from typing import Final, NamedTuple

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net.http1.chunks import Chunks
from connection_exporter.net.http1.head import Framing, Head, Malformed, framing_of, with_irregularities
from connection_exporter.net.http1.known import KnownHead
from connection_exporter.net.http1.reader import HEADERS_LIMIT, SLICE, HeadReader, NotHttp

FRAMING_FACTOR: Final = 8
"""A response may take this many times the body limit on the wire: a chunk of one byte takes six bytes."""

_LARGEST_SLICE: Final = 64 * 1024
"""Bytes that are parsed at once where they can only be one piece of body."""


class Response(NamedTuple):
    """A response. Header names are in lower case; durations are in seconds.

    ``complete`` is false if the body is larger than the limit; ``body`` is then the part that was read. ``irregular``
    says what a lenient parser had to accept.
    """

    status: int
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    complete: bool
    processing_seconds: float
    transfer_seconds: float
    irregular: tuple[str, ...] = ()

    def values(self, name: str) -> list[bytes]:
        """Return the values of all headers of one name."""
        wanted = name.lower().encode("latin-1", "replace")
        if wanted not in dict(self.headers):  # a tenth of the opcodes of the search
            return []
        return [value for key, value in self.headers if key == wanted]

    def header(self, name: str) -> str | None:
        """Return the value of a header, or ``None``. Several headers of one name are joined by commas."""
        values = self.values(name)
        return b", ".join(values).decode("latin-1") if values else None


class ResponseParser:
    """Takes bytes until ``outcome`` is set: the response, or the failure to give one."""

    def __init__(
        self, where: str, *, body_limit: int, bodyless: bool, known: KnownHead | None = None
    ) -> None:
        """Start when the request is sent. ``bodyless``: there is no body, whatever the headers say (HEAD).

        ``known`` is the usual head of the responses to this request.
        """
        self.outcome: Response | Failure | None = None
        self.reusable = False
        """Whether the connection can be used again: the response ended, and nothing followed it."""
        self.received = 0
        self._where = where
        self._body_limit = body_limit
        self._bodyless = bodyless
        self._known = known
        self._heads: HeadReader | None = None
        self._head: Head | None = None
        self._framing: Framing | None = None
        self._chunks: Chunks | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._sent_at = time.perf_counter()
        self._first_byte_at = 0.0

    @property
    def slice_size(self) -> int:
        """How many bytes `feed` may be given at once without taking longer than a millisecond."""
        if self._framing is None:
            return SLICE
        if self._chunks is not None:
            left = self._chunks.left
        elif self._framing.length is None:
            return _LARGEST_SLICE
        else:
            left = self._framing.length - self._body_bytes
        return min(max(left, SLICE), _LARGEST_SLICE)

    def feed(self, data: bytes) -> None:
        """Parse ``data``. Never raises."""
        if not self.received:
            self._first_byte_at = time.perf_counter()
        self.received += len(data)
        try:
            if self._framing is None:
                data = self._feed_head(data)
            if data and self.outcome is None:
                data = self._feed_body(data)
        except Malformed as error:
            self.outcome = self._failure(Reason.PROTOCOL, f"{self._where} violates HTTP: {error}")
            self.reusable = False
        except NotHttp as failure:
            self.received, self.outcome = 0, failure  # nothing of a response has arrived
        except Failure as failure:
            self.outcome = failure
        if self.outcome is None and self.received > HEADERS_LIMIT + FRAMING_FACTOR * self._body_limit:
            self._finish(complete=False)
        self.reusable = self.reusable and not data

    def end(self, failure: Failure | None) -> None:
        """Note the end of the connection: a clean one, or the failure."""
        if self.outcome is not None:
            return
        until_eof = self._framing is not None and self._framing.length is None and not self._framing.chunked
        if failure is None and until_eof:
            self._finish(complete=True)
        elif failure is not None:
            self.outcome = self._failure(failure.reason, failure.message)
        elif not self.received:
            self.outcome = Failure(Reason.EOF, f"{self._where} closed the connection without a response")
        else:
            self.outcome = self._failure(
                Reason.EOF,
                f"{self._where} closed the connection in the middle of the response, after {self.received} bytes",
            )

    def timeout(self) -> Failure:
        """Return the failure that says what was missing at the deadline."""
        if not self.received:
            return Failure(Reason.TIMEOUT, f"{self._where} does not respond to the request")
        part = f"{self._body_bytes} bytes of the body" if self._framing else "a part of the headers"
        return self._failure(
            Reason.TIMEOUT, f"{self._where} did not finish its response: only {part} arrived"
        )

    def _feed_head(self, data: bytes) -> bytes:
        """Take bytes of a head, and return what follows it."""
        known = self._known if self._heads is None else None
        found = (known is not None and known.recognize(data)) or self._parse_head(data)
        if found is None:
            return b""
        self._head, framing, rest = found
        self._framing = framing
        if framing.chunked:
            self._chunks = Chunks()
        elif framing.length == 0:
            self._finish(complete=True)
        elif framing.length is not None and framing.length > self._body_limit:
            self._finish(complete=False)
        return rest

    def _parse_head(self, data: bytes) -> tuple[Head, Framing, bytes] | None:
        if self._heads is None:
            self._heads = HeadReader(self._where)
        found = self._heads.feed(data)
        if found is None:
            return None
        self._head, rest = found  # whose irregularities a failure shows
        framing = framing_of(self._head, bodyless=self._bodyless)
        if self._known is not None and self.received == len(data):
            self._known.keep(data.removesuffix(rest), self._head, framing)
        return self._head, framing, rest

    def _feed_body(self, data: bytes) -> bytes:
        """Take bytes of the body, and return what follows it."""
        framing = self._framing
        assert framing is not None
        if self._chunks is not None:
            self._take(self._chunks.feed(data))
            if self._chunks.too_long:
                self._finish(complete=False)
            elif self._chunks.ended and self.outcome is None:
                self._finish(complete=True)
            return self._chunks.rest
        if framing.length is None:
            self._take([data])
            return b""
        piece = data[: framing.length - self._body_bytes]  # within the limit, as the length is
        self._body.append(piece)
        self._body_bytes += len(piece)
        if self._body_bytes == framing.length:
            self._finish(complete=True)
        return data[len(piece) :]

    def _take(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self._body_bytes += len(piece)
            if self._body_bytes > self._body_limit:
                self._finish(complete=False)
                return
            self._body.append(piece)

    def _finish(self, *, complete: bool) -> None:
        assert self._head is not None
        assert self._framing is not None
        self.reusable = complete and self._framing.keeps_connection
        self.outcome = Response(
            status=self._head.status,
            version=self._head.version,
            headers=tuple(self._head.headers),
            body=b"".join(self._body),
            complete=complete,
            processing_seconds=self._first_byte_at - self._sent_at,
            transfer_seconds=time.perf_counter() - self._first_byte_at,
            irregular=self._irregular,
        )

    @property
    def _irregular(self) -> tuple[str, ...]:
        parts = (self._heads, self._head, self._chunks)
        noted = [part.irregular for part in parts if part is not None and part.irregular]
        return tuple(dict.fromkeys(chain.from_iterable(noted))) if noted else ()

    def _failure(self, reason: Reason, message: str) -> Failure:
        return Failure(reason, with_irregularities(message, self._irregular))
