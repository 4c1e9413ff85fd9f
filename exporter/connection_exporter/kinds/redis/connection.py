"""Owns one connection to Redis: requests, their replies, and the moment and the reason of its end.

It never retries or reconnects. It reads all the time, so the end of the connection is known at once.
"""

import asyncio
from typing import Final, NamedTuple, Self

import hiredis

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.redis.protocol import WRONG_NUMBER, Refusal, Reply, ReplyReader, refusal_of
from connection_exporter.net import failure_from
from connection_exporter.net.pacing import PacedProtocol, Pacer

_SLICE: Final = 16 * 1024
"""Bytes that are parsed in one go: more than a usual INFO, and half a millisecond of the smallest elements."""

_SLICE_OF_PAYLOAD: Final = 64 * 1024
"""The same in the middle of a bulk string, which costs no more than a copy."""


class Request(NamedTuple):
    """Commands that go out together; each has one reply."""

    names: tuple[str, ...]
    wire: bytes

    @classmethod
    def of(cls, *commands: tuple[str, ...]) -> Self:
        """Pack ``commands``, each with its arguments."""
        return cls(tuple(c[0] for c in commands), b"".join(_packed(c) for c in commands))


class RedisConnection(PacedProtocol):
    """A connection, for one request at a time. ``where`` names the server in failures."""

    _is_closed_by_owner = True

    def __init__(self, where: str, pacer: Pacer) -> None:
        self.lost: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self._where = where
        super().__init__(pacer)
        self._reader = ReplyReader(where)
        self._replies: list[Reply] = []
        self._expected = 0
        self.is_idle = False
        """Whether nothing more is expected until the next request, so that a clean close is `idle_closed`."""
        self._ended: Failure | None = None
        self._waiter: asyncio.Future[Failure | None] | None = None

    async def exchange(self, request: Request) -> list[Reply]:
        """Send ``request``, and return the reply to each of its commands. Raises `Failure` if the connection ends.

        When it is cancelled, the exception names the commands that have had no reply.
        """
        if self._ended is not None or self.transport.is_closing():
            raise self._ended or Failure(Reason.EOF, f"{self._where}: the connection is closed")
        self._replies, self._expected, self.is_idle = [], len(request.names), False
        self._waiter = self.lost.get_loop().create_future()
        self.transport.write(request.wire)  # a few bytes; the missing reply shows if they do not arrive
        try:
            failure = await self._waiter
        except asyncio.CancelledError as cancelled:
            missing = ", ".join(request.names[len(self._replies) :]) or request.names[-1]
            raise cancelled from Failure(Reason.TIMEOUT, f"{self._where} does not answer {missing}")
        if failure is not None:
            raise failure
        replies, self._replies, self._expected = self._replies, [], 0  # INFO takes 4 KiB until the next probe
        return replies

    async def log_in(self, user: str | None, password: str | None, database: int) -> None:
        """Authenticate, and select the database. Raises `Failure`."""
        if user is not None or password is not None:
            reply = await self._ask("AUTH", *([] if user is None else [user]), password or "")
            if user is not None and isinstance(reply, Refusal) and reply.line.startswith(WRONG_NUMBER):
                reply = await self._ask("AUTH", password or "")  # before 6.0 there are no users
            self._accept("AUTH", reply)
        if database != 0:
            self._accept("SELECT", await self._ask("SELECT", str(database)))

    def abort(self) -> None:
        """Close at once, and send nothing more. Idempotent."""
        self._ended = self._ended or Failure(Reason.EOF, f"{self._where}: closed by the exporter")
        super().abort()

    async def _ask(self, *command: str) -> Reply:
        [reply] = await self.exchange(Request.of(command))
        return reply

    def _accept(self, command: str, reply: Reply) -> None:
        if isinstance(reply, Refusal):
            raise Failure(reply.reason, f"{self._where}: {reply.line}")
        if reply != b"OK":
            raise Failure(Reason.PROTOCOL, f"{self._where} answers {command} with {shown(reply)}")

    def _slice_size(self) -> int:
        return max(_SLICE, min(self._reader.payload, _SLICE_OF_PAYLOAD))

    def _parse(self, data: bytes) -> None:
        missing = self._expected - len(self._replies)
        try:
            if missing == 0:
                raise self._unrequested(data)
            self._replies += self._reader.feed(data, at_most=missing)
        except Failure as failure:
            self._end(failure)
        if len(self._replies) == self._expected:
            self._wake(None)

    def _unrequested(self, data: bytes) -> Failure:
        """Return why unrequested data ends the session: from now on, replies could belong to any request."""
        if data[:1] == b"-":
            refusal = refusal_of(data[1:1000].partition(b"\r\n")[0].decode("utf-8", "replace"))
            return Failure(refusal.reason, f"{self._where} reports, without a request: {refusal.line}")
        return Failure(Reason.PROTOCOL, f"{self._where} sends, without a request: {shown(data)}")

    def _end_of(self, exc: Exception | None) -> None:
        """Note that the other end closed, or that the kernel gave the connection up."""
        if self._ended is not None:
            return
        if exc is not None and (failure := failure_from(exc, self._where)):
            self._note_end(failure)
        elif self.is_idle:
            self._note_end(Failure(Reason.IDLE_CLOSED, f"{self._where} closed the idle connection"))
        else:
            self._note_end(Failure(Reason.EOF, f"{self._where} closed the connection"))

    def _end(self, failure: Failure) -> None:
        if self._ended is None:
            self._note_end(failure)
            super().abort()

    def _note_end(self, failure: Failure) -> None:
        self._ended = failure
        self.lost.set_result(failure)
        self._wake(failure)

    def _wake(self, failure: Failure | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(failure)


def _packed(command: tuple[str, ...]) -> bytes:
    return hiredis.pack_command(command)  # type: ignore[no-any-return, arg-type] # its stub has tuples of one item only


def shown(reply: Reply) -> str:
    """Return ``reply`` for a message, however long it is."""
    return repr(reply[:60]) if isinstance(reply, bytes) else f"{type(reply).__name__}"
