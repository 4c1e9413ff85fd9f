"""Owns what comes from Redis: replies within limits, and what error replies mean. Does no I/O.

hiredis parses the replies. It trusts the lengths that a server announces: for ``*2147483647`` it reserves 16 GiB of
address space, and for a push of ten million elements it fills 80 MB before the first element has come. So each
length is checked before hiredis is fed with it. The format is RESP2:
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

import re
from dataclasses import dataclass
from typing import Final

import hiredis

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure

REPLY_LIMIT: Final = 1024 * 1024
"""Bytes of one reply. INFO takes 5 KB, and some 50 more for each database that holds a key."""

LINE_LIMIT: Final = 16 * 1024
"""Bytes of a line: a status, an error, a number or a length."""

ELEMENT_LIMIT: Final = 256
"""Elements of one reply, those of nested arrays included."""

DEPTH_LIMIT: Final = 7
"""Arrays within each other."""

# The first word of an error is its code: https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors
_BY_CODE: Final = {
    "LOADING": Reason.STARTING,
    "NOAUTH": Reason.AUTH,
    "WRONGPASS": Reason.AUTH,
    "NOPERM": Reason.PERMISSION,
    "DENIED": Reason.PERMISSION,  # protected mode
    "MOVED": Reason.REDIRECT,
    "ASK": Reason.REDIRECT,
    "MISDIRECTED": Reason.REDIRECT,
    "READONLY": Reason.ROLE,
    "MASTERDOWN": Reason.ROLE,
    "BUSY": Reason.SLOW,  # a script blocks the server
}
WRONG_NUMBER: Final = "ERR wrong number of arguments for 'auth'"
"""The error of a Redis before 6.0 to AUTH with a user. AUTH with the password alone may follow."""

# Errors that share the code ERR differ only in their text.
_BY_TEXT: Final = (
    ("ERR max number of clients", Reason.SLOTS_FULL),
    ("ERR invalid password", Reason.AUTH),
    ("ERR invalid username", Reason.AUTH),
    ("ERR AUTH", Reason.AUTH),
    ("ERR Client sent AUTH", Reason.AUTH),
    (WRONG_NUMBER, Reason.AUTH),
    ("ERR operation not permitted", Reason.AUTH),
    ("ERR DB index is out of range", Reason.MISSING),
    ("ERR invalid DB index", Reason.MISSING),
    ("ERR SELECT is not allowed in cluster mode", Reason.MISSING),
    ("ERR Protocol error", Reason.PROTOCOL),
)
REFUSALS: Final = frozenset({Reason.QUERY, *_BY_CODE.values(), *(reason for _, reason in _BY_TEXT)})
"""The reasons that an error reply can have."""

_TYPES: Final = (b"+", b"-", b":", b"$", b"*")
"""The types of RESP2. A server sends those of RESP3, such as pushes and attributes, only after HELLO 3."""

_PONG: Final = b"+PONG\r\n"
_PONG_AND_LENGTH: Final = re.compile(rb"\+PONG\r\n\$([1-9][0-9]{0,5})\r\n")

_FATAL: Final = frozenset({Reason.AUTH, Reason.SLOTS_FULL, Reason.PROTOCOL})
_LONGEST_MESSAGE: Final = 300
_INCOMPLETE: Final = object()


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error reply: the server is alive and refuses. After a ``fatal`` one the connection is of no use."""

    reason: Reason
    line: str
    fatal: bool


Reply = bytes | int | list[object] | Refusal | None


def refusal_of(line: str) -> Refusal:
    """Return what an error reply means; ``line`` is the reply without its ``-``."""
    code = line.partition(" ")[0]
    by_text = (reason for beginning, reason in _BY_TEXT if line.startswith(beginning))
    reason = _BY_CODE.get(code) or next(by_text, Reason.QUERY)
    fatal = code == "DENIED" or (reason in _FATAL and not line.startswith(WRONG_NUMBER))
    return Refusal(reason, line[:_LONGEST_MESSAGE] or "an error without a text", fatal)


def _next(parser: hiredis.Reader) -> Reply:
    reply: Reply | hiredis.ReplyError = parser.gets()
    return refusal_of(str(reply)) if isinstance(reply, hiredis.ReplyError) else reply


def _usual_replies(data: bytes) -> list[Reply] | None:
    """Return the replies if ``data`` is the whole of what a healthy server sends: PONG, and INFO if it is asked for."""
    if data == _PONG:
        return [b"PONG"]
    if (header := _PONG_AND_LENGTH.match(data)) is None:
        return None
    begin, end = header.end(), header.end() + int(header[1])
    return [b"PONG", data[begin:end]] if data[end:] == b"\r\n" else None


class ReplyReader:
    """Turns bytes into replies. ``where`` names the server in failures."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._parser: hiredis.Reader | None = None
        self._line = b""
        self._payload = 0
        self._missing: list[int] = []  # elements of each array that is open, the outermost first
        self._elements = 0
        self._size = 0

    @property
    def payload(self) -> int:
        """Bytes of a bulk string that are still to come."""
        return self._payload

    def feed(self, data: bytes, *, at_most: int) -> list[Reply]:
        """Return the replies that ``data`` completes. Raises `Failure`, also for more than ``at_most`` replies.

        An error reply after which the connection is of no use is a `Failure` as well.
        """
        # Between two replies there is no parser. The usual replies need none, which saves 400 of 480 opcodes.
        if self._parser is None and (usual := _usual_replies(data)) is not None and len(usual) <= at_most:
            return usual
        complete = self._check(data, at_most)
        parser = self._parser or hiredis.Reader(notEnoughData=_INCOMPLETE)
        # A parser keeps its buffer: 11 KiB for each service, after INFO. A new one takes 1.5 us.
        self._parser = parser if self._size or self._line else None
        try:
            parser.feed(data)
            replies = [_next(parser) for _ in range(complete)]
        except hiredis.ProtocolError as error:
            raise self._not_redis(str(error)) from error
        for reply in replies:
            if isinstance(reply, Refusal) and reply.fatal:
                raise Failure(reply.reason, f"{self._where}: {reply.line}")
        return replies

    def _check(self, data: bytes, at_most: int) -> int:
        """Follow the lengths in ``data``, and return how many replies it completes. Raises `Failure`."""
        complete = at = 0
        while at < len(data):
            if self._payload:
                step = min(self._payload, len(data) - at)
                self._payload -= step
                at += step
                ended = self._payload == 0
            else:
                if complete == at_most:
                    raise Failure(Reason.PROTOCOL, f"{self._where} sends more replies than were requested")
                end = data.find(b"\n", at) + 1 or len(data)
                line = self._line + data[at:end]
                at = end
                if line[:1] not in _TYPES:
                    raise self._not_redis(f"{line[:40]!r} begins no reply of RESP2")
                if len(line) > LINE_LIMIT:
                    raise self._not_redis(f"a line of more than {LINE_LIMIT} bytes")
                if not line.endswith(b"\n"):
                    self._line = line
                    break
                self._line = b""
                ended = self._header(line)
            if ended:
                complete += self._element_ended()
        return complete

    def _header(self, line: bytes) -> bool:
        """Take a whole line, and return whether it completes an element. Raises `Failure`."""
        if not line.endswith(b"\r\n"):
            raise self._not_redis("a line does not end with CR LF")
        kind = line[:1]
        length = 0
        if kind in b"$*":
            length = self._length(line[1:-2])
            if kind == b"$" and length >= 0:
                self._payload = length + len(b"\r\n")
            if kind == b"*" and length > 0:
                self._missing.append(length)
                self._elements += length
        self._size += len(line) + self._payload
        if self._size > REPLY_LIMIT:
            raise Failure(Reason.TOO_LARGE, f"{self._where} sends a reply of more than {REPLY_LIMIT} bytes")
        if self._elements > ELEMENT_LIMIT or len(self._missing) > DEPTH_LIMIT:
            raise self._not_redis("an array of a size that no reply to our commands has")
        return kind in b"+-:" or length < 0 or (kind == b"*" and length == 0)

    def _length(self, digits: bytes) -> int:
        """Return the length that a header announces; -1 is a null."""
        if digits == b"-1":
            return -1
        if not digits.isdigit():
            raise self._not_redis(f"{digits[:40]!r} is no length")
        return int(digits) if len(digits) < 10 else REPLY_LIMIT + 1

    def _element_ended(self) -> bool:
        """Count an element of the innermost array, and return whether the whole reply is complete."""
        while self._missing:
            self._missing[-1] -= 1
            if self._missing[-1]:
                return False
            self._missing.pop()
        self._elements = self._size = 0
        return True

    def _not_redis(self, why: str) -> Failure:
        return Failure(Reason.PROTOCOL, f"{self._where} does not speak Redis' protocol: {why}")
