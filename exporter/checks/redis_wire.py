"""Owns what arrives from Redis: a bounded parser, errors in our words, and the moment that the link ends.

Nothing here sends.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from redis._parsers import _AsyncRESP2Parser
from redis.exceptions import InvalidResponse, RedisError

from exporter.check import Failure
from exporter.core.health import Reason
from exporter.net import failure_from

_LARGEST_ANSWER: Final = 1024 * 1024
"""Bytes. INFO takes 5 KB, and some 20 KB with many modules."""

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
_BY_TEXT: Final = (
    ("ERR max number of clients", Reason.SLOTS_FULL),
    ("ERR invalid password", Reason.AUTH),
    ("ERR invalid username", Reason.AUTH),
    ("ERR AUTH", Reason.AUTH),
    ("ERR Client sent AUTH", Reason.AUTH),
    ("ERR wrong number of arguments for 'auth'", Reason.AUTH),
    ("ERR operation not permitted", Reason.AUTH),
    ("ERR DB index is out of range", Reason.MISSING),
    ("ERR invalid DB index", Reason.MISSING),
    ("ERR SELECT is not allowed in cluster mode", Reason.MISSING),
    ("ERR Protocol error", Reason.PROTOCOL),
)
ERRORS: Final = frozenset({Reason.QUERY, *_BY_CODE.values(), *(reason for _, reason in _BY_TEXT)})
"""What an error of Redis can mean."""

_FATAL: Final = frozenset({Reason.AUTH, Reason.SLOTS_FULL, Reason.PROTOCOL})


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that Redis answered with: it is there, and says no. Fatal, where there is nothing to hold."""

    reason: Reason
    line: str
    fatal: bool


def refusal_of(error: Exception) -> Refusal | None:
    """Return what the server said, or ``None`` where ``error`` is redis-py's own."""
    code = getattr(error, "status_code", None)
    if code is None:
        return None
    line = str(error)
    by_text = (reason for beginning, reason in _BY_TEXT if line.startswith(beginning))
    reason = _BY_CODE.get(code) or next(by_text, Reason.QUERY)
    return Refusal(reason, line[:300], reason in _FATAL or code == "DENIED")


class Parser(_AsyncRESP2Parser):
    """redis-py's parser, but bounded, and with errors that keep their whole line and their code."""

    @classmethod
    def parse_error(cls, response: str) -> Exception:
        """Return the exception for an error line."""
        error: RedisError = super().parse_error(response)  # type: ignore[no-untyped-call]
        error.args = (response,)
        error.status_code = response.partition(" ")[0]
        return error

    async def _read(self, length: int) -> bytes:
        if not 0 <= length <= _LARGEST_ANSWER:
            raise InvalidResponse(f"an answer of {length} bytes")
        return await super()._read(length)

    async def _readline(self) -> bytes:
        line = await super()._readline()
        if line[:1] == b"*":  # nothing that we ask is answered by a list, which could be without end
            raise InvalidResponse("a list where none was asked for")
        return line


class Wire(asyncio.StreamReaderProtocol):
    """The protocol below redis-py: notes at once how the link ended, and what the server said unasked."""

    def __init__(self, address: str) -> None:
        self.reader = asyncio.StreamReader()
        super().__init__(self.reader)
        self.lost: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self.ended: Failure | None = None
        self.forgotten = False
        self._address = address
        self._listening = True
        self._last_words: Refusal | None = None

    def listen(self) -> None:
        """Take what comes as answers."""
        self._listening = True

    def rest(self) -> None:
        """Expect nothing: what comes now is out of turn."""
        self._listening = False
        self._last_words = None

    def forget(self) -> None:
        """Say nothing of what happens from now on."""
        self.forgotten = self.forgotten or self.ended is None
        self.ended = self.ended or Failure(Reason.EOF, f"{self._address}: closed by us")

    def data_received(self, data: bytes) -> None:
        """Keep an error, which may be the last that the server says, before anybody reads it."""
        if data[:1] == b"-":
            line = data[1:].partition(b"\r\n")[0].decode("utf-8", "replace")
            self._last_words = refusal_of(Parser.parse_error(line))
        if not self._listening:
            words = self._last_words
            reason, said = (words.reason, words.line) if words else (Reason.PROTOCOL, repr(data[:60]))
            self._end(Failure(reason, f"{self._address} said, unasked: {said}"))
        super().data_received(data)

    def eof_received(self) -> bool:
        """Note a clean end, and let the transport close."""
        super().eof_received()
        self._end(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note any other end."""
        self._end(exc)
        super().connection_lost(None)  # an exception here would hide what is still to be read

    def _end(self, exc: Exception | None) -> None:
        if self.ended is not None:
            return
        words = self._last_words
        if words is not None and words.fatal:
            self.ended = Failure(words.reason, f"{self._address}: {words.line}")
        else:
            failure = failure_from(exc, self._address) if exc else None
            self.ended = failure or self._clean_close()
        self.lost.set_result(self.ended)

    def _clean_close(self) -> Failure:
        """Tell a clean close while nothing was asked from one that leaves a question without an answer."""
        if self._listening:
            return Failure(Reason.EOF, f"{self._address} closed the connection")
        return Failure(Reason.IDLE_CLOSED, f"{self._address} closed the idle connection")
