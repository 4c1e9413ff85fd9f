"""One connection to PostgreSQL: its messages in both directions, and how it ends.

Nothing here waits for the server without a task that does so, and nothing is kept beyond the limits of `messages`.
"""

import asyncio
import time
from collections import deque
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.postgresql.errors import ErrorResponse, read_error
from connection_exporter.kinds.postgresql.messages import (
    ANSWER,
    ERROR,
    IDLE,
    READY,
    MessageSplitter,
    Violation,
    malformed,
    read_parameter,
)
from connection_exporter.kinds.postgresql.question import Question
from connection_exporter.net import failure_from
from connection_exporter.net.pacing import PacedProtocol, Pacer

_PARAMETER: Final = ord("S")
_REPORTED: Final = ("server_version", "in_hot_standby", "default_transaction_read_only")
"""The parameters of the server that are kept."""


class Wire(PacedProtocol):
    """The protocol of one connection: first the answer to SSLRequest, then the login, then requests and answers.

    ``lost`` is completed as soon as the connection has ended, with the reason.
    """

    _is_closed_by_owner = True

    def __init__(self, where: str, pacer: Pacer) -> None:
        self.lost: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self.parameters: dict[str, str] = {}
        """What the server reports of itself (ParameterStatus), as it is now."""
        self._where = where
        self._messages = MessageSplitter()
        super().__init__(pacer)
        self._ended: Exception | None = None
        self._started = False
        self._tls_answer: asyncio.Future[bytes] | None = None
        self._login: deque[tuple[int, bytes]] | None = deque()  # the splitter limits it; None after the login
        self._arrived: asyncio.Future[None] | None = None
        self._unanswered: list[Question] = []  # at most two. An empty deque takes 0.6 KiB
        self._answered: asyncio.Future[Exception | None] | None = None
        self._asked_at = 0.0

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

    async def ask(self, *questions: Question) -> None:
        """Send ``questions`` together, and wait until all of them have an answer. Raises `Failure`.

        They are sent in one piece, which saves a system call and a wake-up at both ends.
        """
        if self._ended:
            raise self._ended
        request = b""
        for question in questions:
            question.begin()
            request += question.request
        self._unanswered += questions
        self._messages.allow(ANSWER)
        # The result is the error that ended the connection first, and not an exception, which asyncio would log if
        # nobody waits any more.
        self._answered = self.lost.get_loop().create_future()
        self._asked_at = time.perf_counter()
        self.transport.write(request)  # a few hundred bytes; whether they arrive shows in the answer
        try:
            ended = await self._answered
        except asyncio.CancelledError as cancelled:
            missing = self._unanswered[0] if self._unanswered else questions[-1]
            raise cancelled from Failure(Reason.TIMEOUT, f"{self._where} does not answer {missing.what}")
        if ended is not None:
            raise ended

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
        self._unanswered.clear()
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(reason)

    def _parse(self, data: bytes) -> None:
        if not self._started:
            self._take_tls_answer(data)
            return
        try:
            while data:
                data = data[self._parse_to_ready(data) :]
        except Violation as violation:
            self.end(self._broken(violation))
        except Failure as failure:
            self.end(failure)
        except Exception as bug:  # noqa: BLE001 - the transport has no use for it; the waiting caller has
            self.end(bug)

    def _take_tls_answer(self, data: bytes) -> None:
        answer = data[:1]
        if self._tls_answer is not None and not self._tls_answer.done() and answer in (data, b"E"):
            self._tls_answer.set_result(answer)  # an E is followed by its text, and ends the attempt
        else:
            # Bytes behind the answer to SSLRequest were not encrypted, and must not be taken for the beginning of
            # the session (CVE-2021-23222).
            self.end(self._broken(malformed(f"{data[:1]!r} and more in answer to SSLRequest")))

    def _parse_to_ready(self, data: bytes) -> int:
        """Parse ``data``, up to the end of an answer; return how many bytes were parsed. Raises `Violation`."""
        if not (self._unanswered and self._messages.is_at_start):
            return self._messages.feed(data, self._take)
        question = self._unanswered[0]
        size = question.repeated_by(data)
        if size:
            self._finish(question)
            return size
        size = self._messages.feed(data, self._take)
        if question not in self._unanswered:  # the whole answer is in this read
            question.keep(data[:size])
        return size

    def _take(self, kind: int, body: bytes) -> None:
        if self._login is not None:
            self._take_at_login(kind, body)
        elif kind == ERROR:
            self._take_error(read_error(body))
        elif kind == _PARAMETER:
            self._take_parameter(body)
        elif self._unanswered:
            if kind == READY:
                self._finish(self._unanswered[0])
            else:
                self._unanswered[0].take(kind, body)

    def _take_at_login(self, kind: int, body: bytes) -> None:
        assert self._login is not None
        if kind == ERROR:
            raise Refused(read_error(body), self._where, otherwise=Reason.PROTOCOL)
        if kind == _PARAMETER:
            self._take_parameter(body)
        self._login.append((kind, body))
        self._wake()

    def _take_error(self, error: ErrorResponse) -> None:
        if error.fatal:
            raise Refused(error, self._where, otherwise=Reason.EOF)
        if self._unanswered:
            self._unanswered[0].take_error(error)

    def _take_parameter(self, body: bytes) -> None:
        name, value = read_parameter(body)
        if name in _REPORTED:
            self.parameters[name] = value
        if self._unanswered:
            self._unanswered[0].answer.is_repeatable = False

    def _finish(self, question: Question) -> None:
        """Note the end of the answer to ``question``, the first that had none."""
        del self._unanswered[0]
        question.seconds = time.perf_counter() - self._asked_at
        if self._unanswered:
            self._messages.allow(ANSWER)
            return
        self._messages.allow(IDLE)
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

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
        error = self._unanswered[0].answer.error if self._unanswered else None
        if error is not None:  # PgBouncer before 1.15 calls no error fatal
            return Refused(error, self._where, otherwise=Reason.EOF)
        known = failure_from(exc, self._where) if exc is not None else None
        if known is not None:
            return known
        if self._unanswered or self._login is not None:
            return Failure(Reason.EOF, f"{self._where} closed the connection")
        return Failure(Reason.IDLE_CLOSED, f"{self._where} closed the idle connection")


class Refused(Failure):
    """The server has ended the login or the session with an error. A state that no table lists is ``otherwise``."""

    def __init__(self, error: ErrorResponse, where: str, *, otherwise: Reason) -> None:
        super().__init__(error.reason or otherwise, f"{where}: {error}")
        self.error = error
