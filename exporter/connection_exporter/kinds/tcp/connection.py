"""Owns one connection: what is sent, what arrives, and the moment and the reason of its end. Must not know a protocol.

It reads all the time, so the end of the connection is known at once. What arrives while no dialogue runs is counted
and dropped.
"""

import asyncio
import socket
import struct
from typing import Final

from connection_exporter.config.durations import format_duration
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.tcp.dialogue import SHOWN, Exchange, Expected, text_of
from connection_exporter.net import failure_from
from connection_exporter.net.pacing import PacedProtocol, Pacer

DIALOGUE_BYTES: Final = 1024 * 1024
"""Bytes that may arrive in one dialogue."""

DIALOGUE_LINES: Final = 10_000

IDLE_BYTES: Final = 16 * 1024 * 1024
"""Bytes that may arrive between two probes."""

_LEAST_COUNTED: Final = 64
"""Bytes that each piece counts as, because each is a reason for a search."""

_TAIL: Final = 4 * SHOWN
"""Bytes at the end of all that has arrived in which messages find the last line."""

_SLICE: Final = 1024
"""Bytes that are searched in one go: 1 ms, if they are all line breaks."""

_SLICE_WHILE_IDLE: Final = 64 * 1024
"""The same while nothing is searched."""

_RTT_OFFSET: Final = 68
"""Where `tcpi_rtt` is in `struct tcp_info`, in microseconds (linux/tcp.h, which only grows at its end)."""


class NoMatch(Failure):
    """Something has arrived, but not the answer that a step expects."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.EXPECT, message)


class TcpConnection(PacedProtocol):
    """A connection, for one exchange at a time. ``where`` names the server in failures.

    ``banner`` is the first line that the server has sent without being asked.
    """

    _is_closed_by_owner = True

    def __init__(self, where: str, pacer: Pacer) -> None:
        self.lost: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self.banner: str | None = None
        super().__init__(pacer)
        self._where = where
        self._ended: Failure | None = None
        self._buffer = bytearray()
        self._talking = True
        self._sent = False
        self._first = b""  # the beginning of what the server sends before anything is sent to it
        self._tail = b""  # the end of all that has arrived
        self._bytes = self._lines = 0  # since the dialogue began, or since it ended
        self._heard = False  # anything since the exchange began
        self._expected: Expected | None = None
        self._waiter: asyncio.Future[bytes | Failure] | None = None

    async def exchange(self, step: Exchange) -> bytes:
        """Send what ``step`` says and return the answer, or nothing if none is expected.

        Raises `NoMatch`, and `Failure` if the connection has ended or nothing at all arrives. A cancellation has one of
        them as its cause.
        """
        self._require_open()
        self._heard = bool(self._buffer)
        if step.send:
            self._sent = True
            self.transport.write(step.send)
        if step.expect is None:
            return b""
        loop = self.lost.get_loop()
        self._expected, self._waiter = step.expect, loop.create_future()
        self._search()
        timer = loop.call_later(step.within, self._give_up, step.expect, step.within)
        try:
            answer = await self._waiter
        except asyncio.CancelledError as cancelled:
            raise cancelled from self._missing(step.expect, " in time")
        finally:
            timer.cancel()
            self._expected = self._waiter = None
        if isinstance(answer, Failure):
            raise answer
        return answer

    def begin(self) -> None:
        """Begin a dialogue. What has arrived before is no answer to it.

        Raises `Failure` if the connection has ended, or if the server does not read what was sent before.
        """
        self._require_open()
        if self.transport.get_write_buffer_size():
            raise Failure(Reason.TIMEOUT, f"{self._where} does not read what is sent")
        self._talking, self._bytes, self._lines = True, 0, 0
        self._buffer.clear()

    def mark_idle(self) -> None:
        """End a dialogue: a clean close is `idle_closed` from now on."""
        self._talking, self._bytes = False, 0
        self._buffer.clear()

    @property
    def has_more(self) -> bool:
        """Whether something has arrived that no step has taken."""
        return bool(self._buffer) or self._paced.pending

    def round_trip(self) -> float | None:
        """Return the seconds of a round trip as the kernel measures it (smoothed), ``None`` for a Unix socket."""
        sock = self.transport.get_extra_info("socket")
        try:
            info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT_OFFSET + 4)
        except OSError:
            return None
        return float(struct.unpack_from("I", info, _RTT_OFFSET)[0]) / 1e6 if len(info) > _RTT_OFFSET else None

    def abort(self) -> None:
        """Close at once, and send nothing more. Idempotent."""
        self._ended = self._ended or Failure(Reason.EOF, f"{self._where}: closed by the exporter")
        super().abort()

    def _require_open(self) -> None:
        if self._ended is not None or self.transport.is_closing():
            raise self._ended or Failure(Reason.EOF, f"{self._where}: the connection is closed")

    def _slice_size(self) -> int:
        return _SLICE if self._talking else _SLICE_WHILE_IDLE

    def _parse(self, data: bytes) -> None:
        self._heard = True
        self._bytes += max(len(data), _LEAST_COUNTED)
        self._note_lines(data)
        if not self._talking:
            if self._bytes > IDLE_BYTES:
                self._end(
                    Failure(
                        Reason.TOO_LARGE,
                        f"{self._where} sends more than {IDLE_BYTES >> 20} MiB between probes",
                    )
                )
            return
        self._lines += data.count(b"\n")
        self._buffer += data
        if self._bytes <= DIALOGUE_BYTES and self._lines <= DIALOGUE_LINES:
            self._search()
            return
        self._buffer.clear()
        limit = f"{DIALOGUE_BYTES >> 20} MiB or {DIALOGUE_LINES} lines"
        self._wake(NoMatch(f"{self._expected} is not in the first {limit}"))

    def _search(self) -> None:
        if (
            self._buffer
            and self._expected is not None
            and self._waiter is not None
            and not self._waiter.done()
        ):
            answer = self._expected.take(self._buffer)
            if answer is not None:
                self._waiter.set_result(answer)

    def _give_up(self, expected: Expected, within: float) -> None:
        self._wake(self._missing(expected, f" within {format_duration(within)}"))

    def _wake(self, failure: Failure) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(failure)

    def _note_lines(self, data: bytes) -> None:
        """Keep the beginning of the first line, and the end of all that has arrived."""
        if not self._sent and self.banner is None:
            self._first = (self._first + data)[: SHOWN + 1]
            line, end, _ = self._first.partition(b"\n")
            if end or len(line) > SHOWN:
                self.banner = text_of(line)
        self._tail = (self._tail + data[-_TAIL:])[-_TAIL:]

    def _missing(self, expected: Expected, within: str) -> Failure:
        if not self._heard:
            return Failure(Reason.TIMEOUT, f"{self._where} sends nothing{within}; expected {expected}")
        return NoMatch(f"{expected} has not arrived{within}{self._said()}")

    def _said(self) -> str:
        lines = [line for line in self._tail.splitlines() if line.strip()]
        return f"; the last line is {text_of(lines[-1])!r}" if lines else ""

    def _end_of(self, exc: Exception | None) -> None:
        """Note that the other end closed, or that the kernel gave the connection up."""
        if self._ended is not None:
            return
        if exc is not None and (failure := failure_from(exc, self._where)):
            self._note_end(failure)
        elif self._talking:
            self._note_end(Failure(Reason.EOF, f"{self._where} closed the connection{self._said()}"))
        else:
            text = f"{self._where} closed the idle connection{self._said()}"
            self._note_end(Failure(Reason.IDLE_CLOSED, text))

    def _end(self, failure: Failure) -> None:
        if self._ended is None:
            self._note_end(failure)
            super().abort()

    def _note_end(self, failure: Failure) -> None:
        self._ended = failure
        self.lost.set_result(failure)
        self._wake(failure)
