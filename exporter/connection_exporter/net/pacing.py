"""Reading at a bounded pace: bytes from a service reach its parser in slices, and the event loop runs in between.

One read from a socket can bring 256 KiB, and whatever parses that in one go holds up every other service: 128 Ki
WebSocket frames take seconds. A `PacedReader` is between a transport and a parser. Small reads, such as
every healthy answer, go straight through. A larger read is cut into slices; reading from the socket is paused, and
the slices of all services together get at most `TURN` seconds of CPU before the loop runs for at least `REST`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, cast

TURN: Final = 0.002
"""Seconds of CPU that parsers may take in one iteration of the event loop, all services together.

One slice can overrun it, so a slice has to take much less than this."""

REST: Final = 0.002
"""Seconds between two such turns. A server that floods us gets half of the CPU at most."""

WAITING: Final = "connection_exporter.input_waiting"
"""The extra info of a transport that holds back input itself, as TLS does: whether some is waiting."""


class Pacer:
    """Takes turns among the readers that have bytes left to parse. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[PacedReader] = deque()
        self._scheduled = False

    def enqueue(self, reader: "PacedReader") -> None:
        """Have ``reader`` parse its next slices when it is its turn."""
        self._waiting.append(reader)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._take_turns)

    def _take_turns(self) -> None:
        self._scheduled = False
        ends = time.thread_time() + TURN
        try:
            while self._waiting and time.thread_time() < ends:
                reader = self._waiting.popleft()
                if reader.parse_slice():
                    self._waiting.append(reader)
        finally:  # a reader that raises must not hold up the others
            if self._waiting:
                self._scheduled = True
                asyncio.get_running_loop().call_later(REST, self._take_turns)


class PacedReader:
    """The bytes that one connection has received and not yet parsed.

    ``parse`` takes the next slice; it must not raise. It may return how many bytes of it were parsed, at least one; the
    rest is then the beginning of the next slice. ``slice_size`` returns how many bytes the next slice may have, and is
    called before each one, so that a parser in the middle of a large payload can take more than one among small frames.
    Call `data_received` and `finish` from the protocol's callbacks, `discard` to end.
    """

    def __init__(
        self, pacer: Pacer, parse: Callable[[bytes], int | None], *, slice_size: Callable[[], int]
    ) -> None:
        self._pacer = pacer
        self._parse = parse
        self._slice_size = slice_size
        self._transport: asyncio.ReadTransport | None = None
        self._pending: list[memoryview] = []  # few: reading is paused. An empty deque takes 0.6 KiB
        self._at_end: list[Callable[[], None]] = []
        self._discarded = False
        self.immediate = True
        """Whether small reads are parsed at once; else all wait for their turn."""

    @property
    def has_slices(self) -> bool:
        """Whether bytes are waiting here for their turn."""
        return bool(self._pending)

    @property
    def pending(self) -> bool:
        """Whether bytes are waiting for their turn, here or to be decrypted: parsing is behind what has arrived."""
        if self._pending:
            return True
        return self._transport is not None and bool(self._transport.get_extra_info(WAITING, False))

    def connection_made(self, transport: asyncio.ReadTransport) -> None:
        """Take the transport whose reading is paused while bytes are pending."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse ``data`` now if it is small and nothing is pending; otherwise slice by slice, in turn.

        Now takes 40 opcodes, in turn 230 and another iteration of the event loop.
        """
        if self._discarded:
            return
        parsed: int | None = 0
        if self.immediate and not self._pending and len(data) <= self._slice_size():
            parsed = self._parse(data)
            if parsed is None or parsed == len(data) or self._discarded:
                return
        self._pending.append(memoryview(data)[parsed:])
        if len(self._pending) == 1:
            self._pause()
            self._pacer.enqueue(self)

    def finish(self, end: Callable[[], None]) -> None:
        """Call ``end``, which notes the end of the connection, once everything received before it is parsed."""
        if self._pending and not self._discarded:
            self._at_end.append(end)
        else:
            end()

    def discard(self) -> None:
        """Parse nothing more. What waits for the end of parsing happens now."""
        self._discarded = True
        # These are methods of the owner, which is freed without the garbage collector when they are not kept:
        self._parse, self._slice_size = _parse_nothing, int
        self._pending.clear()
        self._run_ends()

    def parse_slice(self) -> bool:
        """Parse one slice. Return whether more is pending."""
        if self._pending:
            head = self._pending[0]
            size = max(self._slice_size(), 1)
            if size < len(head):
                self._pending[0] = head[size:]
            else:
                del self._pending[0]
            parsed = self._parse(bytes(head[:size]))
            if parsed is not None and parsed < min(size, len(head)) and not self._discarded:
                if size < len(head):
                    del self._pending[0]
                self._pending.insert(0, head[parsed:])
        if self._pending:
            return True
        self._resume()
        self._run_ends()
        return False

    def _run_ends(self) -> None:
        ends, self._at_end = self._at_end, []
        for end in ends:
            end()

    def _pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._discarded or self._transport is None or self._transport.is_closing():
            return
        self._transport.resume_reading()


class PacedProtocol(asyncio.Protocol):
    """The callbacks of asyncio for a connection that is read at the pace that all services share.

    A subclass has `_parse` and `_slice_size`, as `PacedReader` describes them, and `_end_of`. `examples/smtp` is a
    complete subclass.
    """

    _is_closed_by_owner = False
    """Whether the connection stays open after the other end has ended it, until its owner closes it. Of 1,000 that end
    together, all ends are then reported before the first is closed: to close one takes 16 us, to note its end 5."""

    def __init__(self, pacer: Pacer) -> None:
        self.transport: asyncio.Transport  # set before anything else is called
        self._paced = PacedReader(pacer, self._parse, slice_size=self._slice_size)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.use(raw_transport(transport))

    def use(self, transport: asyncio.Transport) -> None:
        """Continue over ``transport``, which encrypts what was plain before."""
        self.transport = transport
        self._paced.connection_made(transport)

    def abort(self) -> None:
        """Close at once, send nothing more, and parse nothing more. Idempotent."""
        self.discard()
        self.transport.abort()

    def discard(self) -> None:
        """Parse nothing more: the connection is closed, or about to be."""
        self._paced.discard()

    def data_received(self, data: bytes) -> None:
        """Parse a small read at once, and a large one slice by slice."""
        self._paced.data_received(data)

    def eof_received(self) -> bool:
        """Note that the other end sends nothing more. Return whether the connection stays open."""
        self._paced.finish(lambda: self._end_of(None))
        return self._is_closed_by_owner

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone."""
        self._paced.finish(lambda: self._end_of(exc))

    def _parse(self, data: bytes) -> int | None:
        raise NotImplementedError

    def _slice_size(self) -> int:
        raise NotImplementedError

    def _end_of(self, exc: Exception | None) -> None:
        """Note the end, once everything before it is parsed. ``exc`` is asyncio's, ``None`` for a clean close.

        It is called when the other end sends nothing more, and again when the connection is gone.
        """
        raise NotImplementedError


def _parse_nothing(_: bytes) -> None:
    """Ignore what arrives at a reader that is discarded."""


def raw_transport(transport: asyncio.BaseTransport) -> asyncio.Transport:
    """Return ``transport`` with its type: uvloop's inherit from no class of asyncio."""
    return cast("asyncio.Transport", transport)
