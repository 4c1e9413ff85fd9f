"""Writes the log of the process to standard error, as logfmt or JSON, from a bounded queue in a thread of its own.

Nobody who logs ever waits or gets an error, whatever standard error is: a full pipe, a closed one, a full disk. Lines
that cannot be written are dropped and counted, and one line reports them when writing succeeds again.
"""

import io
import json
import logging
import math
import os
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache, partial
from threading import Condition, Thread
from typing import Any, Final

from connection_exporter.system.log import LogEvent, as_logfmt, frames

QUEUE_BYTES: Final = 4 * 1024 * 1024
"""Lines of up to this size together wait for the writer; of more, the newest are dropped."""

LAST_LINES_WITHIN: Final = 1.0
"""Seconds for which the end of the process waits for the lines that are still queued."""

_Render = Callable[[Mapping[str, str], Mapping[str, Any]], str]
"""Renders time and level, and the fields of an event, as a line."""

_BATCH_BYTES: Final = 64 * 1024
_RETRY_EVERY: Final = 5.0
"""Seconds between attempts to report dropped lines, while nothing else is logged."""


@contextmanager
def log_to_stderr(
    *,
    level: str = "info",
    format: str = "logfmt",  # noqa: A002 - the flag's own word
    replace_streams: bool = True,
) -> Iterator["LogWriter"]:
    """Send every log line to standard error while the block runs: our own, and the warnings of libraries.

    With ``replace_streams``, so are the lines that anybody prints to ``sys.stdout`` or ``sys.stderr``, because they
    could block the event loop. To be used in the main thread.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    render = _as_json if format == "json" else _as_logfmt
    writer = LogWriter(2, report=partial(_report, render))
    root, ours = logging.getLogger(), logging.getLogger("connection_exporter")
    before = root.handlers[:], root.level, ours.level, sys.stdout, sys.stderr
    root.handlers[:] = [_Handler(writer, render)]
    root.setLevel(max(number, logging.WARNING))
    ours.setLevel(number)
    if replace_streams:
        sys.stdout = sys.stderr = _Stream(writer)
    try:
        yield writer
    finally:
        root.handlers[:], root_level, our_level, sys.stdout, sys.stderr = before
        root.setLevel(root_level)
        ours.setLevel(our_level)
        writer.close()


class LogWriter:
    """The queue, and the thread that writes it to a file descriptor. Any thread may use it.

    ``dropped`` is the number of lines that were never written. ``report`` renders the line that reports them.
    """

    def __init__(self, descriptor: int, *, report: Callable[[int], str]) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._report = report
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._unreported = 0
        self._torn = False
        self._closed = False
        self._changed = Condition()
        self._thread: Thread | None = None

    def put(self, line: str) -> None:
        """Queue a line, or count it as dropped. Never blocks and never raises."""
        data = line.encode(errors="backslashreplace") + b"\n"
        with self._changed:
            if self._queued_bytes + len(data) > QUEUE_BYTES:
                self.dropped += 1
                self._unreported += 1
                return
            self._queue.append(data)
            self._queued_bytes += len(data)
            if self._thread is None:
                self._start()
            self._changed.notify()

    def close(self) -> None:
        """Let the thread write what is queued, for `LAST_LINES_WITHIN` seconds at most. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(LAST_LINES_WITHIN)

    def _start(self) -> None:
        thread = Thread(target=self._run, name="log", daemon=True)
        with suppress(RuntimeError):  # no thread can be started: the next line tries again
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while (lines := self._take()) is not None:
            if lost := self._write(lines).count(b"\n"):
                with self._changed:
                    self.dropped += lost
                    self._unreported += lost
            count = self._unreported
            if count and not self._queue and not self._write(self._report(count).encode() + b"\n"):
                with self._changed:
                    self._unreported -= count

    def _take(self) -> bytes | None:
        """Return the next lines, or nothing when it is time to report dropped ones; None at the end."""
        with self._changed:
            while not self._queue and not self._closed:
                if not self._changed.wait(_RETRY_EVERY if self._unreported else None):
                    return b""
            if not self._queue:
                return None
            lines: list[bytes] = []
            size = 0
            while self._queue and size < _BATCH_BYTES:
                lines.append(self._queue.popleft())
                size += len(lines[-1])
            self._queued_bytes -= size
            return b"".join(lines)

    def _write(self, data: bytes) -> bytes:
        """Write ``data``, however long that takes; return the part that could not be written."""
        if self._torn and data:
            data = b"\n" + data
        written = 0
        with suppress(OSError):  # closed, full, or gone: the caller counts the lines
            while written < len(data):
                try:
                    written += os.write(self._descriptor, data[written:])
                except BlockingIOError:  # another process that shares the pipe has made it non-blocking
                    writable = select.poll()
                    writable.register(self._descriptor, select.POLLOUT)
                    writable.poll()
        if written:
            self._torn = data[written - 1] != ord("\n")
        return data[written:]


class _Handler(logging.Handler):
    """Renders log records, ours and those of libraries, and queues them."""

    def __init__(self, writer: LogWriter, render: _Render) -> None:
        super().__init__()
        self._writer = writer
        self._render = render

    def createLock(self) -> None:  # noqa: N802 - the base class's name
        """Have no lock: the queue has one, and a signal handler that logs must not wait for another."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Emit the record without a lock, on which the base class insists from Python 3.13 on."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record; one that cannot be rendered loses its fields."""
        head = {"timestamp": _timestamp(record.created), "level": record.levelname.lower()}
        try:
            line = self._render(head, _fields(record))
        except Exception as error:  # noqa: BLE001 - a field of any type may fail in any way
            problem = f"a log line of {record.name} cannot be rendered: {type(error).__name__}"
            line = self._render(head, {"event": problem})
        self._writer.put(line)


class _Stream(io.TextIOBase):
    """A text stream whose lines go into the log's queue as they are."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._begun = ""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str, /) -> int:
        """Queue every complete line."""
        *lines, self._begun = (self._begun + text)[-QUEUE_BYTES:].split("\n")
        for line in lines:
            self._writer.put(line)
        return len(text)


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    if isinstance(record.msg, LogEvent):
        return record.msg
    first_line = record.getMessage().partition("\n")[0]  # asyncio puts reprs of exceptions below it
    fields = {"event": first_line, "logger": record.name}
    error = record.exc_info[1] if record.exc_info else None
    return fields | ({"exception": frames(error)} if error is not None else {})


def _report(render: _Render, count: int) -> str:
    head = {"timestamp": _timestamp(time.time()), "level": "warning"}
    return render(head, {"event": "log_lines_dropped", "count": count})


def _timestamp(seconds: float) -> str:
    fraction, whole = math.modf(seconds)
    microseconds = round(fraction * 1e6)
    if microseconds == 1_000_000:
        whole, microseconds = whole + 1, 0
    return f"{_second(whole)}.{microseconds:06}Z"


@lru_cache(maxsize=2)  # most lines share their second with the one before, and to format it takes 2 us
def _second(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec="seconds")


def _as_logfmt(head: Mapping[str, str], fields: Mapping[str, Any]) -> str:
    return as_logfmt({**head, **fields, **head})


def _as_json(head: Mapping[str, str], fields: Mapping[str, Any]) -> str:
    return json.dumps({**fields, **head}, default=repr)
