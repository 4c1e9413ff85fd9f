"""``connection-exporter watch`` in a real terminal and in a pipe, against a real exporter that comes and goes."""

import asyncio
import json
import re
import signal
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from connection_exporter.app import serving
from connection_exporter.cli.watch import Seen
from connection_exporter.cli.watch_frame import Frame
from connection_exporter.demo.ports import free_port
from connection_exporter.kinds import load_text
from connection_exporter.monitor.details import printable
from connection_exporter.web.server import bind
from rich.console import Console
from support import streams
from support.live import QUICK, web
from support.live import exporter as serves
from support.terminals import CONTROL, terminal

CONFIG: Final = """\
services:
  api: {{kind: http, url: 'http://127.0.0.1:{port}/', interval: 200ms, timeout: 200ms, retry_delay: 100ms, canary: off}}
"""
SOON: Final = """\
import asyncio, sys
from connection_exporter.cli.watch import watch
sys.exit(asyncio.run(watch(sys.argv[1], pause=float(sys.argv[2]))))
"""


class Api:
    """A real HTTP service that can be stopped."""

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def stop(self) -> None:
        self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        writer.close()


@asynccontextmanager
async def exporter(api: Api, *, port: int = 0) -> AsyncIterator[int]:
    """Run an exporter that watches ``api``, and give its port."""
    sockets = bind([f"127.0.0.1:{port}"])
    async with serving(load_text(CONFIG.format(port=await api.start()), source="test"), sockets):
        try:
            yield sockets[0].getsockname()[1]
        finally:
            api.stop()


async def test_the_board_is_live_in_the_terminal_and_q_ends_it() -> None:
    """A real fault shows without a key; afterwards the terminal is as it was."""
    api = Api()
    async with (
        exporter(api) as port,
        terminal("-m", "connection_exporter", "watch", f"127.0.0.1:{port}") as shown,
    ):
        before = termios.tcgetattr(shown.end)
        await shown.until(lambda: "1 of 1 healthy" in shown.frame)
        assert re.search(r"✓ api +healthy", shown.frame)
        api.stop()
        await shown.until(lambda: re.search(r"✕ api +disconnected .*refused: ", shown.frame) is not None)
        await shown.until(lambda: "connecting → disconnected" in shown.frame and "✕ partial" in shown.frame)
        shown.type(b"q")
        assert await shown.ended() == 0
        assert shown.text.endswith("\x1b[?25h\x1b[?1049l")
        assert termios.tcgetattr(shown.end) == before


async def test_a_cause_is_shown_while_it_applies() -> None:
    """The service stays unhealthy, and only its cause comes and goes."""
    async with web() as database, web() as service:
        service.status = "500 No"
        lines = f"database: {{kind: http, url: 'http://127.0.0.1:{database.port}/', {QUICK}}}\n"
        depends = (
            f"api: {{kind: http, url: 'http://127.0.0.1:{service.port}/', depends_on: [database], {QUICK}}}"
        )
        async with (
            serves(lines + depends) as (url, _),
            terminal("-m", "connection_exporter", "watch", url, columns=160) as shown,
        ):
            await shown.until(lambda: re.search(r"api +unhealthy .*500", shown.frame) is not None)
            assert "because of" not in shown.frame
            await database.stop()
            await shown.until(
                lambda: re.search(r"api +unhealthy .*because of database; ", shown.frame) is not None
            )
            await database.start()
            await shown.until(lambda: "2 of 2" not in shown.frame and "because of" not in shown.frame)
            assert re.search(r"api +unhealthy .*500", shown.frame)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
async def test_a_signal_ends_it_and_gives_the_terminal_back(number: signal.Signals, status: int) -> None:
    """Ctrl-C with 130, as shells expect."""
    async with (
        exporter(Api()) as port,
        terminal("-m", "connection_exporter", "watch", f"127.0.0.1:{port}") as shown,
    ):
        before = termios.tcgetattr(shown.end)
        await shown.until(lambda: "1 of 1 healthy" in shown.frame)
        if number == signal.SIGINT:
            shown.type(b"\x03")
        else:
            shown.process.send_signal(number)
        assert await shown.ended() == status
        assert "Traceback" not in shown.text
        assert shown.text.endswith("\x1b[?25h\x1b[?1049l")
        assert termios.tcgetattr(shown.end) == before


async def test_ctrl_z_gives_the_terminal_back_until_the_program_goes_on() -> None:
    """The shell gets its own screen with a cursor, and then the board is drawn again."""
    async with (
        exporter(Api()) as port,
        terminal("-m", "connection_exporter", "watch", f"127.0.0.1:{port}") as shown,
    ):
        stat = Path(f"/proc/{shown.process.pid}/stat")
        await shown.until(lambda: "1 of 1 healthy" in shown.frame)
        shown.type(b"\x1a")
        await shown.until(lambda: shown.text.endswith("\x1b[?25h\x1b[?1049l"))
        await shown.until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        shown.process.send_signal(signal.SIGCONT)
        await shown.until(lambda: "1 of 1 healthy" in shown.text.rpartition("\x1b[?1049h")[2])
        shown.type(b"q")
        assert await shown.ended() == 0


@pytest.mark.parametrize(("columns", "rows"), [(200, 50), (40, 10), (12, 3), (1, 1)])
async def test_every_size_is_kept_to(columns: int, rows: int) -> None:
    """After a change of size no line is wider and no frame higher than the terminal, whatever a shell exports."""
    fixed = {"COLUMNS": "300", "LINES": "60"}
    async with (
        exporter(Api()) as port,
        terminal("-m", "connection_exporter", "watch", f"127.0.0.1:{port}", environ=fixed) as shown,
    ):
        await shown.until(lambda: "1 of 1 healthy" in shown.frame)
        shown.text = ""
        shown.resize(columns, rows)
        shown.process.send_signal(signal.SIGWINCH)
        await shown.until(lambda: shown.text.count("\x1b[1;1H") > 2)
        for frame in shown.text.split("\x1b[1;1H")[1:]:
            lines = re.split(r"\x1b\[\d+;1H", frame)
            assert len(lines) <= rows
            assert max(len(CONTROL.sub("", line)) for line in lines) <= columns


async def test_a_slow_terminal_gets_whole_frames() -> None:
    """A frame that is larger than the terminal's buffer of 4 KiB is neither cut nor an error."""
    async with (
        exporter(Api()) as port,
        terminal("-m", "connection_exporter", "watch", f"127.0.0.1:{port}", columns=300, rows=60) as shown,
    ):
        await asyncio.sleep(2)
        await shown.until(lambda: "1 of 1 healthy" in shown.frame and shown.text.count("\x1b[1;1H") > 3)
        shown.type(b"q")
        assert await shown.ended() == 0
    frames = shown.text.split("\x1b[1;1H")[1:]
    assert {len(re.split(r"\x1b\[\d+;1H", frame)) for frame in frames} == {60}
    assert "Error" not in shown.text


async def test_it_connects_again_and_says_so() -> None:
    """While it is cut off it claims nothing; when the exporter is back, it goes on."""
    port = free_port()
    async with AsyncExitStack() as stack:
        async with exporter(Api(), port=port):
            shown = await stack.enter_async_context(
                terminal("-c", SOON, f"127.0.0.1:{port}", "0.7", columns=180)
            )
            await shown.until(lambda: "1 of 1 healthy" in shown.frame)
        await shown.until(lambda: "not known  NOT LIVE  shown is " in shown.frame)
        await shown.until(lambda: "attempt 1 of 5 to connect again" in shown.text)
        async with exporter(Api(), port=port):
            await shown.until(lambda: "1 of 1 healthy" in shown.frame)


async def test_it_gives_up_after_five_attempts() -> None:
    """With 1, and the reason on the terminal that it gives back."""
    async with terminal("-c", SOON, f"127.0.0.1:{free_port()}", "0.1", columns=180) as shown:
        assert await shown.ended() == 1
        for attempt in range(1, 6):
            assert f"attempt {attempt} of 5 to connect again in 0.1 s" in shown.text
        assert "gave up after 5 attempts" in shown.text.rpartition("\x1b[?1049l")[2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
async def test_in_a_pipe_it_prints_a_line_for_each_transition(number: signal.Signals, status: int) -> None:
    """No escape sequence, and each line at once."""
    api = Api()
    async with exporter(api) as port:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "connection_exporter",
            "watch",
            f"http://127.0.0.1:{port}/",
            stdout=-1,
            stderr=-1,
        )
        assert process.stdout is not None
        try:
            seen = ""
            while "healthy" not in seen:
                seen += (await asyncio.wait_for(process.stdout.readline(), 10)).decode()
            api.stop()
            while "disconnected" not in seen:
                seen += (await asyncio.wait_for(process.stdout.readline(), 10)).decode()
            process.send_signal(number)
            _, said = await asyncio.wait_for(process.communicate(), 10)
        finally:
            if process.returncode is None:
                process.kill()
    assert process.returncode == status
    assert re.search(r"(?m)^\d{4}-\S+Z  api  \S+ -> disconnected  refused: .*$", seen)
    assert "\x1b" not in seen
    assert said.decode() == "connection-exporter: live\n"


@pytest.mark.parametrize(
    "url", ["nonsense://x", "http://127.0.0.1:99999", "http://", "http://127.0.0.1:{port}/health"]
)
async def test_what_cannot_be_followed_is_said_at_once(url: str) -> None:
    """An address that is none, and one where no events are: no attempt is made again."""
    async with exporter(Api()) as port:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "connection_exporter", "watch", url.format(port=port), stdout=-1, stderr=-1
        )
        _, said = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 1
    assert said.decode().count("\n") == 1
    assert "Traceback" not in said.decode()


async def test_a_password_in_the_address_is_not_shown_beside_the_board() -> None:
    """Terminals are shared and recorded."""
    async with exporter(Api()) as port:
        url = f"http://me:s3cret@127.0.0.1:{port}"
        async with terminal("-m", "connection_exporter", "watch", url, columns=180) as shown:
            headline = f"1 of 1 healthy +http://127.0.0.1:{port}  q quits"
            await shown.until(lambda: re.search(headline, shown.frame) is not None)
            shown.type(b"q")
            await shown.ended()
    assert "s3cret" not in shown.text


async def first_line(url: str) -> str:
    """Return the first line that it writes to stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "connection_exporter", "watch", url),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=-1,
    )
    assert process.stderr is not None
    said = await asyncio.wait_for(process.stderr.readline(), 30)
    process.terminate()
    await process.communicate()
    return said.decode()


async def test_a_name_that_idna_2008_forbids_is_looked_up_like_any_other() -> None:
    said = await first_line("http://xn--a.invalid:8000")
    assert said.startswith("connection-exporter: cannot reach http://xn--a.invalid:8000: ")


async def test_a_redirect_to_such_a_name_is_explained() -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://xn--a.invalid/\r\nContent-Length: 0\r\n\r\n")

    async with streams.serving(redirect) as port:
        said = await first_line(f"http://127.0.0.1:{port}")
    assert said == (
        f"connection-exporter: http://127.0.0.1:{port} redirects to a host whose name is not valid\n"
    )


@pytest.mark.parametrize(
    "url", ["http://me:s3cret@{place}/health", "http://me:s3cret/@{place}", "x://me:s3cret@{place}"]
)
async def test_a_password_in_the_address_is_not_shown_at_the_end(url: str) -> None:
    """Whether the address can be read or not."""
    async with exporter(Api()) as port:
        place = f"127.0.0.1:{port}"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "connection_exporter",
            "watch",
            url.format(place=place),
            stdout=-1,
            stderr=-1,
        )
        _, said = await asyncio.wait_for(process.communicate(), 10)
    assert place in said.decode()
    assert "s3cret" not in said.decode()


@asynccontextmanager
async def sends(event: str) -> AsyncIterator[str]:
    """Serve one event at any path, and give the address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        writer.write(head + event.encode())
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("data", ["not json", "[]", "{}", '{"status": "healthy"}'])
async def test_an_unknown_stream_is_reported_on_one_line(data: str) -> None:
    """Another program may send events at the same path."""
    async with sends(f"event: board\nid: 1\ndata: {data}\n\n") as place:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "connection_exporter", "watch", place, stdout=-1, stderr=-1
        )
        _, said = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 1
    last = said.decode().splitlines()[-1]
    assert "is it a connection-exporter?" in last
    assert last.count(place) == 1
    assert "Traceback" not in said.decode()


SERVICE: Final = {
    "name": "api",
    "kind": "http",
    "status": "healthy",
    "status_since": "2026-01-01T00:00:00Z",
    "critical": True,
    "reason": None,
    "message": None,
    "retry_count": 0,
    "latency_seconds": 0.1,
    "next_attempt": None,
    "last_check": None,
    "canary": {"up": None},
    "causes": [],
}


@pytest.mark.parametrize(
    "wrong",
    [{"status_since": "yesterday"}, {"name": 5}, {"causes": 5}, {"retry_count": "many"}, {"canary": {}}],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_a_board_with_wrong_values_is_reported_on_one_line_below_the_screen(
    wrong: dict[str, Any],
) -> None:
    board = {"status": "healthy", "summary": {"total": 1}, "services": {"api": SERVICE | wrong}}
    async with (
        sends(f"event: board\nid: 1\ndata: {json.dumps(board)}\n\n") as place,
        terminal("-m", "connection_exporter", "watch", place) as shown,
    ):
        assert await shown.ended() == 1
    _, _, below = shown.text.rpartition("\x1b[?1049l")
    assert below.strip() == f"connection-exporter: {place} sends no board: is it a connection-exporter?"


def service(name: str, **facts: Any) -> dict[str, Any]:
    """Return a service as /events describes it."""
    return {
        "name": name,
        "kind": "redis",
        "status": "unhealthy",
        "critical": True,
        "reason": None,
        "message": None,
        "causes": [],
        "retry_count": 0,
        "next_attempt": None,
        "last_check": None,
        "status_since": "2026-01-01T12:00:00.000Z",
        "latency_seconds": None,
        "canary": {"up": None, "last": None},
        **facts,
    }


def drawn(seen: Seen, *, width: int, height: int = 20) -> list[str]:
    """Return the lines of a frame, without its colors."""
    console = Console(width=width, height=height)
    frame = console.render_lines(Frame(seen, 1e9), console.options.update_dimensions(width, height))
    return ["".join(segment.text for segment in line) for line in frame]


def test_a_status_of_a_newer_exporter_is_shown() -> None:
    """With the sign of what is not known."""
    services = {"s": service("s", kind="k", status="odd")}
    seen = Seen("x", link="live", overall={"status": "odder"}, services=services)
    text = "\n".join(drawn(seen, width=100))
    assert " ? odder " in text
    assert "? s        odd " in text


def test_the_last_line_counts_the_services_that_have_no_room() -> None:
    """Those that are worst have the first lines."""
    services = {f"s{index}": service(f"s{index}", status="healthy") for index in range(30)}
    services["s29"]["status"] = "disconnected"
    seen = Seen("x", link="live", overall={"status": "partial"}, services=services)
    lines = drawn(seen, width=60, height=10)
    assert lines[2].startswith("✕ s29")
    assert lines[-1].strip() == "… and 23 more, all healthy"


def test_a_long_reason_is_wrapped_if_there_is_room_and_cut_otherwise() -> None:
    """Wide characters take two columns, and no line is longer than the terminal because of them."""
    message = "接続が拒否されました " * 6
    services = {"s": service("s", reason="query", message=message)}
    seen = Seen("x", link="live", overall={"status": "degraded"}, services=services)
    wrapped = "".join(line[38:].strip() for line in drawn(seen, width=80)[4:])
    assert wrapped.replace(" ", "") == f"query:{message}".replace(" ", "")
    cut = drawn(seen, width=80, height=3)[2]
    assert "query: 接続が拒否" in cut
    assert cut.rstrip().endswith("…")


HOSTILE: Final = "\x1b]0;owned\x07\x1b[2J\r\n\u202eabc\x9b1m [red]no[/red] [/] :smile: \ud800"


async def test_a_message_cannot_steer_the_terminal() -> None:
    """Escape sequences, line breaks and rich's markup are shown, not obeyed, wherever an exporter sends them."""
    facts = dict.fromkeys(("kind", "status", "reason", "message"), HOSTILE)
    board = {
        "status": HOSTILE,
        "summary": {"total": 1, "healthy": 0, HOSTILE: 1},
        "services": {HOSTILE: service(HOSTILE, **facts, causes=[HOSTILE])},
    }
    change = {"name": HOSTILE, "from": HOSTILE, "to": HOSTILE, "at": "2026-01-01T12:00:00.000Z"}
    change |= {"reason": HOSTILE, "message": HOSTILE}
    events = "".join(
        f"event: {event}\nid: 1\ndata: {json.dumps(data)}\n\n"
        for event, data in (("board", board), ("transition", change))
    )

    async def _send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n{events}".encode())
        await reader.read()
        writer.close()

    server = await asyncio.start_server(_send, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    watch = ("-m", "connection_exporter", "watch", address)
    async with server, terminal(*watch, columns=400, rows=30) as shown:
        await shown.until(lambda: "Last changes" in shown.frame)
        shown.type(b"q")
        assert await shown.ended() == 0
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", CONTROL.sub("", shown.text))
    assert not re.search(r"\x1b(?!\[[?;\d]*[hlmHJK])", shown.text)
    assert shown.frame.count("]0;owned\ufffd\ufffd[2J  \ufffdabc\ufffd1m [red]no[/red] [/] :smile:") > 5
    assert printable("a\nb") == "a b"


async def test_a_port_where_nobody_listens_is_named_with_the_reason() -> None:
    """By address and by name, where several addresses fail."""
    for host in ("127.0.0.1", "localhost"):
        url = f"http://{host}:{free_port()}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "connection_exporter", "watch", url), stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(20):
                line = (await process.stderr.readline()).decode()
            assert f"cannot reach {url}: connection refused" in line
        finally:
            process.terminate()
            await process.wait()
