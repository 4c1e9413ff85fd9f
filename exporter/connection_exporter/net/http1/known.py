"""Recognizes a head that differs from one before in its date alone, and so need not be parsed again. Does no I/O."""

import re
from typing import Final

from connection_exporter.net.http1.head import Framing, Head

_DATE: Final = re.compile(rb"\r\n[Dd]ate: ([A-Z][A-Za-z0-9 ,:]{27}T)(?=\r\n)")  # RFC 9110, section 5.6.7

_KEPT_OF: Final = 8
"""Of so many heads in a row that have to be parsed, the second is kept: the first may be an exception. No other is,
because a server may never send the same head again."""


class KnownHead:
    """The usual head of the responses to one request, if it is regular and has a date.

    Most servers send the same head each time, except for its date. To recognize it takes 80 opcodes, to parse it 600
    with four headers.
    """

    def __init__(self) -> None:
        self._kept: tuple[bytes, bytes, Head, Framing, int] | None = None
        """What precedes the line of the date and what follows it, the head, and which of its headers is the date."""
        self._parsed = 0

    def keep(self, received: bytes, head: Head, framing: Framing) -> None:
        """Keep a head, if it can be recognized. ``received`` are its bytes, and those of interim heads before it."""
        self._parsed += 1
        if self._kept is not None and self._parsed % _KEPT_OF != 2:
            return
        date = _DATE.search(received)
        # If there are as many lines as headers, no header is folded, and there was no interim head.
        if date is not None and not head.irregular and received.count(b"\n") == len(head.headers) + 2:
            start = received[: date.start()]
            self._kept = start, received[date.end() :], head, framing, start.count(b"\n")

    def recognize(self, data: bytes) -> tuple[Head, Framing, bytes] | None:
        """Return what parsing ``data`` would: head, framing, and what follows. ``None`` if it has to be parsed."""
        if self._kept is None:
            return None
        start, rest, head, framing, number = self._kept
        if not data.startswith(start):
            return None
        date = _DATE.match(data, len(start))
        if date is None or not data.startswith(rest, date.end()):
            return None
        self._parsed = 0
        headers = head.headers.copy()
        headers[number] = (b"date", date[1])
        recognized = Head(head.status, head.version, head.phrase, headers, [])
        return recognized, framing, data[date.end() + len(rest) :]
