"""The log: whatever standard error is, nobody who logs waits or gets an error. A library logs where its host wants."""

import asyncio
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from connection_exporter.demo.servers import free_port
from connection_exporter.runtime import logs
from connection_exporter.runtime.logs import LogWriter, log_to_stderr
from connection_exporter.system.log import LogEvent, as_logfmt, get_logger
from hypothesis import given
from hypothesis import strategies as st
from support.served import Served
from support.threads import no_threads

USE = """
import asyncio, logging, sys
from connection_exporter import Monitor
from connection_exporter.kinds import load_text
from connection_exporter.demo.servers import HttpApi
logging.basicConfig(level=getattr(logging, sys.argv[1]), stream=sys.stderr)
async def main():
    async with HttpApi() as api:
        config = load_text(f"services: {{api: {{kind: http, url: '{api.url}', canary: off}}}}")
        async with Monitor(config) as monitor:
            await monitor.force_check()
asyncio.run(main())
"""


def use(level: str) -> subprocess.CompletedProcess[str]:
    """Use the library in a program of its own, whose logging is at ``level``."""
    return subprocess.run(
        (sys.executable, "-c", USE, level), capture_output=True, text=True, timeout=30, check=True
    )


def test_a_library_logs_nothing_that_its_host_has_not_asked_for() -> None:
    """No line per probe on somebody else's standard output."""
    silent = use("WARNING")
    assert (silent.stdout, silent.stderr) == ("", "")


def test_a_host_that_asks_gets_the_lines_by_its_own_logging() -> None:
    """Under the names of our modules."""
    assert "DEBUG:connection_exporter.monitor.service_loop:event=probe name=api" in use("DEBUG").stderr


def test_fields_are_logged_under_their_names_and_without_those_that_are_none() -> None:
    """Also fields whose names mean something to the standard library's loggers."""
    with captured() as lines:
        get_logger("connection_exporter.it").warning(
            "it_happened", name="cache", module="x", message="y", none=None
        )
    assert lines == ["event=it_happened name=cache module=x message=y"]


def test_a_record_is_that_of_logger_log_except_for_its_place() -> None:
    """Levels, filters, `logging.disable` and a host's class of records count all the same."""

    class Marked(logging.LogRecord):
        marked = True

    records: list[logging.LogRecord] = []
    logger = logging.getLogger("connection_exporter.record")
    ours, factory = get_logger(logger.name), logging.getLogRecordFactory()

    class Host(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    def no_secret(record: logging.LogRecord) -> bool:
        return "secret" not in record.getMessage()

    handler = Host()
    logger.addHandler(handler)
    logger.addFilter(no_secret)
    logging.setLogRecordFactory(Marked)
    try:
        for level in (logging.DEBUG, logging.WARNING):
            logger.setLevel(level)
            for disabled in (logging.NOTSET, logging.INFO, logging.ERROR):
                logging.disable(disabled)
                for log, number in (
                    (ours.debug, logging.DEBUG),
                    (ours.info, logging.INFO),
                    (ours.warning, logging.WARNING),
                    (ours.error, logging.ERROR),
                ):
                    for event in ("it_happened", "a_secret"):
                        log(event, name="x")
                        mine, records[:] = records[:], []
                        logger.log(number, LogEvent(event=event, name="x"))
                        theirs, records[:] = records[:], []
                        assert [essence_of(record) for record in mine] == [essence_of(r) for r in theirs]
    finally:
        logging.disable(logging.NOTSET)
        logging.setLogRecordFactory(factory)
        logger.removeFilter(no_secret)
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def essence_of(record: logging.LogRecord) -> dict[str, object]:
    """Return what a handler sees of a record, without its time and the line that logged it."""
    omitted = {"created", "msecs", "relativeCreated", "pathname", "filename", "module", "lineno", "funcName"}
    seen = {key: value for key, value in vars(record).items() if key not in omitted}
    return {**seen, "text": record.getMessage(), "type": type(record)}


VALUES = st.text() | st.text(' ="\\\na') | st.booleans() | st.none() | st.integers() | st.floats()


@given(st.dictionaries(st.sampled_from("abcd"), VALUES))
def test_our_logfmt_is_that_of_structlog(fields: dict[str, Any]) -> None:
    """Which is what other logfmt readers are tested with."""
    assert as_logfmt(fields) == structlog.processors.LogfmtRenderer(bool_as_flag=False)(None, "", fields)


@given(
    st.floats(0, 2**32)
    | st.builds(lambda s, f: s + f, st.integers(0, 2**32), st.sampled_from([0, 0.9999999]))
)
def test_a_timestamp_is_that_of_datetime(seconds: float) -> None:
    """Most lines share all but the microseconds with the one before, so the rest is kept."""
    plain = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    assert logs._timestamp(seconds) == plain.replace("+00:00", "Z")


@contextmanager
def captured() -> Iterator[list[str]]:
    """Collect lines as any host's handler would see them."""
    lines: list[str] = []

    class Host(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler, logger = Host(), logging.getLogger("connection_exporter")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


@contextmanager
def standard_error(descriptor: int) -> Iterator[None]:
    """Have descriptor 2 be another file while the block runs."""
    saved = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def logged(log: Callable[[], None], *, level: str = "info", style: str = "logfmt") -> list[str]:
    """Return the lines that ``log`` writes to standard error."""
    reading, writing = os.pipe()
    with standard_error(writing):
        os.close(writing)
        with log_to_stderr(level=level, format=style):
            log()
    with os.fdopen(reading) as pipe:
        return pipe.read().splitlines()


class Broken:
    """A value that cannot be rendered."""

    def __str__(self) -> str:
        raise SystemError

    __repr__ = __str__


def everything() -> None:
    log = get_logger("connection_exporter.it")
    log.debug("too_quiet")
    log.info("it_happened", names=["a", "b"], nothing=None)
    try:
        raise LookupError("s3cret")
    except LookupError as error:
        log.error("it_failed", exc_info=error)
    log.error("unrenderable", value=Broken())
    logging.getLogger("a.library").info("too quiet")
    logging.getLogger("a.library").warning("two\nlines")
    print("printed", "text")
    print("an unfinished line", end="", file=sys.stderr)


def test_every_line_reaches_standard_error_as_logfmt() -> None:
    """Ours, libraries' warnings, and what anybody prints."""
    lines = logged(everything)
    assert len(lines) == 5
    assert lines[0].startswith("timestamp=20")
    assert lines[0].endswith("level=info event=it_happened names=a,b")
    assert "LookupError" in lines[1]
    assert "s3cret" not in "".join(lines)
    assert "cannot be rendered: SystemError" in lines[2]
    assert lines[3].endswith("level=warning event=two logger=a.library")
    assert lines[4] == "printed text"


def test_json_lines_can_be_parsed() -> None:
    lines = [json.loads(line) for line in logged(everything, style="json") if line[0] == "{"]
    assert [line["event"] for line in lines[:2]] == ["it_happened", "it_failed"]
    assert lines[0] == {
        "event": "it_happened",
        "names": ["a", "b"],
        "level": "info",
        "timestamp": lines[0]["timestamp"],
    }


def test_all_is_as_before_when_the_block_ends() -> None:
    """A test or a host that runs the program inside its own process keeps its streams and handlers."""
    before = sys.stdout, sys.stderr, logging.getLogger().handlers[:], logging.getLogger().level
    logged(everything)
    assert (sys.stdout, sys.stderr, logging.getLogger().handlers[:], logging.getLogger().level) == before


def report(count: int) -> str:
    return f"dropped {count}"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_full_pipe_costs_the_newest_lines_which_are_counted_and_reported() -> None:
    """Nobody waits, the oldest lines stay, and one line says how many are missing, once the pipe is read again."""
    reading, writing = os.pipe()
    log = LogWriter(writing, report=report)
    count = 60_000
    began = time.thread_time()
    for number in range(count):
        log.put(f"line {number} {'x' * 100}")
    assert time.thread_time() - began < 5
    assert log.dropped > 0
    kept = count - log.dropped
    assert kept * 100 < logs.QUEUE_BYTES * 1.2
    with os.fdopen(reading) as pipe:
        assert [pipe.readline().split()[1] for _ in range(kept)] == [str(number) for number in range(kept)]
        assert pipe.readline() == f"dropped {log.dropped}\n"
        log.put("the next")
        assert pipe.readline() == "the next\n"
        log.close()
        os.close(writing)
        assert pipe.read() == ""


def test_a_closed_pipe_costs_lines_and_nothing_else() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    log = LogWriter(writing, report=report)
    for number in range(10):
        log.put(str(number))
    until(lambda: log.dropped == 10)
    log.close()
    os.close(writing)


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    log = LogWriter(descriptor, report=report)
    log.put("it")
    until(lambda: log.dropped == 1)
    log.close()
    os.close(descriptor)


def test_lines_are_written_and_reported_again_when_the_disk_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that was written in part is ended before the next."""
    monkeypatch.setattr(logs, "_RETRY_EVERY", 0.01)
    file = tmp_path / "log"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = LogWriter(descriptor, report=report)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        log.put("123456")
        until(lambda: file.stat().st_size == 7)
        log.put("abcdef")
        until(lambda: log.dropped == 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    until(lambda: "dropped 1" in file.read_text())
    log.put("next")
    log.close()
    os.close(descriptor)
    assert file.read_text() == "123456\nabc\ndropped 1\nnext\n"


def test_a_pipe_that_another_process_made_non_blocking_loses_nothing() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    log = LogWriter(writing, report=report)
    for number in range(20_000):
        log.put(f"{number:0100}")
    with os.fdopen(reading) as pipe:
        assert [int(pipe.readline()) for _ in range(20_000)] == list(range(20_000))
    log.close()
    os.close(writing)
    assert log.dropped == 0


def test_lines_wait_for_a_thread_that_could_not_be_started() -> None:
    reading, writing = os.pipe()
    log = LogWriter(writing, report=report)
    with no_threads():
        log.put("first")
    log.put("second")
    with os.fdopen(reading) as pipe:
        assert (pipe.readline(), pipe.readline()) == ("first\n", "second\n")
    log.close()
    os.close(writing)


def test_any_thread_may_log() -> None:
    """No line is lost or mixed with another."""
    reading, writing = os.pipe()
    log = LogWriter(writing, report=report)

    def write() -> None:
        for number in range(200):
            log.put(f"{number:0500}")

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    with os.fdopen(reading) as pipe:
        found = [int(pipe.readline()) for _ in range(1600)]
    assert sorted(found) == sorted(list(range(200)) * 8)
    log.close()
    os.close(writing)


CONFIG = """\
defaults: {{interval: 100ms, timeout: 100ms, retry_delay: 10ms, max_retry_delay: 20ms}}
services: {{gone: {{kind: redis, url: "redis://127.0.0.1:{port}"}}}}
"""


@contextmanager
def pipe_that_nobody_reads() -> Iterator[int]:
    """Give a full pipe."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    try:
        yield writing
    finally:
        os.close(reading)
        os.close(writing)


async def test_the_exporter_serves_and_ends_with_an_output_that_nobody_reads(tmp_path: Path) -> None:
    """With thousands of debug lines and stdout and stderr full, it answers, counts, and obeys SIGTERM."""
    with pipe_that_nobody_reads() as pipe:
        config = CONFIG.format(port=free_port())
        async with Served(config, tmp_path, output=pipe, flags=["--log.level=debug"]) as served:
            await served.until("gone", "disconnected", within=20)
            served.send(signal.SIGTERM)
            assert await served.ended(within=20) == 0


async def test_dropped_lines_are_counted_while_the_exporter_runs(tmp_path: Path) -> None:
    """The disk of its log is full."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with Served(CONFIG.format(port=free_port()), tmp_path, output=full) as served:
            await served.until("gone", "disconnected", within=20)
            metrics = str(await served.get("/metrics"))
            (dropped,) = [
                line for line in metrics.splitlines() if line.startswith("connection_exporter_log_lines")
            ]
            assert float(dropped.split()[1]) >= 2, "at least `listening` and one transition"
            served.send(signal.SIGTERM)
            assert await served.ended(within=20) == 0
    finally:
        os.close(full)


@pytest.mark.parametrize("close", ["2>&-", ">&-", "<&- >&- 2>&-", "2>&1 | true", "2>/dev/full"])
async def test_the_exporter_serves_even_if_its_output_fails(tmp_path: Path, close: str) -> None:
    """A closed stream, a reader that is gone, a full disk. Descriptor 2 is not given to a socket of ours."""
    served = Served(CONFIG.format(port=free_port()), tmp_path)
    config, port = tmp_path / "config.yml", served.port
    script = (
        f'"$0" -m connection_exporter serve --config.file="$1" --web.listen-address=127.0.0.1:{port} {close}'
    )
    command = ["sh", "-c", script, sys.executable, str(config)]
    shell = subprocess.Popen(command, process_group=0)  # noqa: ASYNC220 - it does not block
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    status = await served.get("/health/service/gone")
                except OSError:
                    await asyncio.sleep(0.02)
                    continue
                if status["status"] == "disconnected":
                    break
        os.killpg(shell.pid, signal.SIGTERM)
        await asyncio.to_thread(shell.wait, 20)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()


DYING = """\
import sys
from connection_exporter.cli.main import main
from connection_exporter.monitor.supervisor import Supervisor

async def die(self, died):
    raise RuntimeError("the monitor has died" * 10_000)

Supervisor._watch = die
sys.exit(main(sys.argv[1:]))
"""


def test_a_monitor_that_dies_ends_the_process_though_nobody_reads_its_output(tmp_path: Path) -> None:
    """With the traceback where there is somebody to read it."""
    (tmp_path / "config.yml").write_text(CONFIG.format(port=1))
    command = [sys.executable, "-c", DYING, "serve", f"--config.file={tmp_path / 'config.yml'}"]
    command.append(f"--web.listen-address=127.0.0.1:{free_port()}")
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1
    assert b"in die" in done.stderr
    with pipe_that_nobody_reads() as pipe:
        assert subprocess.run(command, stderr=pipe, timeout=60, check=False).returncode == 1
