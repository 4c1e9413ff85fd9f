"""Owns what an answer is: a line that matches a pattern, or some bytes. Must not know a socket.

Each kind of answer takes what has arrived from a buffer, and leaves what follows it for the next step. The work is
bounded: a line is searched up to a limit, and nothing is searched twice but the beginning of an incomplete line.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from connection_exporter.config.patterns import CompiledPattern
from connection_exporter.kinds.tcp.config import Step, TcpConfig, searched

SHOWN: Final = 200
"""Bytes of a line that are shown."""


class Expected(Protocol):
    """What a step expects."""

    def take(self, buffer: bytearray) -> bytes | None:
        """Remove from ``buffer`` what has been looked at, and return the answer if it is there."""

    def __str__(self) -> str:
        """Return the answer for messages."""


class Line:
    """A line that matches. The last line may be incomplete: a prompt has no end."""

    def __init__(self, pattern: CompiledPattern) -> None:
        self._pattern = pattern
        self._limit = searched(pattern)

    def take(self, buffer: bytearray) -> bytes | None:
        """Take lines up to the one that matches, and return it without its end."""
        begin = 0
        while begin < len(buffer):
            end = buffer.find(b"\n", begin)
            stop = end if end >= 0 else len(buffer)
            line = bytes(buffer[begin : min(stop, begin + self._limit)]).removesuffix(b"\r")
            if self._pattern.found_in(line):
                del buffer[: stop + (end >= 0)]
                return line
            if end < 0:
                del buffer[begin + self._limit :]  # the rest of a long line is never searched
                break
            begin = end + 1
        del buffer[:begin]
        return None

    def __str__(self) -> str:
        return f"a line that matches {self._pattern.source[:80]!r}"


class Bytes:
    """Bytes that have to arrive, anywhere."""

    def __init__(self, wanted: bytes) -> None:
        self._wanted = wanted

    def take(self, buffer: bytearray) -> bytes | None:
        """Take everything up to the end of the bytes."""
        at = buffer.find(self._wanted)
        if at < 0:
            del buffer[: max(len(buffer) - len(self._wanted) + 1, 0)]
            return None
        del buffer[: at + len(self._wanted)]
        return self._wanted

    def __str__(self) -> str:
        return f"the byte sequence {self._wanted[:30].hex(' ')}"


class AnyByte:
    """The next byte, whatever it is."""

    def take(self, buffer: bytearray) -> bytes | None:
        """Take it."""
        if not buffer:
            return None
        byte = bytes(buffer[:1])
        del buffer[:1]
        return byte

    def __str__(self) -> str:
        return "an answer"


class Exchange(NamedTuple):
    """A step with its message and the answer that it expects. ``within`` is in seconds."""

    send: bytes
    expect: Expected | None
    within: float


async def script(config: TcpConfig, steps: Sequence[Step]) -> tuple[Exchange, ...]:
    """Read the files of ``steps`` and compile their patterns. Raises `Failure`."""
    return tuple(
        [Exchange(await _message(step), _answer(step), step.within or config.timeout * 0.8) for step in steps]
    )


async def _message(step: Step) -> bytes:
    if step.send_file is not None:
        return (await step.send_file.read("send_file")).encode() + b"\r\n"
    if step.send_hex is not None:
        return bytes.fromhex(step.send_hex.get_secret_value())
    return step.send.get_secret_value().encode() if step.send is not None else b""


def _answer(step: Step) -> Expected | None:
    if step.expect_hex is not None:
        return Bytes(bytes.fromhex(step.expect_hex))
    return Line(CompiledPattern(step.expect)) if step.expect is not None else None


def text_of(line: bytes) -> str:
    """Return a line for a message or a detail."""
    return line[:SHOWN].rstrip(b"\r\n").decode("utf-8", "replace")
