"""PostgreSQL's messages, protocol version 3.0: how they are written, split and read. No I/O, no judgement.

The format is described at https://www.postgresql.org/docs/current/protocol-message-formats.html. Whatever a server
sends is read within the limits of this module, in time that does not depend on the number of columns or fields.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from connection_exporter.core.health import Reason

KIB: Final = 1024
MIB: Final = 1024 * KIB


class Limit(NamedTuple):
    """What a server may send in one phase of a session: the types of messages, their number, and bytes."""

    phase: str
    types: frozenset[int]
    messages: int
    size: int


# Types of messages: https://www.postgresql.org/docs/current/protocol-message-formats.html
LOGIN: Final = Limit("before the end of the login", frozenset(b"RESNKvZ"), messages=100, size=64 * KIB)
"""A real server sends about 25 messages and 1 KiB."""

ANSWER: Final = Limit("in one answer", frozenset(b"123ACcDdEGHINnSstTVWZ"), messages=100_000, size=8 * MIB)
"""Rows are counted and dropped, so this limits work, not memory."""

IDLE: Final = Limit("between two probes", frozenset(b"AENS"), messages=1_000, size=256 * KIB)
"""Notifications, errors, notices and changed parameters, which a server may send at any time."""

MESSAGE_SIZE: Final = 1 * MIB
"""Bytes of one message. A message is kept until it is complete, so this limits memory."""

_SLICE: Final = 512
"""Bytes parsed in one go while messages are small: at most 100 of them, about 0.1 ms."""

_PAYLOAD_SLICE: Final = 64 * KIB
"""Bytes taken in one go inside a long message, where they are only copied."""

ERROR: Final = ord("E")
"""ErrorResponse."""

READY: Final = ord("Z")
"""ReadyForQuery, the end of the login and of each answer."""

_OLD_ERROR: Final = 0x20000000
"""The least length that four characters of text may be taken for."""

_HEADER: Final = struct.Struct("!BI")
_INT16: Final = struct.Struct("!H")
_INT32: Final = struct.Struct("!i")
_BOOL_OID: Final = 16


class Violation(Exception):
    """The server has broken the protocol or exceeded a limit. ``message`` completes "the server …"."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def malformed(what: str) -> Violation:
    """Return the violation of a server that does not speak PostgreSQL's protocol."""
    return Violation(Reason.PROTOCOL, f"does not speak PostgreSQL's protocol: {what}")


class MessageSplitter:
    """Splits a stream of bytes into messages: a type, a length that counts itself, and a body.

    `feed` raises `Violation`, and whatever ``handle`` raises; the splitter must not be used after that.
    """

    def __init__(self) -> None:
        self._partial = bytearray()
        self._needed = _HEADER.size
        self._limit = LOGIN
        self._messages = LOGIN.messages
        self._size = LOGIN.size

    @property
    def slice_size(self) -> int:
        """The number of bytes to pass to the next `feed`, so that it takes well under 1 ms."""
        return min(max(self._needed - len(self._partial), _SLICE), _PAYLOAD_SLICE)

    def allow(self, limit: Limit) -> None:
        """Begin a phase in which the server may send as much as ``limit`` says."""
        self._limit, self._messages, self._size = limit, limit.messages, limit.size

    @property
    def is_at_start(self) -> bool:
        """Whether nothing has come in this phase."""
        return self._messages == self._limit.messages and not self._partial

    def feed(self, data: bytes, handle: Callable[[int, bytes], None]) -> int:
        """Take the next bytes, up to a ReadyForQuery, and handle each message that is complete with them.

        ``handle`` takes the type and the body of a message. A splitter that kept it would keep its own owner in memory.
        Return how many bytes were taken: all of them, unless more follow a ReadyForQuery.
        """
        before = len(self._partial)
        if before:
            self._partial += data
            if len(self._partial) < self._needed:
                return len(data)
            data = bytes(self._partial)
            self._partial.clear()
        at: int = 0
        end = len(data)
        self._needed = _HEADER.size
        while end - at >= _HEADER.size:
            kind, length = _HEADER.unpack_from(data, at)
            if kind == ERROR and length >= _OLD_ERROR and self._limit is LOGIN:
                handle(kind, _old_error(data[at + 1 :]))
            if (
                kind not in self._limit.types
                or not 4 <= length <= MESSAGE_SIZE
                or length >= self._size
                or self._messages <= 0
            ):
                raise self._refusal(kind, length)
            after = at + 1 + length
            if after > end:
                self._needed = 1 + length
                break
            self._messages -= 1
            self._size -= 1 + length
            handle(kind, data[at + _HEADER.size : after])
            at = after
            if kind == READY:
                return at - before
        self._partial += data[at:]
        return end - before

    def _refusal(self, kind: int, length: int) -> Violation:
        """Return why a message is not to be waited for."""
        limit = self._limit
        if kind not in limit.types:
            return malformed(f"a message of type {bytes([kind])!r} {limit.phase}")
        if length < 4:
            return malformed(f"a message of length {length}")
        if length > MESSAGE_SIZE:
            return Violation(Reason.TOO_LARGE, f"sent a message of {length} bytes (limit: {MESSAGE_SIZE})")
        if length >= self._size:
            return Violation(Reason.TOO_LARGE, f"sent more than {limit.size} bytes {limit.phase}")
        return Violation(Reason.TOO_LARGE, f"sent more than {limit.messages} messages {limit.phase}")


def _old_error(rest: bytes) -> bytes:
    """Return the fields of an error in the format of version 2, of which ``rest`` is what follows the type.

    All versions of PostgreSQL use it when they cannot start a process for a connection (report_fork_failure_to_client),
    because only such a process would read which version the client speaks.
    """
    text, _, _ = rest.partition(b"\0")
    return b"SFATAL\0M" + text.strip() + b"\0"


def first_values(row: bytes, count: int) -> list[str | None]:
    """Return the first ``count`` values of a DataRow as text, fewer if it has fewer. Raises `Violation`."""
    try:
        (columns,) = _INT16.unpack_from(row)
        at, values = 2, list[str | None]()
        for _ in range(min(columns, count)):
            (length,) = _INT32.unpack_from(row, at)
            at += 4
            if length < 0:
                values.append(None)
                continue
            if at + length > len(row):
                raise malformed("a row ends inside a value")
            values.append(row[at : at + length].decode("utf-8", "replace"))
            at += length
    except struct.error:
        raise malformed("a row ends inside a value") from None
    return values


def first_column_is_boolean(description: bytes) -> bool:
    """Return whether a RowDescription gives the first column the type boolean.

    The name, which ends with a zero byte, the table's OID and the number of the column precede the type's OID.
    """
    name_ends = description.find(b"\0", 2)
    return name_ends > 0 and description[name_ends + 7 : name_ends + 11] == _BOOL_OID.to_bytes(4)


def read_parameter(body: bytes) -> tuple[str, str]:
    """Return the name and the value of a ParameterStatus; both are cut after 100 characters."""
    name, _, rest = body.partition(b"\0")
    value, _, _ = rest.partition(b"\0")
    return name[:100].decode("utf-8", "replace"), value[:400].decode("utf-8", "replace")[:100]


SSL_REQUEST: Final = struct.pack("!II", 8, 80877103)
SYNC: Final = b"S\0\0\0\4"


def startup(user: str, database: str) -> bytes:
    """Return the StartupMessage. Poolers refuse most other parameters."""
    parameters = ("user", user, "database", database, "application_name", "connection-exporter")
    body = b"".join(_text(part) for part in (*parameters, "client_encoding", "UTF8")) + b"\0"
    return struct.pack("!II", 8 + len(body), 3 << 16) + body


def simple_query(sql: str) -> bytes:
    """Return the Query that executes ``sql``, which may be several statements or none."""
    return _message(b"Q", _text(sql))


def prepare(name: str, sql: str) -> bytes:
    """Return the Parse that prepares ``sql`` under ``name`` for the session."""
    return _message(b"P", _text(name) + _text(sql) + b"\0\0") + SYNC


def execute_prepared(name: str) -> bytes:
    """Return the messages that execute a prepared statement without parameters, with results as text."""
    return _bind(name) + _execute(0) + SYNC


def query_one_row(sql: str) -> bytes:
    """Return the messages that execute one statement and fetch one row at most, with the types of its columns."""
    return (
        _message(b"P", b"\0" + _text(sql) + b"\0\0") + _bind("") + _message(b"D", b"P\0") + _execute(1) + SYNC
    )


def password_message(content: bytes) -> bytes:
    """Return the message that answers an authentication request."""
    return _message(b"p", content)


def _bind(name: str) -> bytes:
    return _message(b"B", b"\0" + _text(name) + struct.pack("!HHH", 0, 0, 0))


def _execute(rows: int) -> bytes:
    return _message(b"E", b"\0" + struct.pack("!I", rows))


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", 4 + len(body)) + body


def _text(text: str) -> bytes:
    return text.encode() + b"\0"
