"""What the package logs, as fields."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from connection_exporter.system.log import LogEvent


class _Collect(logging.Handler):
    def __init__(self, events: list[dict[str, Any]]) -> None:
        super().__init__()
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        assert isinstance(record.msg, LogEvent)
        self._events.append({**record.msg, "log_level": record.levelname.lower()})


@contextmanager
def captured_logs() -> Iterator[list[dict[str, Any]]]:
    """Collect every event that the package logs while the block runs, debug lines included."""
    logger, events = logging.getLogger("connection_exporter"), list[dict[str, Any]]()
    handler, before = _Collect(events), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield events
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
