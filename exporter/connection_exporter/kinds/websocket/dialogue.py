"""Owns a dialogue: which messages are sent, which are expected, and by when. Must not know a socket.

The callback that receives messages drives it. So nothing is queued, and two answers in one packet are both seen.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from connection_exporter.config.conditions import Condition, parse_conditions
from connection_exporter.config.durations import format_duration
from connection_exporter.config.evaluation import load_json, violated
from connection_exporter.config.patterns import CompiledPattern
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.websocket.config import REFERENCE, Step, WebsocketConfig

MATCHED_LIMIT: Final = 64 * 1024
"""Bytes of a message in which a dialogue looks for its answer."""

_WORK: Final = 250_000
"""Bytes of one message times the size of the compiled pattern. It takes 7 to 15 ns for each: 4 ms at most."""

CAPTURED_LIMIT: Final = 16 * 1024
"""Bytes of a message that one group of a pattern may capture."""

_LONGEST_PROBLEM: Final = 200


class Line(NamedTuple):
    """A step with its message, its compiled pattern and its conditions. ``within`` is in seconds."""

    send: str | None
    expect: CompiledPattern | None
    conditions: tuple[Condition, ...]
    within: float

    @property
    def expects(self) -> bool:
        """Whether a message is expected."""
        return self.expect is not None or bool(self.conditions)

    @property
    def wanted(self) -> str:
        """The message that is expected, for error messages."""
        wanted = f"that matches {self.expect.source[:80]!r}" if self.expect is not None else ""
        if self.conditions:
            wanted += f"{' and' if wanted else 'that'} meets expect_json"
        return f"message {wanted}"


async def script(config: WebsocketConfig, steps: Sequence[Step]) -> tuple[Line, ...]:
    """Read the files of ``steps``, and compile their patterns and conditions. Raises `Failure`."""
    return tuple(
        [
            Line(
                await _message(step),
                CompiledPattern(step.expect) if step.expect is not None else None,
                parse_conditions(step.expect_json),
                step.within or config.timeout * 0.8,
            )
            for step in steps
        ]
    )


class Captures:
    """What the patterns of one session have captured, for the messages that are sent from then on.

    ``note`` gets each name and value, so that a secret among them can be hidden.
    """

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self._values: dict[str, str] = {}
        self._note = note

    def add(self, groups: Mapping[str, str]) -> None:
        """Take the groups of one message."""
        for name, value in groups.items():
            self._note(name, value)
            self._values[name] = value

    def fill(self, text: str) -> str:
        """Return a message with what was captured in place of ``{name}``. Other braces stay."""
        return re.sub(REFERENCE, lambda found: self._values.get(found[1], found[0]), text)


class Dialogue:
    """One run of a script. ``over`` is done when it has ended, with ``None`` or with the reason why it failed.

    It fills messages from ``captures``, and adds to them.
    """

    def __init__(self, lines: Sequence[Line], send: Callable[[str], None], captures: Captures) -> None:
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[Failure | None] = self._loop.create_future()
        self._lines = lines
        self._send = send
        self._captures = captures
        self._at = 0
        self._others = 0
        self._problem = ""  # of the last message that was not the one, if it was JSON
        self._timer: asyncio.TimerHandle | None = None

    @property
    def missing(self) -> str:
        """The message that is missing, for error messages."""
        line = self._lines[self._at] if self._at < len(self._lines) else None
        return f"no {line.wanted}" if line is not None and line.expects else "no message"

    def begin(self) -> None:
        """Send the messages up to the first one that is expected."""
        self._advance()

    def take(self, message: bytes) -> bool:
        """Take a message; return whether it answers one that was sent, and so is not part of the stream."""
        if self.over.done():
            return False
        line = self._lines[self._at]
        if not line.expects or not self._is_expected(line, message):
            self._others += 1
            return False
        self._at += 1
        self._advance()
        return line.send is not None

    def end(self, failure: Failure | None = None) -> None:
        """Stop. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.over.done():
            self.over.set_result(failure)

    def _is_expected(self, line: Line, message: bytes) -> bool:
        groups: dict[str, str] | None = {}
        if line.expect is not None:
            groups = line.expect.groups_in(message[: _WORK // line.expect.size])
        if groups is None or not self._meets(line.conditions, message):
            return False
        for name, value in groups.items():
            if len(value) > CAPTURED_LIMIT:
                limit = f"{CAPTURED_LIMIT // 1024} KiB"
                self.end(Failure(Reason.TOO_LARGE, f"the group {name} captured more than {limit}"))
        self._captures.add(groups)
        return True

    def _meets(self, conditions: Sequence[Condition], message: bytes) -> bool:
        if not conditions:
            return True
        try:
            document = load_json(message.decode())
        except ValueError:
            cut = len(message) >= MATCHED_LIMIT
            self._problem = "the last one is " + ("too long for expect_json" if cut else "not JSON")
            return False
        problem = next(violated(conditions, document), None)
        if problem is not None:
            self._problem = f"of the last one, {problem[:_LONGEST_PROBLEM]}"
        return problem is None

    def _advance(self) -> None:
        """Send up to the next line that expects a message, and start its timer."""
        if self._timer is not None:
            self._timer.cancel()
        while self._at < len(self._lines) and not self.over.done():
            line = self._lines[self._at]
            if line.send is not None:
                self._send(self._captures.fill(line.send))
            if line.expects:
                self._others, self._problem = 0, ""
                self._timer = self._loop.call_later(line.within, self._time_out)
                return
            self._at += 1
        self.end()

    def _time_out(self) -> None:
        others = f"{self._others} others arrived" if self._others else ""
        told = "; ".join(filter(None, (others, self._problem)))
        within = format_duration(self._lines[self._at].within)
        self.end(Failure(Reason.EXPECT, f"{self.missing} within {within}" + (f" ({told})" if told else "")))


async def _message(step: Step) -> str | None:
    if step.send_file is not None:
        return await step.send_file.read("send_file")
    return step.send.get_secret_value() if step.send is not None else None
