"""``connection-exporter watch`` in a real terminal and in a pipe, against a real exporter that comes and goes."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest

from exporter.app import serving
from exporter.commands.watch import Seen
from exporter.commands.watch_screen import draw
from exporter.config import load_text
from exporter.demo.ports import free_port
from exporter.publish.server import bind
from exporter.record import printable

CONFIG: Final = """\
services:
  api: {{kind: http, url: 'http://127.0.0.1:{port}/', interval: 200ms, timeout: 200ms, retry_delay: 100ms, canary: off}}
"""
SOON: Final = """\
import asyncio, sys
from exporter.commands.watch import watch
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


@dataclass
class Terminal:
    """A pseudo-terminal with a program in it, and all that it has written."""

    process: asyncio.subprocess.Process
    end: int
    text: str = field(default="")

    @property
    def frame(self) -> str:
        """What is on the screen now, without its colours."""
        return re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", self.text.rpartition("\x1b[H")[2])

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.end, keys)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Read until what was written fulfils a condition."""
        deadline = asyncio.get_running_loop().time() + 15
        while True:
            try:
                self.text += os.read(self.end, 65536).decode()
            except BlockingIOError:
                pass
            except OSError:  # the program has ended, and the terminal with it
                assert condition(), self.frame
            if condition():
                return
            assert asyncio.get_running_loop().time() < deadline, self.frame
            await asyncio.sleep(0.02)

    async def ended(self) -> int:
        """Return the exit status, having read what was written to the end."""
        code = await asyncio.wait_for(self.process.wait(), 10)
        await self.until(lambda: "\x1b[?1049l" in self.text)
        return code


@contextmanager
def pair() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


@asynccontextmanager
async def terminal(*command: str, columns: int = 120, rows: int = 24) -> AsyncIterator[Terminal]:
    """Run a command in a terminal of its own."""
    with pair() as (ours, theirs):
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        try:
            yield Terminal(process, ours)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_the_board_is_live_in_the_terminal_and_q_ends_it() -> None:
    """A real fault shows without a key; afterwards the terminal is as it was."""
    api = Api()
    async with exporter(api) as port, terminal("-m", "exporter", "watch", f"127.0.0.1:{port}") as shown:
        before = termios.tcgetattr(shown.end)
        await shown.until(lambda: "1 of 1 healthy" in shown.frame)
        assert re.search(r"✓ api +healthy", shown.frame)
        api.stop()
        await shown.until(lambda: re.search(r"✕ api +disconnected .*refused: ", shown.frame) is not None)
        await shown.until(lambda: "connecting -> disconnected" in shown.frame and "✕ partial" in shown.frame)
        shown.type(b"q")
        assert await shown.ended() == 0
        assert shown.text.endswith("\x1b[?25h\x1b[?1049l")
        assert termios.tcgetattr(shown.end) == before


async def test_ctrl_c_ends_it_and_gives_the_terminal_back() -> None:
    """With 130, as shells expect."""
    async with exporter(Api()) as port, terminal("-m", "exporter", "watch", f"127.0.0.1:{port}") as shown:
        await shown.until(lambda: "1 of 1 healthy" in shown.frame)
        shown.type(b"\x03")
        assert await shown.ended() == 130
        assert "Traceback" not in shown.text


@pytest.mark.parametrize(("columns", "rows"), [(200, 50), (40, 10), (12, 3), (1, 1)])
async def test_every_size_is_kept_to(columns: int, rows: int) -> None:
    """After a change of size no line is wider and no frame higher than the terminal."""
    async with exporter(Api()) as port, terminal("-m", "exporter", "watch", f"127.0.0.1:{port}") as shown:
        await shown.until(lambda: "1 of 1 healthy" in shown.frame)
        shown.text = ""
        shown.resize(columns, rows)
        shown.process.send_signal(signal.SIGWINCH)
        await shown.until(lambda: shown.text.count("\x1b[?2026l") > 2)
        lines = [line.rstrip("\r") for line in shown.frame.split("\n")]
        assert len(lines) <= rows
        assert max(map(len, lines)) <= columns


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


async def test_in_a_pipe_it_prints_a_line_for_each_transition() -> None:
    """No escape sequence, and each line at once."""
    api = Api()
    async with exporter(api) as port:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "exporter", "watch", f"http://127.0.0.1:{port}/", stdout=-1, stderr=-1
        )
        assert process.stdout is not None
        try:
            seen = ""
            while "healthy" not in seen:
                seen += (await asyncio.wait_for(process.stdout.readline(), 10)).decode()
            api.stop()
            while "disconnected" not in seen:
                seen += (await asyncio.wait_for(process.stdout.readline(), 10)).decode()
            process.send_signal(signal.SIGINT)
            _, said = await asyncio.wait_for(process.communicate(), 10)
        finally:
            if process.returncode is None:
                process.kill()
    assert process.returncode == 130
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
            sys.executable, "-m", "exporter", "watch", url.format(port=port), stdout=-1, stderr=-1
        )
        _, said = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 1
    assert said.decode().count("\n") == 1
    assert "Traceback" not in said.decode()


async def test_a_password_in_the_address_is_not_shown_beside_the_board() -> None:
    """Terminals are shared and recorded."""
    async with exporter(Api()) as port:
        url = f"http://me:s3cret@127.0.0.1:{port}"
        async with terminal("-m", "exporter", "watch", url, columns=180) as shown:
            await shown.until(lambda: f"1 of 1 healthy  http://127.0.0.1:{port}  q quits" in shown.frame)
            shown.type(b"q")
            await shown.ended()
    assert "s3cret" not in shown.text


@pytest.mark.parametrize(
    "url", ["http://me:s3cret@{place}/health", "http://me:s3cret/@{place}", "x://me:s3cret@{place}"]
)
async def test_a_password_in_the_address_is_not_shown_at_the_end(url: str) -> None:
    """Whether the address can be read or not."""
    async with exporter(Api()) as port:
        place = f"127.0.0.1:{port}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "exporter", "watch", url.format(place=place), stdout=-1, stderr=-1
        )
        _, said = await asyncio.wait_for(process.communicate(), 10)
    assert place in said.decode()
    assert "s3cret" not in said.decode()


@pytest.mark.parametrize("data", ["not json", "[]", "{}", '{"status": "healthy"}'])
async def test_a_stream_of_something_else_is_told_in_a_line(data: str) -> None:
    """Another program may send events at the same path."""

    async def _other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        writer.write(head + f"event: board\nid: 1\ndata: {data}\n\n".encode())
        await reader.read()
        writer.close()

    server = await asyncio.start_server(_other, "127.0.0.1", 0)
    async with server:
        place = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "exporter", "watch", place, stdout=-1, stderr=-1
        )
        _, said = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 1
    assert "is a connection-exporter there?" in said.decode().splitlines()[-1]
    assert "Traceback" not in said.decode()


def test_a_status_of_a_newer_exporter_is_shown() -> None:
    """With the sign of what is not known."""
    service = {"name": "s", "kind": "k", "status": "odd", "critical": True, "reason": None, "message": None,
               "retry_count": 0, "next_attempt": None, "last_check": None, "status_since": "2026-01-01T12:00:00.000Z",
               "latency_seconds": None, "canary": {"up": None, "last": None}}  # fmt: skip
    seen = Seen("x", link="live", overall={"status": "odder"}, services={"s": service})
    text = "\n".join(draw(seen, width=100, height=20, now=1e9, colour=False))
    assert " ? odder " in text
    assert "? s        odd " in text


def test_a_message_cannot_steer_the_terminal() -> None:
    """Escape sequences and line breaks of a service are shown, not obeyed."""
    seen = Seen("x", link="live", overall={"status": "degraded", "summary": {"healthy": 0, "total": 1}})
    evil = "\x1b]0;owned\x07\x1b[2J\r\n\u202eabc\x9b1m"
    seen.services["s"] = {
        "name": "s" + evil[:9],
        "kind": "redis",
        "status": "unhealthy",
        "critical": True,
        "reason": "query",
        "message": evil,
        "retry_count": 0,
        "next_attempt": None,
        "last_check": None,
        "status_since": "2026-01-01T12:00:00.000Z",
        "latency_seconds": None,
        "canary": {"up": None, "last": None},
    }
    text = "\n".join(draw(seen, width=200, height=20, now=1e9, colour=False))
    assert "owned" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert printable("a\nb") == "a b"
