"""Splitting frames changes no message, and each rate limit ends the session when it is exceeded."""

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.websocket.frames import (
    BEHIND_FOR,
    BYTES_AT_ONCE,
    BYTES_PER_SECOND,
    CONTROL_FRAMES_AT_ONCE,
    CONTROL_FRAMES_PER_SECOND,
    FRAGMENTS_LIMIT,
    FRAMES_AT_ONCE,
    FRAMES_PER_SECOND,
    FRAMES_PER_SLICE,
    FrameSplitter,
    InputLimits,
)
from hypothesis import given
from hypothesis import strategies as st
from support.websocket_servers import frame
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

CONTROL = st.builds(frame, st.sampled_from([0x89, 0x8A]), st.binary(max_size=125))
PAYLOAD = st.one_of(
    st.binary(max_size=200), st.sampled_from([125, 126, 127, 65535, 65536, 70_000]).map(bytes)
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Draw a message in one to four fragments, with control frames between them."""
    parts = draw(st.lists(PAYLOAD, min_size=1, max_size=4))
    opcode = draw(st.sampled_from([1, 2]))
    sent = b""
    for index, part in enumerate(parts):
        final = 0x80 if index == len(parts) - 1 else 0
        sent += frame(final | (opcode if index == 0 else 0), part)
        sent += draw(st.one_of(st.just(b""), CONTROL))
    return sent


@given(st.lists(messages(), max_size=4), st.lists(st.integers(1, 40_000), min_size=1))
def test_messages_are_the_same_however_their_frames_are_split(sent: list[bytes], sizes: list[int]) -> None:
    """Whatever pieces arrive, `ClientProtocol` sees the messages and control frames that were sent, in order."""
    whole = b"".join(sent)
    splitter = FrameSplitter("it", max_message_size=2**20)
    protocol = _open_protocol()
    at = 0
    while at < len(whole):
        size = max(sizes[at % len(sizes)], len(whole) // 200)
        data, parsed = splitter.split(whole[at : at + size])
        assert parsed > 0
        protocol.receive_data(data)
        at += parsed
    expected = _open_protocol()
    expected.receive_data(whole)
    assert _received(protocol) == _received(expected)
    assert splitter.payload_left == 0


def test_a_slice_has_a_limited_number_of_frames() -> None:
    """The rest of the input is left to the next slice."""
    splitter = FrameSplitter("it", max_message_size=2**20)
    data, parsed = splitter.split(frame(0x81) * 1000)
    assert data == frame(0x81) * FRAMES_PER_SLICE
    assert parsed == len(data)
    assert splitter.frames == FRAMES_PER_SLICE
    assert splitter.skip_messages(frame(0x81) * 1000) == (0, len(frame(0x81)) * FRAMES_PER_SLICE)
    assert splitter.frames == 2 * FRAMES_PER_SLICE


@pytest.mark.parametrize(
    ("rest", "begun"),
    [
        (b"", b""),
        (frame(0x81, b"x" * 200)[:-1], b""),
        (frame(0xC1, b"x"), b""),
        (frame(0x01) + frame(0x81), b""),
        (frame(0x8A) + frame(0x81), b""),
        (b"\x81\x81abcdx", b""),
        (frame(0x81, bytes(1025)), b""),
        (frame(0x81), frame(0x01)),
        (frame(0x80), frame(0x01)),
        (frame(0x81), frame(0x81, b"x")[:2]),
    ],
)
def test_messages_that_are_only_counted_are_skipped_up_to_anything_else(rest: bytes, begun: bytes) -> None:
    """A message that is incomplete, compressed or breaks a rule is left to the parser, and so is one that has begun."""
    splitter = FrameSplitter("it", max_message_size=1024)
    splitter.split(begun)
    frames = splitter.frames
    skipped = frame(0x81) + frame(0x82, b"yes") + frame(0x81, bytes(1024)) if not begun else b""
    assert splitter.skip_messages(skipped + rest) == (1027 if skipped else 0, len(skipped))
    assert splitter.frames - frames == (3 if skipped else 0)


def test_messages_are_skipped_again_after_one_in_fragments() -> None:
    """Also if the last fragment arrives in pieces."""
    splitter = FrameSplitter("it", max_message_size=1024)
    _split_all(splitter, frame(0x01, b"x") + frame(0x89) + frame(0x80, b"long")[:-1])
    assert splitter.skip_messages(frame(0x81)) == (0, 0)
    _split_all(splitter, b"g")
    assert splitter.skip_messages(frame(0x81)) == (0, 2)


@pytest.mark.parametrize(
    ("sent", "reason", "message"),
    [
        (b"\x81\x81abcdx", Reason.PROTOCOL, "must not be masked"),
        (b"\x82\xff" + (70_000).to_bytes(8) + b"abcd", Reason.PROTOCOL, "must not be masked"),
        (b"\x89\x7e\x01\x00", Reason.PROTOCOL, "control frame too long"),
        (b"\x82\x7f" + (2**20 + 1).to_bytes(8), Reason.TOO_LARGE, "max_message_size 1048576"),
    ],
)
def test_a_frame_that_breaks_a_rule_is_refused_by_its_header(
    sent: bytes, reason: Reason, message: str
) -> None:
    """Nothing of its payload is waited for."""
    with pytest.raises(Failure, match=message) as raised:
        FrameSplitter("it", max_message_size=2**20).split(sent)
    assert raised.value.reason is reason


def test_a_message_has_a_limited_number_of_fragments() -> None:
    """Control frames between them do not count, and the next message starts anew."""
    splitter = FrameSplitter("it", max_message_size=2**20)
    for _ in range(2):
        _split_all(splitter, frame(0x01) + (frame(0x00) + frame(0x8A)) * (FRAGMENTS_LIMIT - 2) + frame(0x80))
    with pytest.raises(Failure, match="fragments") as raised:
        _split_all(splitter, frame(0x01) + frame(0x00) * FRAGMENTS_LIMIT)
    assert raised.value.reason is Reason.PROTOCOL


@pytest.mark.parametrize(
    ("kind", "rate", "burst"),
    [
        ("frames", FRAMES_PER_SECOND, FRAMES_AT_ONCE),
        ("control_frames", CONTROL_FRAMES_PER_SECOND, CONTROL_FRAMES_AT_ONCE),
        ("payload", BYTES_PER_SECOND, BYTES_AT_ONCE),
    ],
)
def test_a_rate_may_be_exceeded_for_a_while_only(kind: str, rate: int, burst: int) -> None:
    """A burst on top of the full rate is allowed; one unit more ends the session."""
    limits = InputLimits("it", now=0.0)
    amounts = {"frames": 0, "control_frames": 0, "payload": 0}
    for second in range(1, 60):
        assert limits.exceeded_by(second, **{**amounts, kind: rate}, behind=False) is None
    assert limits.exceeded_by(60, **{**amounts, kind: burst}, behind=False) is None
    failure = limits.exceeded_by(60, **{**amounts, kind: 1}, behind=False)
    assert failure is not None
    assert failure.reason is Reason.PROTOCOL


def test_a_server_may_send_faster_than_the_exporter_reads_for_a_while_only() -> None:
    """This limit holds on a slow machine too. Time in which the exporter was stopped does not count."""
    limits, now = InputLimits("it", now=0.0), 0.0

    def receive(seconds: float, *, step: float, behind: bool) -> Failure | None:
        nonlocal now
        ends, failure = now + seconds, None
        while now < ends and failure is None:
            now += step
            failure = limits.exceeded_by(now, frames=1, control_frames=0, payload=1, behind=behind)
        return failure

    assert receive(BEHIND_FOR * 0.9, step=0.01, behind=True) is None
    assert receive(60, step=0.5, behind=False) is None
    assert receive(BEHIND_FOR * 0.9, step=0.01, behind=True) is None
    assert receive(600, step=600, behind=True) is None
    failure = receive(BEHIND_FOR * 1.1, step=0.01, behind=True)
    assert failure is not None
    assert "than the exporter can read" in failure.message


@pytest.mark.parametrize(
    ("sent", "begun"),
    [
        (frame(0x89) * 2, b""),
        (frame(0x89, b"x")[:-1], b""),
        (b"\x89", b""),
        (b"\x89\x81abcdx", b""),
        (b"\x09\x00", b""),
        (frame(0x89, bytes(126)), b""),
        (frame(0x8A), b""),
        (frame(0x89), frame(0x81, b"xx")[:2]),
    ],
)
def test_only_a_ping_that_arrives_alone_needs_no_parser(sent: bytes, begun: bytes) -> None:
    """Everything else is left to it, and not counted."""
    splitter = FrameSplitter("it", max_message_size=1024)
    splitter.split(begun)
    counted = splitter.frames, splitter.control_frames
    assert splitter.take_ping(sent) is None
    assert (splitter.frames, splitter.control_frames) == counted


@pytest.mark.parametrize("size", [0, 1, 125])
def test_a_ping_that_arrives_alone_is_counted(size: int) -> None:
    """Also between the fragments of a message."""
    splitter = FrameSplitter("it", max_message_size=1024)
    splitter.split(frame(0x01, b"x"))
    assert splitter.take_ping(frame(0x89, bytes(size))) == bytes(size)
    assert (splitter.frames, splitter.control_frames) == (2, 1)


def _split_all(splitter: FrameSplitter, sent: bytes) -> None:
    while sent:
        _, parsed = splitter.split(sent)
        sent = sent[parsed:]


def _open_protocol() -> ClientProtocol:
    return ClientProtocol(parse_uri("ws://it/"), state=State.OPEN, max_size=2**20)


def _received(protocol: ClientProtocol) -> list[tuple[Opcode, bytes]]:
    """Return the messages and control frames, each where it was complete."""
    received: list[tuple[Opcode, bytes]] = []
    opcode, parts = Opcode.CONT, b""
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.PING, Opcode.PONG):
            received.append((event.opcode, bytes(event.data)))
            continue
        opcode = event.opcode or opcode
        parts += bytes(event.data)
        if event.fin:
            received.append((opcode, parts))
            parts = b""
    assert not parts
    return received
