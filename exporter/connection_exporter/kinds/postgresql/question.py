"""Owns a request and what is kept of the answer to it. No I/O.

Most answers repeat an earlier one, byte for byte. Then that one counts, and its messages are not read again.
"""

from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kinds.postgresql.errors import ErrorResponse
from connection_exporter.kinds.postgresql.messages import Violation, first_column_is_boolean, first_values

_ROW: Final = ord("D")
_DESCRIPTION: Final = ord("T")
_COPY_IN: Final = frozenset(b"GW")
"""The server waits for rows from us (CopyInResponse, CopyBothResponse)."""

_LONGEST_KEPT: Final = 256
"""Bytes of an answer that is kept to be compared with later ones. Usual answers have 60 to 80."""


class Answer:
    """What a server has answered. It does not change any more once it is complete."""

    row: list[str | None] | None = None
    """The first values of the first row."""

    boolean: bool | None = None
    """Whether the first column is of type boolean; ``None`` if the server has not described it."""

    error: ErrorResponse | None = None

    is_repeatable = True
    """Whether the same bytes mean the same again."""


class Question:
    """A request, the last answer to it, and the ``seconds`` that it took.

    ``what`` completes "the server does not answer …". Of the first row, ``columns`` values are kept.
    """

    __slots__ = ("_bytes_of_kept", "_columns", "_kept", "answer", "request", "seconds", "what")

    def __init__(self, request: bytes, what: str, *, columns: int = 0) -> None:
        self.request = request
        self.what = what
        self.answer = Answer()
        self.seconds = 0.0
        self._columns = columns
        self._kept = self.answer
        self._bytes_of_kept = b""

    def begin(self) -> None:
        """Expect a new answer."""
        self.answer = Answer()

    def repeated_by(self, data: bytes) -> int:
        """Return how many bytes at the beginning of ``data`` repeat the kept answer, which then counts; 0 if none do.

        This takes 30 opcodes, where the four or five messages of an answer take 400 to 700.
        """
        if not self._bytes_of_kept or not data.startswith(self._bytes_of_kept):
            return 0
        self.answer = self._kept
        return len(self._bytes_of_kept)

    def keep(self, data: bytes) -> None:
        """Keep the answer, which ``data`` is the whole of, if it is short."""
        if self.answer.is_repeatable and len(data) <= _LONGEST_KEPT:
            self._kept, self._bytes_of_kept = self.answer, data

    def take(self, kind: int, body: bytes) -> None:
        """Take one message of the answer. Raises `Violation`."""
        answer = self.answer
        if kind == _ROW:
            if answer.row is None and self._columns:
                answer.row = first_values(body, self._columns)
        elif kind == _DESCRIPTION:
            if answer.boolean is None and self._columns:
                answer.boolean = first_column_is_boolean(body)
        elif kind in _COPY_IN:
            raise Violation(Reason.QUERY, "waits for data: the query must not be COPY … FROM STDIN")

    def take_error(self, error: ErrorResponse) -> None:
        """Take an error, the first of which counts."""
        self.answer.error = self.answer.error or error
        self.answer.is_repeatable = False
