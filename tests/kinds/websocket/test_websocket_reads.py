"""However the bytes of a server are cut into reads, a session sees the same: shortcuts agree with the parser."""

import asyncio
from collections.abc import Sequence

import pytest
from connection_exporter.config.patterns import CompiledPattern
from connection_exporter.kinds.websocket.connection import WebsocketConnection
from connection_exporter.kinds.websocket.dialogue import Line
from connection_exporter.net.pacing import Pacer
from hypothesis import given, settings
from hypothesis import strategies as st
from support.websocket_servers import config_of, frame, response_to
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

TEXT, BINARY, FIRST, CONT, LAST, PING, PONG = 0x81, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8A
ANSWER = b"the pong of the last ping"  # stands for its bytes, which are random

WHOLE = st.builds(
    frame,
    st.sampled_from([TEXT, BINARY]),
    st.sampled_from([b"", b"a", b"yes", b"x" * 125, b"x" * 126, b"x" * 300]),
)
FRAGMENT = st.builds(frame, st.sampled_from([FIRST, CONT, LAST]), st.sampled_from([b"", b"yes"]))
CONTROL = st.one_of(
    st.just(ANSWER), st.builds(frame, st.sampled_from([PING, PONG]), st.sampled_from([b"", b"ping"]))
)
BAD = st.sampled_from(
    [b"\x81\x81abcdx", frame(0xC1, b"\x00"), frame(0x83), frame(TEXT, b"x" * 1025), b"\x88\x02\x03\xe8"]
)
UNCUT = 10_000
READS = st.lists(
    st.tuples(
        st.lists(st.one_of(WHOLE, CONTROL, FRAGMENT, BAD), min_size=1, max_size=3),
        st.one_of(st.just(UNCUT), st.integers(1, 10)),
    ),
    max_size=4,
)


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.sent.append(data)

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits here."""

    def pause_reading(self) -> None:
        """Reads are fed one by one."""

    def resume_reading(self) -> None:
        """Reads are fed one by one."""


class Opened:
    """A connection that has been upgraded and has sent a ping. Use `opened`."""

    def __init__(self, connection: WebsocketConnection, wire: Wire) -> None:
        self.connection = connection
        self.wire = wire
        self.round_trip = asyncio.ensure_future(connection.round_trip())

    @property
    def pong(self) -> bytes:
        """The frame that answers the ping."""
        ping = self.wire.sent[1]
        assert ping[:2] == b"\x89\x84"
        return frame(PONG, bytes(a ^ b for a, b in zip(ping[6:], ping[2:6], strict=True)))

    @property
    def is_answered(self) -> bool:
        """Whether the ping has been answered."""
        return self.connection._pong is not None and self.connection._pong.done()

    async def feed(self, data: bytes) -> None:
        """Pass on one read, and let all of it be parsed."""
        self.connection.data_received(data)
        while self.connection._paced.has_slices:  # noqa: ASYNC110
            await asyncio.sleep(0)

    def seen(self) -> object:
        """Return what the session has seen, if it is not over: what it shows then depends on the reads."""
        connection = self.connection
        if connection.ended is not None:
            return "ended"
        return (
            connection.stream.messages,
            connection.stream.last_message is not None,
            connection.stream.dialogue.over.done(),
            connection._splitter.control_frames,
            self.is_answered,
            _frames_from_client(b"".join(self.wire.sent[1:])),
        )


def _frames_from_client(sent: bytes) -> list[Frame]:
    server = ServerProtocol(state=State.OPEN)
    server.receive_data(sent)
    frames = [event for event in server.events_received() if isinstance(event, Frame)]
    return [frame for frame in frames if frame.opcode is not Opcode.PING]  # its payload is random


async def opened(**config: object) -> Opened:
    connection = WebsocketConnection(config_of(host="it", **config), (), Pacer())
    wire = Wire()
    connection.connection_made(wire)
    opening = asyncio.ensure_future(connection.open([]))
    await asyncio.sleep(0)
    connection.data_received(response_to(wire.sent[0].decode()))
    await opening
    session = Opened(connection, wire)
    await asyncio.sleep(0)
    return session


async def seen_in(reads: Sequence[tuple[Sequence[bytes], int]], *, expects: bool, whole: bool) -> object:
    """Return what a session has seen after ``reads``; each is cut once, or else byte by byte."""
    session = await opened(max_message_size=1024)
    if expects:
        session.connection.stream.start_dialogue([Line(None, CompiledPattern("^yes$"), (), 60.0)])
    for frames, cut in reads:
        sent = b"".join(session.pong if part is ANSWER else part for part in frames)
        pieces = [sent[:cut], sent[cut:]] if whole else [sent[at : at + 1] for at in range(len(sent))]
        for piece in filter(None, pieces):
            await session.feed(piece)
    seen = session.seen()
    session.round_trip.cancel()
    session.connection.stream.dialogue.end()
    await asyncio.wait([session.round_trip])
    return seen


@settings(max_examples=200)
@given(READS, st.booleans())
def test_a_session_sees_the_same_however_the_bytes_are_cut(
    reads: list[tuple[list[bytes], int]], expects: bool
) -> None:
    """A pong and messages that are read as a whole are what they are when they come byte by byte."""

    async def both() -> tuple[object, object]:
        at_once = await seen_in(reads, expects=expects, whole=True)
        return at_once, await seen_in(reads, expects=expects, whole=False)

    at_once, byte_by_byte = asyncio.run(both())
    assert at_once == byte_by_byte


@pytest.mark.parametrize(
    "begun",
    [b"\x81\x06", b"\x82\x7e\x00\x06", b"\x89\x06", frame(BINARY, bytes(70_000))[:-6]],
    ids=["a message", "a longer header", "a ping", "a message that waits for its turn"],
)
async def test_bytes_of_a_frame_that_look_like_the_pong_are_no_pong(begun: bytes) -> None:
    """They arrive in a read of their own, after the beginning of the frame that they belong to."""
    session = await opened()
    session.connection.data_received(begun)
    await session.feed(session.pong)
    assert not session.is_answered
    await session.feed(session.pong)
    assert await session.round_trip >= 0


async def test_only_the_first_pong_answers_a_ping() -> None:
    """Each other one counts as a control frame that nobody has asked for."""
    session = await opened()
    for _ in range(3):
        await session.feed(session.pong)
    assert session.connection._splitter.control_frames == 2
    assert await session.round_trip >= 0
    await session.feed(session.pong)
    assert session.connection._splitter.control_frames == 3


async def test_a_pong_after_a_probe_was_cancelled_changes_nothing() -> None:
    """The deadline of an attempt cancels its probe."""
    session = await opened()
    session.round_trip.cancel()
    await asyncio.wait([session.round_trip])
    await session.feed(session.pong)
    assert session.connection.ended is None
    assert session.connection._splitter.control_frames == 1
