"""Owns the reading of one HTTP/1.1 answer from bytes: bounded in every direction, timed, and without I/O.

The parser is llhttp, by httptools. What it leaves open is settled here: interim answers, answers to HEAD,
bodies that end with the connection, and limits (RFC 9112, section 6.3).
"""

import time
from dataclasses import dataclass
from typing import Final

import httptools

from exporter.check import Failure
from exporter.core.health import Reason

HEADERS_LIMIT: Final = 64 * 1024
"""Bytes of headers, those of interim answers included, after which an answer is given up."""

_FRAMING: Final = 8
"""The wire may carry this many times the body's limit: a chunk of one byte takes six."""

_SHOWN: Final = 32
"""Bytes of what is no HTTP that a message shows."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came; names of headers are in lower case, durations in seconds.

    ``complete`` is false where the body is larger than the limit; ``body`` is then what came of it.
    """

    status: int
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    complete: bool
    processing_seconds: float
    transfer_seconds: float

    def header(self, name: str) -> str | None:
        """Return the value of a header, several of that name joined by commas, or ``None``."""
        wanted = name.lower().encode("latin-1", "replace")
        values = [value for key, value in self.headers if key == wanted]
        return b", ".join(values).decode("latin-1") if values else None


class AnswerReader:
    """Takes bytes until ``outcome`` is there: the answer, or the failure to give one."""

    def __init__(self, where: str, *, body_limit: int, bodyless: bool) -> None:
        """Begin, as the request is sent. ``bodyless``: no body, whatever the headers say (HEAD)."""
        self.outcome: Answer | Failure | None = None
        self.reusable = False
        self.received = 0
        self._where = where
        self._body_limit = body_limit
        self._bodyless = bodyless
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._status = 0
        self._until_eof = False
        self._sent_at = time.perf_counter()
        self._began_at = 0.0

    def feed(self, data: bytes) -> None:
        """Take what came. Never raises."""
        if not self.received:
            self._began_at = time.perf_counter()
            if not data.startswith((b"HTTP/", b"HTTP/"[: len(data)])):
                self.outcome = Failure(Reason.PROTOCOL, f"{self._where} does not speak HTTP: {_told(data)}")
                return
        self.received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._finish(complete=True)
        except httptools.HttpParserError as error:
            if self.outcome is None:
                self.outcome = Failure(Reason.PROTOCOL, f"{self._where} broke HTTP's rules: {error}")
            self.reusable = False
        if self.outcome is None:
            self._hold_to_limits()

    def end(self, failure: Failure | None) -> None:
        """Take the end of the connection: a clean one, or what happened."""
        if self.outcome is not None:
            return
        if failure is None and self._until_eof:
            self._finish(complete=True)
        elif failure is None and not self.received:
            self.outcome = Failure(Reason.EOF, f"{self._where} closed the connection with no answer")
        else:
            self.outcome = failure or Failure(
                Reason.EOF, f"{self._where} closed the connection in mid-answer, after {self.received} bytes"
            )

    def unfinished(self) -> Failure:
        """Say what was waited for when the deadline struck."""
        if not self.received:
            return Failure(Reason.TIMEOUT, f"{self._where} does not answer the request")
        part = f"{self._body_bytes} bytes of the body" if self._status else "a part of the headers"
        return Failure(Reason.TIMEOUT, f"{self._where} did not end its answer: {part} came")

    def on_message_begin(self) -> None:
        """Take note, for httptools: an answer begins, or something follows one."""
        self.reusable = False  # what follows an answer, nobody asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, for httptools."""
        if not self._status:  # and not of a trailer
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Decide, for httptools, what is still to come."""
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            self._headers.clear()  # interim: the answer is still to come (RFC 9110, section 15.2)
            return
        if self.outcome is not None:
            return
        self._status = status
        length = _value(self._headers, b"content-length")
        chunked = b"chunked" in (_value(self._headers, b"transfer-encoding") or b"").lower()
        if self._bodyless or status in (204, 304):
            # llhttp would wait for a body here, and so cannot tell whether the connection is kept
            connection = (_value(self._headers, b"connection") or b"").lower()
            self.reusable = b"close" not in connection and self._parser.get_http_version() != "1.0"
            self._finish(complete=True)
        elif length is not None and not chunked:
            if int(length) > self._body_limit:
                self._finish(complete=False)
        else:
            self._until_eof = not chunked

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, for httptools."""
        if self.outcome is not None:
            self.reusable = False  # a body where none may be: more of it may follow
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._body_limit:
            self._finish(complete=False)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Take note, for httptools: the answer is whole, unless it was an interim one."""
        if self._status and self.outcome is None:
            self._finish(complete=True)
            self.reusable = self._parser.should_keep_alive()

    def _hold_to_limits(self) -> None:
        if not self._status:
            if self.received > HEADERS_LIMIT:
                text = f"{self._where}: the headers are longer than {HEADERS_LIMIT // 1024} KiB"
                self.outcome = Failure(Reason.TOO_LARGE, text)
        elif self.received > HEADERS_LIMIT + _FRAMING * self._body_limit:
            self._finish(complete=False)

    def _finish(self, *, complete: bool) -> None:
        self.outcome = Answer(
            status=self._status or self._parser.get_status_code(),
            version=self._parser.get_http_version(),
            headers=tuple(self._headers),
            body=b"".join(self._body),
            complete=complete,
            processing_seconds=self._began_at - self._sent_at,
            transfer_seconds=time.perf_counter() - self._began_at,
        )


def _told(data: bytes) -> str:
    if data[:2] in (b"\x15\x03", b"\x16\x03"):
        return "it speaks TLS, so the url begins with https://"
    return f"it sent {data[:_SHOWN]!r}"


def _value(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    for key, value in headers:
        if key == name:
            return value
    return None
