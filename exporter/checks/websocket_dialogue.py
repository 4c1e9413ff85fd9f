"""Owns a dialogue: what is sent, what has to come, and until when. Must not know a socket.

It is driven by the messages themselves, in the callback that brings them, so that an answer which comes
in one packet with the one before it is not missed, and nothing has to be queued.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exporter.check import Failure
from exporter.checks.secret_file import reading
from exporter.config.durations import format_duration
from exporter.config.kinds.websocket import Step, WebsocketConfig
from exporter.config.patterns import CompiledPattern
from exporter.config.secret import read_secret
from exporter.core.health import Reason


@dataclass(frozen=True, slots=True)
class Line:
    """A step that is ready to be played."""

    send: str | None
    expect: CompiledPattern | None
    within: float


def script(config: WebsocketConfig, steps: Sequence[Step]) -> tuple[Line, ...]:
    """Make ``steps`` ready: read their files, compile their patterns. Raises `Failure`."""
    return tuple(
        Line(
            _message(step),
            CompiledPattern(step.expect) if step.expect is not None else None,
            step.within or config.timeout * 0.8,
        )
        for step in steps
    )


class Dialogue:
    """One play of a script. ``over`` is done when it ended: with ``None``, or with what is amiss."""

    def __init__(self, lines: Sequence[Line], send: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[Failure | None] = self._loop.create_future()
        self._lines = lines
        self._send = send
        self._at = 0
        self._others = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting_for(self) -> str:
        """What has not come yet."""
        wanted = self._lines[self._at].expect if self._at < len(self._lines) else None
        return f"no message that matches {wanted.source[:80]!r}" if wanted else "no message"

    def begin(self) -> None:
        """Send the first message, if it is ours to speak."""
        self._advance()

    def hears(self, message: bytes) -> bool:
        """Take a message. Return whether it is the answer to one that was sent, and so no part of a stream."""
        if self.over.done():
            return False
        line = self._lines[self._at]
        if line.expect is None or not line.expect.found_in(message):
            self._others += 1
            return False
        self._at += 1
        self._advance()
        return line.send is not None

    def end(self, failure: Failure | None = None) -> None:
        """Stop, whatever is still to come."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.over.done():
            self.over.set_result(failure)

    def _advance(self) -> None:
        """Send up to the next line that waits for an answer."""
        if self._timer is not None:
            self._timer.cancel()
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.send is not None:
                self._send(line.send)
            if line.expect is not None:
                self._others = 0
                self._timer = self._loop.call_later(line.within, self._too_late)
                return
            self._at += 1
        self.end()

    def _too_late(self) -> None:
        others = f" ({self._others} others came)" if self._others else ""
        within = format_duration(self._lines[self._at].within)
        self.end(Failure(Reason.EXPECT, f"{self.waiting_for} within {within}{others}"))


def _message(step: Step) -> str | None:
    if step.send_file is not None:
        with reading("send_file"):
            return read_secret(step.send_file)
    return step.send.get_secret_value() if step.send is not None else None
