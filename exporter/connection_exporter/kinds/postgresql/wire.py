"""One connection to PostgreSQL: its messages in both directions, and how it ends.

Nothing here waits for the server without a task that does so, and nothing is kept beyond the limits of `messages`.
"""

import asyncio
from collections import deque
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.postgresql.errors import ErrorResponse, read_error
from connection_exporter.kinds.postgresql.messages import (
    ANSWER,
    IDLE,
    SLICE,
    MessageSplitter,
    Violation,
    first_column_is_boolean,
    first_values,
    malformed,
    read_parameter,
)
from connection_exporter.net import failure_from
from connection_exporter.net.pacing import PacedProtocol, Pacer

ERROR: Final = ord("E")
_PARAMETER: Final = ord("S")
_REPORTED: Final = ("server_version", "in_hot_standby", "default_transaction_read_only")
"""The parameters of the server that are kept."""

READY: Final = ord("Z")

_COPY_IN: Final = frozenset(b"GW")
"""The server waits for rows from us (CopyInResponse, CopyBothResponse)."""


class Answer:
    """What a server sends in response to one request, up to ReadyForQuery.

    Of the rows, only the first ``columns`` values of the first one are kept.
    """

    def __init__(self, missing: str, columns: int) -> None:
        self.row: list[str | None] | None = None
        self.boolean = False
        """Whether the first column is of type boolean."""
        self.error: ErrorResponse | None = None
        self._missing = missing
        self._columns = columns
        self._described = False
        # The result is the error that ended the connection first, and not an exception, which asyncio would log if
        # nobody waits any more.
        self._complete: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    async def wait(self) -> None:
        """Wait for the whole answer. Raises the `Failure` that ended the connection first."""
        try:
            ended = await self._complete
        except asyncio.CancelledError as cancelled:
            raise cancelled from Failure(Reason.TIMEOUT, self._missing)
        if ended is not None:
            raise ended

    def take(self, kind: int, body: bytes) -> None:
        """Take one message. Raises `Violation`."""
        if kind == ord("D"):
            if self.row is None and self._columns:
                self.row = first_values(body, self._columns)
        elif kind == ord("T"):
            if not self._described:
                self.boolean, self._described = first_column_is_boolean(body), True
        elif kind in _COPY_IN:
            raise Violation(Reason.QUERY, "waits for data: the query must not be COPY … FROM STDIN")

    def finish(self, ended: Exception | None = None) -> None:
        """Note the end of the answer, or of the connection."""
        if not self._complete.done():
            self._complete.set_result(ended)


class Wire(PacedProtocol):
    """The protocol of one connection: first the answer to SSLRequest, then the login, then requests and answers.

    ``lost`` is completed as soon as the connection has ended, with the reason.
    """

    _is_closed_by_owner = True
    _least_slice = SLICE

    def __init__(self, where: str, pacer: Pacer) -> None:
        self.lost: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self.parameters: dict[str, str] = {}
        """What the server reports of itself (ParameterStatus), as it is now."""
        self._where = where
        self._messages = MessageSplitter(self._take)
        super().__init__(pacer)
        self._ended: Exception | None = None
        self._started = False
        self._tls_answer: asyncio.Future[bytes] | None = None
        self._login: deque[tuple[int, bytes]] | None = deque()  # the splitter limits it; None after the login
        self._arrived: asyncio.Future[None] | None = None
        self._answers: list[Answer] = []  # at most three. An empty deque takes 0.6 KiB
        self._held = b""

    async def request_tls(self, request: bytes) -> bytes:
        """Send an SSLRequest and return the byte that answers it. Raises `Failure`."""
        self._tls_answer = asyncio.get_running_loop().create_future()
        self.send(request)
        answer = await self._tls_answer
        if self._ended:
            raise self._ended
        return answer

    def start(self, startup: bytes) -> None:
        """Send the first message. From now on, messages may come."""
        self._started = True
        self.send(startup)

    def send(self, data: bytes) -> None:
        """Send a message. Raises `Failure` if the connection has ended."""
        if self._ended:
            raise self._ended
        self.transport.write(data)  # a few hundred bytes; whether they arrive shows in the answer

    async def receive(self) -> tuple[int, bytes]:
        """Return the next message of the login. Raises `Failure`, also for an error that the server sends."""
        assert self._login is not None
        while not self._login:
            if self._ended:
                raise self._ended
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        return self._login.popleft()

    def finish_login(self) -> None:
        """Expect requests and answers from now on. Raises `Failure`."""
        assert self._login is not None
        if any(kind not in IDLE.types for kind, _ in self._login):
            self.end(self._broken(malformed("a message after ReadyForQuery")))
        if self._ended:
            raise self._ended
        self._login = self._arrived = None
        self._messages.allow(IDLE)

    def ask(self, request: bytes, what: str, *, columns: int = 0, hold: bool = False) -> Answer:
        """Send a request and return its answer, which is still to come. Raises `Failure`.

        ``what`` completes "the server does not answer …". Of the first row, ``columns`` values are kept.
        Several requests may be under way. Answers come in the order of the requests. With ``hold``, the request is
        sent together with the next one, which saves a system call and a wake-up at both ends.
        """
        if self._ended:
            raise self._ended
        answer = Answer(f"{self._where} does not answer {what}", columns)
        self._answers.append(answer)
        if len(self._answers) == 1:
            self._messages.allow(ANSWER)
        self._held += request
        if not hold:
            request, self._held = self._held, b""
            self.send(request)
        return answer

    def close(self) -> None:
        """Close the connection now, whatever the server does. May be called again."""
        self.end(self._ended or Failure(Reason.EOF, f"the connection to {self._where} was closed here"))

    def end(self, reason: Exception) -> None:
        """Close the connection now, for ``reason``. May be called again, which has no effect."""
        self._note_end(reason)
        self.abort()

    def _note_end(self, reason: Exception) -> None:
        if self._ended is not None:
            return
        self._ended = reason
        if isinstance(reason, Failure):
            self.lost.set_result(reason)
        else:  # a bug of ours; the waiting caller gets the exception itself
            self.lost.set_result(Failure(Reason.INTERNAL, f"unexpected {type(reason).__name__}"))
        if self._tls_answer is not None and not self._tls_answer.done():
            self._tls_answer.set_result(b"")
        self._wake()
        while self._answers:
            self._answers.pop(0).finish(reason)

    def data_received(self, data: bytes) -> None:
        """Take the next bytes, at the pace that all services share."""
        if self._started:
            super().data_received(data)
        elif self._tls_answer is not None and not self._tls_answer.done() and len(data) == 1:
            self._tls_answer.set_result(data)
        else:
            # Bytes behind the answer to SSLRequest were not encrypted, and must not be taken for the beginning of
            # the session (CVE-2021-23222).
            self.end(self._broken(malformed(f"{data[:1]!r} and more in answer to SSLRequest")))

    def _parse(self, data: bytes) -> None:
        try:
            self._messages.feed(data)
        except Violation as violation:
            self.end(self._broken(violation))
        except Failure as failure:
            self.end(failure)
        except Exception as bug:  # noqa: BLE001 - the transport has no use for it; the waiting caller has
            self.end(bug)

    def _take(self, kind: int, body: bytes) -> None:
        error = read_error(body) if kind == ERROR else None
        if error is not None and self._login is not None:
            raise Refused(error, self._where, otherwise=Reason.PROTOCOL)
        if error is not None and error.fatal:
            raise Refused(error, self._where, otherwise=Reason.EOF)
        if kind == _PARAMETER:
            name, value = read_parameter(body)
            if name in _REPORTED:
                self.parameters[name] = value
        if self._login is not None:
            self._login.append((kind, body))
            self._wake()
        elif self._answers:
            self._take_answer(kind, body, error)

    def _take_answer(self, kind: int, body: bytes, error: ErrorResponse | None) -> None:
        answer = self._answers[0]
        if error is not None:
            answer.error = answer.error or error
        elif kind == READY:
            self._answers.pop(0)
            self._messages.allow(ANSWER if self._answers else IDLE)
            answer.finish()
        else:
            answer.take(kind, body)

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _broken(self, violation: Violation) -> Failure:
        return Failure(violation.reason, f"{self._where} {violation.message}")

    def _slice_size(self) -> int:
        return self._messages.slice_size

    def _end_of(self, exc: Exception | None) -> None:
        if self._ended is None:
            self._note_end(self._how_it_ended(exc))

    def _how_it_ended(self, exc: Exception | None) -> Failure:
        if self._answers and self._answers[0].error is not None:  # PgBouncer before 1.15 calls no error fatal
            return Refused(self._answers[0].error, self._where, otherwise=Reason.EOF)
        known = failure_from(exc, self._where) if exc is not None else None
        if known is not None:
            return known
        if self._answers or self._login is not None:
            return Failure(Reason.EOF, f"{self._where} closed the connection")
        return Failure(Reason.IDLE_CLOSED, f"{self._where} closed the idle connection")


class Refused(Failure):
    """The server has ended the login or the session with an error. A state that no table lists is ``otherwise``."""

    def __init__(self, error: ErrorResponse, where: str, *, otherwise: Reason) -> None:
        super().__init__(error.reason or otherwise, f"{where}: {error}")
        self.error = error
