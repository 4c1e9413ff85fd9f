"""Owns the terminal while ``watch`` shows the board full screen: its alternate screen, keys, signals and size."""

import asyncio
import os
import signal
import sys
import termios
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from connection_exporter.cli.watch_frame import Frame

if TYPE_CHECKING:
    from connection_exporter.cli.watch import Seen


class Screen:
    """The terminal's alternate screen, without echo. The end of the block restores the terminal."""

    def __init__(self, console: Console, seen: "Seen") -> None:
        self._console = console
        self._seen = seen
        self._before = termios.tcgetattr(sys.stdin)
        self._quit = asyncio.Event()
        self._drawing: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self.on_link)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        loop.add_reader(sys.stdin, self._key)
        # libuv has made it non-blocking, and stdout with it, which is the same terminal: frames would be cut.
        os.set_blocking(sys.stdin.fileno(), True)
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(sys.stdin)
        for number in (signal.SIGWINCH, signal.SIGTSTP):
            loop.remove_signal_handler(number)
        self._forget_drawing()
        self._leave()

    async def until_quit(self) -> None:
        """Draw once a second, so that ages and countdowns advance, until ``q`` is pressed."""
        while not self._quit.is_set():
            self._draw()
            try:
                async with asyncio.timeout(1):
                    await self._quit.wait()
            except TimeoutError:
                continue

    def on_event(self, event: str, data: dict[str, Any]) -> None:  # noqa: ARG002 - `_draw` reads `Seen`
        """Draw in 50 ms, because events come in bursts."""
        if self._drawing is None:
            self._drawing = asyncio.get_running_loop().call_later(0.05, self._draw)

    def on_link(self) -> None:
        """Draw at once. Called when the link or the size of the terminal has changed."""
        self._draw()

    def _forget_drawing(self) -> None:
        if self._drawing is not None:
            self._drawing.cancel()
            self._drawing = None

    def _draw(self) -> None:
        self._forget_drawing()
        # Rich prefers COLUMNS and LINES, which do not change with the terminal. One without a size reports 0.
        width, height = os.get_terminal_size(sys.stdout.fileno())
        self._console.size = (width or 80, height or 24)
        self._console.update_screen(Frame(self._seen, time.time()))

    def _key(self) -> None:
        if os.read(sys.stdin.fileno(), 64) in (b"q", b"Q", b""):
            self._quit.set()

    def _suspend(self) -> None:
        """Restore the terminal while the process is suspended by Ctrl-Z."""
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._enter()
        self._draw()

    def _enter(self) -> None:
        quiet = termios.tcgetattr(sys.stdin)
        quiet[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)

    def _leave(self) -> None:
        self._console.show_cursor(True)
        self._console.set_alt_screen(False)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
