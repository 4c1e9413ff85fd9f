"""Reads the heads of one HTTP/1.1 response from bytes, up to the first that is not interim. Does no I/O."""

import re
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net.http1.head import Head, Malformed, parse_head, with_irregularities

HEADERS_LIMIT: Final = 64 * 1024
"""Bytes of headers, including those of interim responses."""

HEADER_COUNT_LIMIT: Final = 1000
"""Lines of headers, including those of interim responses. curl stops at 5,000, Apache at 100."""

SLICE: Final = 2048
"""Bytes that are parsed at once. 2 KiB of the shortest interim responses take 0.4 ms."""

_EXCERPT: Final = 32
"""Bytes shown in a message of data that is not HTTP."""

_BEGINNING: Final = b"HTTP/"
_END: Final = re.compile(rb"\n\r?\n")


class NotHttp(Failure):
    """What has arrived is no beginning of a response."""


class HeadReader:
    """Takes bytes until the final head is complete.

    ``where`` names the server in messages; ``tls_scheme`` is what its url begins with if it speaks TLS.
    """

    def __init__(self, where: str, *, tls_scheme: str = "https") -> None:
        self.irregular: dict[str, None] = {}
        """What was irregular in the heads, those of interim responses included, in this order."""
        self._where = where
        self._tls_scheme = tls_scheme
        self._pending = bytearray()  # a part of a head
        self._size = self._lines = 0

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """Take bytes; return the final head once it is complete, and what follows it. Raises `Failure`."""
        if self._size < len(_BEGINNING) and (self._pending or not data.startswith(_BEGINNING)):
            self._check_beginning(bytes(self._pending) + data)
        while data:
            head, data = self._take(data)
            if head is not None and not head.is_interim:
                return head, data
        return None

    def _check_beginning(self, beginning: bytes) -> None:
        if beginning[: len(_BEGINNING)].upper() == _BEGINNING[: len(beginning)]:
            return
        sent = f"it sent {beginning[:_EXCERPT]!r}"
        if beginning[:2] in (b"\x15\x03", b"\x16\x03"):  # TLS: alert or handshake (RFC 8446, section 5.1)
            sent = f"it speaks TLS, so the url must begin with {self._tls_scheme}://"
        raise NotHttp(Reason.PROTOCOL, f"{self._where} does not speak HTTP: {sent}")

    def _take(self, data: bytes) -> tuple[Head | None, bytes]:
        """Take bytes of one head; return it if it is complete, and what follows it."""
        before = len(self._pending)
        if before:
            self._pending += data
            end = _END.search(self._pending, max(0, before - 2))
        else:
            end = _END.search(data)  # most heads arrive whole: without `_pending`, 12 us instead of 16
        taken = end.end() - before if end is not None else len(data)
        self._size += taken
        self._lines += data.count(b"\n", 0, taken)
        if self._lines > HEADER_COUNT_LIMIT + 2:  # the status line and the empty line
            raise self._failure(Reason.TOO_LARGE, f": there are more than {HEADER_COUNT_LIMIT} headers")
        if self._size > HEADERS_LIMIT:
            raise self._failure(
                Reason.TOO_LARGE, f": the headers are longer than {HEADERS_LIMIT // 1024} KiB"
            )
        if end is None:
            if not before:
                self._pending += data
            return None, b""
        received = bytes(self._pending[: end.end()]) if before else data[:taken]
        self._pending.clear()
        return self._parsed(received), data[taken:]

    def _parsed(self, received: bytes) -> Head:
        try:
            head = parse_head(received)
        except Malformed as error:
            raise self._failure(Reason.PROTOCOL, f" violates HTTP: {error}") from error
        if head.irregular:
            self.irregular.update(dict.fromkeys(head.irregular))
        return head

    def _failure(self, reason: Reason, problem: str) -> Failure:
        return Failure(reason, with_irregularities(f"{self._where}{problem}", tuple(self.irregular)))
