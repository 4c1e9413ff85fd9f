"""Makes the loggers of this package: events with named fields, over the standard library's loggers.

A program that uses `Monitor` receives our events from ``logging.getLogger("connection_exporter")`` and below, as
logfmt, and keeps its own logging configuration. An exception is logged with its types and frames and without its text:
a driver may put anything into that text, including a password.

No logging library is used: where rich is installed, importing structlog takes a quarter of the time of ``validate``.
A test compares our logfmt with structlog's.
"""

import logging
import traceback
from collections.abc import Iterator, Mapping
from typing import Any


class LogEvent(dict[str, Any]):
    """The message of a log record: the field ``event``, and then all others. As a string, it is logfmt."""

    def __str__(self) -> str:
        return as_logfmt(self)


class Logger:
    """The logger of a module: ``log.info("event_name", field=value)``. Fields that are None are left out."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        """Log an event at level DEBUG."""
        if self._logger.isEnabledFor(logging.DEBUG):  # each check asks, and hardly ever is it
            self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Log an event at level INFO."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log an event at level WARNING."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Log an event at level ERROR."""
        self._log(logging.ERROR, event, fields)

    def log(self, level: int, event: str, at: float, **fields: object) -> None:
        """Log an event that happened before, ``at`` so many seconds since the epoch."""
        self._log(level, event, fields, at)

    def _log(self, level: int, event: str, fields: dict[str, object], at: float | None = None) -> None:
        if not self._logger.isEnabledFor(level):
            return
        error = fields.pop("exc_info", None)
        if isinstance(error, BaseException):
            fields["exception"] = frames(error)
        message = LogEvent(event=event)
        for key, value in fields.items():
            if value is not None:
                message[key] = value
        # Not by `Logger.log`, which looks for its caller: that is this line, and takes 3 us.
        record = self._logger.makeRecord(self._logger.name, level, "", 0, message, (), None)
        if at is not None:
            record.created, record.msecs = at, at % 1 * 1000
        self._logger.handle(record)


def get_logger(name: str) -> Logger:
    """Return the logger of a module. Call it with ``__name__``."""
    return Logger(name)


def as_logfmt(fields: Mapping[str, object]) -> str:
    """Return ``key=value`` for each field. A value with a space, ``=`` or ``"`` is quoted."""
    return " ".join([f"{key}={_value(value)}" for key, value in fields.items()])


def frames(error: BaseException) -> str:
    """Return the frames of a traceback and the types of its exceptions, causes first, without any message."""
    return "\n".join(_frames(error))


def _value(value: object) -> str:
    text = value if type(value) is str else _text(value)
    if "\n" in text or "\\" in text or '"' in text:
        quoted = " " in text or "=" in text or '"' in text
        if quoted:
            text = text.replace("\\", "\\\\").replace('"', '\\"')
        text = text.replace("\n", "\\n")
        return f'"{text}"' if quoted else text
    return f'"{text}"' if " " in text or "=" in text else text


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _frames(error: BaseException) -> Iterator[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _frames(cause)
    for frame in traceback.extract_tb(error.__traceback__):
        yield f'File "{frame.filename}", line {frame.lineno}, in {frame.name}'
    yield f"{type(error).__module__}.{type(error).__qualname__}"
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _frames(one)
