"""Programs in pseudo-terminals: what they write, and what a person sees on the screen."""

import asyncio
import codecs
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import pyte

CONTROL: Final = re.compile(r"\x1b\[[?\d;]*[a-zA-Z]")
"""A sequence that moves the cursor, sets a color or a mode."""


class Terminal:
    """A pseudo-terminal with a program in it, all that it has written, and its screen."""

    def __init__(self, process: asyncio.subprocess.Process, end: int, columns: int, rows: int) -> None:
        self.process = process
        self.end = end
        self.text = ""
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self.screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    @property
    def frame(self) -> str:
        """What is on the screen now, without its colors."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.end, keys)

    def read(self) -> bool:
        """Read what was written. Return False if the program has ended, and the terminal with it."""
        try:
            news = self._decoder.decode(os.read(self.end, 65536))
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.text += news
        self._stream.feed(news)
        return True

    async def until(self, condition: Callable[[], bool]) -> None:
        """Read until what was written fulfils a condition."""
        deadline = asyncio.get_running_loop().time() + 15
        while True:
            alive = self.read()
            if condition():
                return
            assert alive, self.frame
            assert asyncio.get_running_loop().time() < deadline, self.frame
            await asyncio.sleep(0.02)

    async def ended(self) -> int:
        """Return the exit status, having read what was written to the end."""
        waiting = asyncio.ensure_future(self.process.wait())
        async with asyncio.timeout(20):
            while not waiting.done():
                self.read()
                await asyncio.sleep(0.02)
        for _ in range(100):  # the last output is in the terminal's buffer
            self.read()
        return await waiting


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
async def terminal(
    *command: str,
    columns: int = 120,
    rows: int = 24,
    environ: Mapping[str, str] | None = None,
    stdout: int | None = None,
) -> AsyncIterator[Terminal]:
    """Run Python with arguments in a terminal of its own; only stdout can go elsewhere."""
    with pair() as (ours, theirs):
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        unset = {
            key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            env={**unset, "TERM": "xterm-256color", **(environ or {})},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        try:
            yield Terminal(process, ours, columns, rows)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
