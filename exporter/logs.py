"""Owns the log: one line per event on standard error, as logfmt or JSON, never with a secret in it.

So an exception is logged with its types and frames and without its text: a driver may put anything into
that, the password that it could not parse included.
"""

import logging
import sys
import traceback
from collections.abc import Iterator
from typing import Any, Final

import structlog
from structlog.typing import EventDict

LEVELS: Final = ("debug", "info", "warning", "error")


def configure(*, level: str = "info", format: str = "logfmt") -> None:  # noqa: A002 - the flag's own word
    """Send every line, the libraries' warnings included, to standard error."""
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if format == "json"
        else structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "event"], drop_missing=True, bool_as_flag=False
        )
    )
    structlog.configure(
        processors=[
            *([] if format == "json" else [_lists_as_text]),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _without_none,
            _frames_of_exception,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,  # a cached logger would go on by a configuration that is no more
    )
    logging.basicConfig(handlers=[_ToStructlog()], level=max(number, logging.WARNING), force=True)


def leave_to_host() -> None:
    """Hand every line to the standard library's loggers ``exporter.…``, for the program that uses us decides.

    Does nothing where structlog has been configured, by us or by that program.
    """
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            _lists_as_text,
            _without_none,
            _frames_of_exception,
            structlog.processors.LogfmtRenderer(key_order=["event"], drop_missing=True, bool_as_flag=False),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


class _ToStructlog(logging.Handler):
    """Takes what libraries log by the standard library, and writes it as our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        first_line = record.getMessage().partition("\n")[0]  # asyncio puts reprs of exceptions below
        log.log(record.levelno, first_line, logger=record.name, exc_info=(record.exc_info or (None, None))[1])


def _frames_of_exception(_: Any, __: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        event["exception"] = "\n".join(_frames(error))
    return event


def _frames(error: BaseException) -> Iterator[str]:
    """Yield the lines of a traceback, those of its causes first, with no word of any message."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _frames(cause)
    for frame in traceback.extract_tb(error.__traceback__):
        yield f'File "{frame.filename}", line {frame.lineno}, in {frame.name}'
    yield f"{type(error).__module__}.{type(error).__qualname__}"
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _frames(one)


def _without_none(_: Any, __: str, event: EventDict) -> EventDict:
    return {key: value for key, value in event.items() if value is not None}


def _lists_as_text(_: Any, __: str, event: EventDict) -> EventDict:
    return {k: ",".join(map(str, v)) if isinstance(v, list | tuple) else v for k, v in event.items()}
