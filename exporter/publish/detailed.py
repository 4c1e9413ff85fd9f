"""Owns /health/detailed as text: what `snapshot.detailed` says, without holding up the event loop.

The text of a service is kept until something happens to it: all of 1,000 take 49 ms, and 10 where one
in six has changed.
"""

import json
from typing import Any, Final

from exporter import snapshot
from exporter.board import Board
from exporter.publish.pause import Pause
from exporter.record import Record

_PART: Final = 1000
"""Services that are sent at once."""


class Detailed:
    """Renders a board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._kept: dict[str, tuple[Record, int, str]] = {}

    async def parts(self) -> list[bytes]:
        """Return the JSON of the board, as one look at it gives it, in parts."""
        pause = Pause()
        for record in self._board.records():
            self._text(record)
            await pause.if_due()
        records = self._board.records()
        texts = [self._text(record) for record in records]  # few have changed since
        head = f'{dumps(snapshot.overall(self._board))[:-1]}, "services": {{'
        self._forget(records)
        parts = [head.encode()]
        for start in range(0, len(texts), _PART):
            part = ", ".join(texts[start : start + _PART])
            parts.append((f", {part}" if start else part).encode())
            await pause.if_due()
        parts.append(b"}}\n")
        return parts

    def _text(self, record: Record) -> str:
        kept = self._kept.get(record.name)
        if kept is not None and kept[0] is record and kept[1] == record.version:
            return kept[2]
        text = f'"{record.name}": {dumps(snapshot.service(record))}'
        self._kept[record.name] = record, record.version, text
        return text

    def _forget(self, records: list[Record]) -> None:
        if len(self._kept) > len(records):
            names = {record.name for record in records}
            self._kept = {name: kept for name, kept in self._kept.items() if name in names}


def dumps(value: Any) -> str:
    """Return ``value`` as JSON, in the one way in which this exporter writes it."""
    return json.dumps(value, ensure_ascii=False)
