"""Owns one WebSocket connection: the upgrade, its pings and messages, and how it ended.

An asyncio protocol around `websockets.client.ClientProtocol`, which does no I/O; only its documented interface is used
(https://websockets.readthedocs.io/en/stable/reference/sansio/client.html).
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.websocket.config import WebsocketConfig
from connection_exporter.kinds.websocket.dialogue import Captures, Line
from connection_exporter.kinds.websocket.frames import FrameSplitter, InputLimits, too_large
from connection_exporter.kinds.websocket.handshake import (
    Upgrade,
    client_protocol,
    upgrade_from,
    upgrade_request,
)
from connection_exporter.kinds.websocket.pings import PONG, ping, pong
from connection_exporter.kinds.websocket.stream import Stream
from connection_exporter.net import failure_from
from connection_exporter.net.http1.reader import SLICE, HeadReader
from connection_exporter.net.pacing import PacedProtocol, Pacer

UNSENT_LIMIT: Final = 1024 * 1024
"""Bytes that wait to be sent to a server that does not read."""

_SLICE: Final = 16 * 1024
_COMPRESSED_SLICE: Final = 256
"""Bytes that are parsed at once. Deflate expands them by 1,032 at most: to 258 KiB, in 0.5 to 1 ms."""

_DATA: Final = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
_POLITE: Final = (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY)


class WebsocketConnection(PacedProtocol):
    """One connection. ``greeting`` is the dialogue that follows the upgrade."""

    _is_closed_by_owner = True

    def __init__(self, config: WebsocketConfig, greeting: Sequence[Line], pacer: Pacer) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Failure] = self._loop.create_future()
        self.ended: Failure | None = None
        self.upgrade: Upgrade | None = None
        self.stream = Stream(greeting, self._send_text, Captures(config.note_captured))
        self.probing = True
        self._address = address = config.address
        self._limit = config.max_message_size
        self._protocol = client_protocol(config)
        self._heads: HeadReader | None = HeadReader(address, tls_scheme="wss")
        self._upgraded: asyncio.Future[Failure | None] = self._loop.create_future()
        self._splitter = FrameSplitter(address, max_message_size=config.max_message_size)
        self._limits = InputLimits(address, now=self.stream.quiet_since)
        self._slice = SLICE
        super().__init__(pacer)
        self._arrived = 0.0
        self._ping = b""
        self._pong: asyncio.Future[Failure | float] | None = None

    @property
    def is_behind(self) -> bool:
        """Whether the server sends faster than its input is parsed, so that an answer may still be waiting."""
        return self._limits.is_behind(time.monotonic())

    async def open(self, headers: Sequence[tuple[str, str]]) -> Upgrade:
        """Send the upgrade request and wait for the response. Raises `Failure`.

        A Host among the ``headers`` replaces the one that follows from the URL.
        """
        self._write(upgrade_request(self._protocol, headers))
        failure = await self._upgraded
        if failure is not None:
            raise failure
        assert self.upgrade is not None
        return self.upgrade

    async def round_trip(self) -> float:
        """Send a ping and return the seconds until its pong. Raises `Failure` if the connection has ended."""
        if self.ended is not None:
            raise self.ended
        frame, self._ping = ping()
        self._pong = self._loop.create_future()
        began = time.perf_counter()
        self._write(frame)
        arrived = await self._pong
        if isinstance(arrived, Failure):
            raise arrived
        return arrived - began

    async def talk(self, lines: Sequence[Line]) -> Failure | None:
        """Run a dialogue; return why it failed, if it did. Raises `Failure` if the connection has ended."""
        if self.ended is not None:
            raise self.ended
        self.stream.start_dialogue(lines)
        return await self.dialogue_over()

    async def dialogue_over(self) -> Failure | None:
        """Wait for the end of the dialogue; return why it failed, if it did. Raises `Failure` as `talk` does."""
        try:
            failure = await self.stream.dialogue.over
        finally:
            self.stream.dialogue.end()
        if self.ended is not None:
            raise self.ended
        return failure

    def leave(self) -> None:
        """Send a close frame if that needs no waiting, and close. Idempotent, and allowed at any time."""
        if self.ended is None:
            self.ended = Failure(Reason.CLOSED, f"{self._address}: closed by the exporter")
        self._paced.discard()
        self.stream.dialogue.end()
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (asyncio)."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=UNSENT_LIMIT)

    def data_received(self, data: bytes) -> None:
        """Parse a small read at once, and a large one slice by slice (asyncio)."""
        self._arrived = time.perf_counter()
        # Nearly every pong arrives alone. To parse it takes 750 opcodes, to compare it 50.
        is_pong = (
            data == PONG + self._ping and self._splitter.is_between_frames and not self._paced.has_slices
        )
        if not (is_pong and self._take_pong()):
            super().data_received(data)

    def pause_writing(self) -> None:
        """Give up on a server that does not read what it asks for (asyncio)."""
        self._fail(Failure(Reason.PROTOCOL, f"{self._address} does not read what it is sent"))

    def _parse(self, data: bytes) -> int:
        """Parse the beginning of ``data``; return how many bytes of it."""
        try:
            if self.ended is not None or self._upgraded.cancelled():  # the attempt is over
                return len(data)
            if self._heads is not None:
                found = self._heads.feed(data)
                if found is None:
                    return len(data)
                head, frames = found
                self._open(upgrade_from(head, self._protocol, self._address))
                return len(data) - len(frames)
            return self._parse_frames(data)
        except Failure as failure:
            self._fail(failure)
            return len(data)

    def _open(self, upgrade: Upgrade) -> None:
        self.upgrade = upgrade
        self._heads = None
        self._slice = _COMPRESSED_SLICE if upgrade.compression else _SLICE
        self._upgraded.set_result(None)
        self.stream.dialogue.begin()

    def _parse_frames(self, data: bytes) -> int:
        splitter, stream = self._splitter, self.stream
        messages, frames, control_frames = stream.messages, splitter.frames, splitter.control_frames
        payload = parsed = 0
        if stream.dialogue.over.done():  # saves 550 of 1,000 opcodes of a message that arrives alone
            payload, parsed = splitter.skip_messages(data)
            stream.messages += splitter.frames - frames
        if parsed < len(data):
            taken, parsed_of_rest = self._take_frames(data[parsed:])
            payload, parsed = payload + taken, parsed + parsed_of_rest
        now = time.monotonic()
        if stream.messages != messages:
            stream.note_time(now)
        if self._protocol.state is not State.OPEN:
            self._end(self._why_closed(None))
            return parsed
        exceeded = self._limits.exceeded_by(
            now,
            frames=splitter.frames - frames,
            control_frames=splitter.control_frames - control_frames,
            payload=payload,
            behind=self._paced.pending or parsed < len(data),
        )
        if exceeded is not None:
            raise exceeded
        return parsed

    def _take_frames(self, data: bytes) -> tuple[int, int]:
        """Take frames of any type; return how many bytes of messages they have, and how much of ``data`` they cover."""
        # Many servers ping each session every 20 s. To answer without the parser saves 600 of 1,100 opcodes.
        ping_payload = self._splitter.take_ping(data)
        if ping_payload is not None:
            self._write(pong(ping_payload))
            return 0, len(data)
        protocol, payload = self._protocol, 0
        frames, parsed = self._splitter.split(data)
        protocol.receive_data(frames)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                payload += self._take(event)
        self._flush()
        return payload, parsed

    def _take(self, frame: Frame) -> int:
        """Take a frame; return how many bytes of a message it has."""
        opcode = frame.opcode
        if opcode is Opcode.PONG:
            if frame.data == self._ping and self._take_pong():
                self._splitter.control_frames -= 1  # the limit is for frames that nobody asked for
            return 0
        return self.stream.take(frame) if opcode in _DATA else 0

    def _take_pong(self) -> bool:
        """Take the pong of the last ping; return whether it is awaited."""
        if self._pong is None or self._pong.done():
            return False
        self._pong.set_result(self._arrived)
        return True

    def _send_text(self, text: str) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_text(text.encode())
            self._flush()

    def _flush(self) -> None:
        data = self._protocol.data_to_send()
        if data:
            self._write(b"".join(data))

    def _write(self, data: bytes) -> None:
        if not self.transport.is_closing():  # uvloop raises RuntimeError
            self.transport.write(data)

    def _fail(self, failure: Failure) -> None:
        """End the connection for something that the server did, and say so in a close frame if it is open."""
        if self._protocol.state is State.OPEN:
            large = failure.reason is Reason.TOO_LARGE
            self._protocol.fail(CloseCode.MESSAGE_TOO_BIG if large else CloseCode.POLICY_VIOLATION)
            self._flush()
        self._end(failure)

    def _slice_size(self) -> int:
        return self._slice

    def _end_of(self, exc: Exception | None) -> None:
        if self.ended is None:
            self._end(self._why_closed(exc))

    def _end(self, failure: Failure) -> None:
        if self.ended is not None:
            return
        self.ended = failure
        self._paced.discard()
        self.lost.set_result(failure)
        if not self._upgraded.done():
            self._upgraded.set_result(failure)
        if self._pong is not None and not self._pong.done():
            self._pong.set_result(failure)
        self.stream.dialogue.end(failure)

    def _why_closed(self, exc: Exception | None) -> Failure:
        address, protocol = self._address, self._protocol
        failure = failure_from(exc, address) if exc is not None else None
        if self._heads is not None:
            return failure or Failure(Reason.EOF, f"{address} closed the connection before it was upgraded")
        protocol.receive_eof()  # `close_exc` exists only once the protocol is closed
        closed = protocol.close_exc
        if closed.rcvd is not None:
            code, text = closed.rcvd.code, closed.rcvd.reason
            reason = Reason.IDLE_CLOSED if code in _POLITE and not self.probing else Reason.CLOSED
            return Failure(reason, f"{address} closed with code {code}" + (f": {text[:120]}" if text else ""))
        broken = closed.__cause__
        if isinstance(broken, PayloadTooBig):
            return too_large(address, self._limit)
        if broken is not None and not isinstance(broken, EOFError):
            return Failure(Reason.PROTOCOL, f"{address} breaks the WebSocket protocol: {broken}")
        return failure or Failure(Reason.EOF, f"{address} closed the connection without a close frame")
