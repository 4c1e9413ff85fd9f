"""Owns the messages of one connection: counts them, and passes the answers of a dialogue on. Must not know a socket.

Messages are not stored. Only the beginning of one is collected, and only while a dialogue waits for an answer.
"""

import time
from collections.abc import Callable, Sequence

from websockets.frames import Frame, Opcode

from connection_exporter.kinds.websocket.dialogue import MATCHED_LIMIT, Captures, Dialogue, Line


class Stream:
    """The messages received so far.

    ``last_message`` is the Unix time of the last one, and ``quiet_since`` the monotonic time since when none has
    arrived. Answers in a dialogue do not count.
    """

    def __init__(
        self, greeting: Sequence[Line], send_text: Callable[[str], None], captures: Captures
    ) -> None:
        self.messages = 0
        self.last_message: float | None = None
        self.quiet_since = time.monotonic()
        self.dialogue = Dialogue(greeting, send_text, captures)
        self._send_text = send_text
        self._captures = captures
        self._beginning: bytearray | None = (
            None  # of the message in progress, while a dialogue waits for its answer
        )

    def start_dialogue(self, lines: Sequence[Line]) -> None:
        """Replace the dialogue, and begin the new one."""
        self.dialogue = Dialogue(lines, self._send_text, self._captures)
        self.dialogue.begin()

    def take(self, frame: Frame) -> int:
        """Take a data frame; return the size of its payload."""
        data = frame.data
        if frame.opcode is not Opcode.CONT:
            # A message that began before the dialogue asked for something cannot be the answer.
            self._beginning = None if self.dialogue.over.done() else bytearray()
        if self._beginning is not None and len(self._beginning) < MATCHED_LIMIT:
            self._beginning += data[: MATCHED_LIMIT - len(self._beginning)]
        if frame.fin:
            beginning, self._beginning = self._beginning, None
            if beginning is None or not self.dialogue.take(bytes(beginning)):
                self.messages += 1
        return len(data)

    def note_time(self, now: float) -> None:
        """Note that a message arrived at ``now`` (monotonic)."""
        self.last_message = time.time()
        self.quiet_since = now
