"""Owns what a server may send: frames in bounded pieces, and limits on their rate. Must not know a socket.

`websockets.client.ClientProtocol` collects a frame until it is complete, and then inflates it in one call. A frame of
many megabytes, or a small one that inflates to as many, would block the event loop. `FrameSplitter` therefore passes a
long data frame on as several fragments, which have the same meaning (RFC 6455, section 5.4).
"""

from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure

FRAMES_PER_SECOND: Final = 20_000
FRAMES_AT_ONCE: Final = 100_000
"""Frames that may come in excess of that rate. Busy exchange streams peak at some thousand messages a second."""

CONTROL_FRAMES_PER_SECOND: Final = 100
CONTROL_FRAMES_AT_ONCE: Final = 1_000
"""Pings, pongs and close frames. Servers usually send one ping every few seconds."""

BYTES_PER_SECOND: Final = 64 * 1024 * 1024
BYTES_AT_ONCE: Final = 128 * 1024 * 1024
"""Bytes of payload, after decompression."""

FRAGMENTS_LIMIT: Final = 16_384
"""Fragments of one message: one of 64 MiB in pieces of 4 KiB."""

BEHIND_FOR: Final = 5.0
"""Seconds for which a server may send faster than the exporter reads."""

_LONGEST_GAP: Final = 0.1
"""Seconds between two slices that count as behind. In a longer gap the exporter itself was stopped or suspended."""

FRAMES_PER_SLICE: Final = 32
"""Frames that are parsed at once. `ClientProtocol` takes up to 20 µs for each."""

_FIN: Final = 0x80
_OPCODE: Final = 0x0F
_CONTROL: Final = 0x08
_MASK: Final = 0x80
_CONTROL_PAYLOAD_LIMIT: Final = 125
_PING: Final = 0x89
_MESSAGE: Final = (0x81, 0x82)
"""The first byte of a ping, and those of a text or binary message that is one frame and not compressed."""


class FrameSplitter:
    """Follows the frames of one connection, counts them, and splits those that come in several pieces.

    ``frames`` and ``control_frames`` count up; ``payload_left`` is how many bytes of a data frame are still to come.
    """

    __slots__ = (
        "_address",
        "_final",
        "_fragments",
        "_limit",
        "_rest",
        "control_frames",
        "frames",
        "payload_left",
    )

    def __init__(self, address: str, *, max_message_size: int) -> None:
        self.frames = 0
        self.control_frames = 0
        self.payload_left = 0
        self._address = address
        self._limit = max_message_size
        self._final = False  # whether the frame that is being split ends its message
        self._fragments = 0  # of the message that has begun and not ended
        self._rest = b""  # the beginning of a header or of a control frame

    @property
    def is_between_frames(self) -> bool:
        """Whether the next byte is the first one of a frame."""
        return not self.payload_left and not self._rest

    def skip_messages(self, data: bytes) -> tuple[int, int]:
        """Count the messages at the beginning of ``data`` that only need to be counted.

        Return the bytes of their payload, and how much of ``data`` they cover. It stops after `FRAMES_PER_SLICE`, and
        at anything but a complete message in one frame that breaks no rule and is not compressed.
        """
        payload = at = 0
        if self._fragments or not self.is_between_frames:
            return payload, at
        end, stop = len(data), self.frames + FRAMES_PER_SLICE
        while at < end and data[at] in _MESSAGE and self.frames < stop:
            header, length = _header(data, at)
            next_frame = at + header + length
            if next_frame > end or length > self._limit or data[at + 1] & _MASK:
                break
            self.frames += 1
            payload += length
            at = next_frame
        return payload, at

    def take_ping(self, data: bytes) -> bytes | None:
        """Count ``data`` if it is a ping and nothing else; return the payload of the ping."""
        size = len(data) - 2
        is_ping = data[0] == _PING and 0 <= size <= _CONTROL_PAYLOAD_LIMIT and data[1] == size
        if not (is_ping and self.is_between_frames):
            return None
        self.frames += 1
        self.control_frames += 1
        return data[2:]

    def split(self, data: bytes) -> tuple[bytes, int]:
        """Return the next bytes for `ClientProtocol`, with no incomplete frame, and how much of ``data`` they cover.

        It stops after `FRAMES_PER_SLICE` frames. Raises `Failure`.
        """
        kept = len(self._rest)
        if kept:
            data, self._rest = self._rest + data, b""
        pieces: list[bytes] = []
        at, end = 0, len(data)
        if self.payload_left:
            at = min(self.payload_left, end)
            self.payload_left -= at
            pieces.append(_fragment(_FIN if self._final and not self.payload_left else 0, data[:at]))
        begin, stop = at, self.frames + FRAMES_PER_SLICE
        while at < end and self.frames < stop:
            header, length = _header(data, at)
            next_frame = at + header + length
            first = data[at]
            is_complete = next_frame <= end
            if not is_complete and (
                at + header > end or (first & _CONTROL and length <= _CONTROL_PAYLOAD_LIMIT)
            ):
                self._rest = data[at:]
                pieces.append(data[begin:at])
                return b"".join(pieces), end - kept
            if data[at + 1] & _MASK:
                raise self._broken("a frame from a server must not be masked")  # section 5.1
            self._count(first, length)
            if not is_complete:
                payload = data[at + header :]
                self._final = bool(first & _FIN)
                self.payload_left = length - len(payload)
                pieces += (data[begin:at], _fragment(first & ~_FIN, payload))
                return b"".join(pieces), end - kept
            at = next_frame
        pieces.append(data[begin:at])
        return b"".join(pieces), at - kept

    def _count(self, first: int, length: int) -> None:
        """Count a frame whose first byte is ``first``, and hold it to the limits on a single frame and message."""
        self.frames += 1
        if first & _CONTROL:
            self.control_frames += 1
            if length > _CONTROL_PAYLOAD_LIMIT:
                raise self._broken("control frame too long")  # section 5.5
            return
        if length > self._limit:
            raise too_large(self._address, self._limit)
        self._fragments = 1 if first & _OPCODE else self._fragments + 1
        if self._fragments > FRAGMENTS_LIMIT:
            raise Failure(
                Reason.PROTOCOL, f"{self._address} sent a message in more than {FRAGMENTS_LIMIT} fragments"
            )
        if first & _FIN:
            self._fragments = 0

    def _broken(self, rule: str) -> Failure:
        return Failure(Reason.PROTOCOL, f"{self._address} breaks the WebSocket protocol: {rule}")


class TokenBucket:
    """A leaky bucket: ``rate`` per second, and up to ``burst`` in excess of it."""

    __slots__ = ("_burst", "_level", "_rate", "_since")

    def __init__(self, rate: float, burst: float, *, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = 0.0
        self._since = now

    def exceeded_by(self, amount: float, now: float) -> bool:
        """Add ``amount`` at ``now`` (monotonic); return whether the limit is exceeded."""
        self._level = max(0.0, self._level - (now - self._since) * self._rate) + amount
        self._since = now
        return self._level > self._burst


class InputLimits:
    """The limits on what one connection receives. Times are monotonic."""

    def __init__(self, address: str, *, now: float) -> None:
        self._address = address
        self._frames = TokenBucket(FRAMES_PER_SECOND, FRAMES_AT_ONCE, now=now)
        self._control_frames = TokenBucket(CONTROL_FRAMES_PER_SECOND, CONTROL_FRAMES_AT_ONCE, now=now)
        self._payload = TokenBucket(BYTES_PER_SECOND, BYTES_AT_ONCE, now=now)
        # Under load, the exporter may be too slow to see any of these rates. Then it is behind most of the time.
        self._seconds_behind = TokenBucket(0.5, BEHIND_FOR / 2, now=now)
        self._behind_at = -1.0  # when a slice last left more input waiting
        self._checked_at = now

    def exceeded_by(
        self, now: float, *, frames: int, control_frames: int, payload: int, behind: bool
    ) -> Failure | None:
        """Add what one slice of input held; return the failure that ends the session, if a limit is exceeded.

        ``payload`` is in bytes. ``behind``: more input is waiting already.
        """
        seconds_behind = (
            min(now - self._checked_at, _LONGEST_GAP) if self._behind_at == self._checked_at else 0.0
        )
        self._checked_at = now
        if behind:
            self._behind_at = now
        if control_frames and self._control_frames.exceeded_by(control_frames, now):
            return self._failure(f"{CONTROL_FRAMES_PER_SECOND} control frames per second")
        if self._frames.exceeded_by(frames, now):
            return self._failure(f"{FRAMES_PER_SECOND} frames per second")
        if payload and self._payload.exceeded_by(payload, now):
            return self._failure(f"{BYTES_PER_SECOND // 1024**2} MiB per second")
        if seconds_behind and self._seconds_behind.exceeded_by(seconds_behind, now):
            return self._failure("the exporter can read")
        return None

    def is_behind(self, now: float) -> bool:
        """Return whether more input was waiting a moment ago."""
        return now - self._behind_at < _LONGEST_GAP

    def _failure(self, limit: str) -> Failure:
        return Failure(Reason.PROTOCOL, f"{self._address} sends more than {limit}")


def too_large(address: str, limit: int) -> Failure:
    """Return the failure of a message of more than ``limit`` bytes."""
    return Failure(Reason.TOO_LARGE, f"{address} sent a message of more than max_message_size {limit} bytes")


def _header(data: bytes, at: int) -> tuple[int, int]:
    """Return the size of the frame header at ``at`` and the length of its payload (RFC 6455, section 5.2).

    If the header is incomplete, its size reaches beyond ``data`` and the length is 0.
    """
    if at + 2 > len(data):
        return 2, 0
    length = data[at + 1] & 0x7F
    if length < 126:
        return 2, length
    size = 4 if length == 126 else 10
    if at + size > len(data):
        return size, 0
    return size, int.from_bytes(data[at + 2 : at + size])


def _fragment(first: int, payload: bytes) -> bytes:
    """Return a data frame with ``payload``; ``first`` holds its flags and opcode (0: continuation)."""
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2) + payload
    return bytes((first, 127)) + length.to_bytes(8) + payload
