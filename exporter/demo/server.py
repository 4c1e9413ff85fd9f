"""Owns the life of one server of the demo: start, stop, kill, freeze, and no process left behind.

It knows no kind of server: those are in `exporter.demo.servers`. It does not depend on an event loop,
so one server may serve many of them (a fixture of a whole test session).
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import psutil

from exporter.demo.guard import Guard
from exporter.demo.ports import free_port, is_free

_LAUNCH = Path(__file__).with_name("launch.py")
_PACKAGE_PARENT = Path(__file__).parents[2]
_POLL = 0.01


class ServerError(Exception):
    """A server of the demo did not start; the message holds the end of its log."""


class Server:
    """A server in a child process of its own; the port stays the same over restarts.

    A kind of server says in `command` what to run, and in `ready` whether it serves yet; the rest is the
    same for all. ``folder`` is where it keeps its files and its log; without one it gets a temporary one,
    which goes when the server is closed.
    """

    name = "server"
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path | None = None) -> None:
        self._temporary = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="ce-")) if folder is None else folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._family: list[psutil.Process] = []
        self._guard: Guard | None = None

    def __repr__(self) -> str:
        pid = self._process.pid if self._process is not None and self.running else None
        return f"<{type(self).__name__} port={self.port} pid={pid}>"

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def command(self) -> Sequence[str]:
        """Return the program, as a path, and its arguments."""
        raise NotImplementedError

    async def ready(self) -> bool:
        """Tell whether it serves. May raise OSError for not yet."""
        return await self._accepts()

    async def prepare(self) -> None:
        """Do what has to be done before the first start."""

    @property
    def account(self) -> tuple[int, int] | None:
        """The user and group id to run under; ``None`` for our own."""
        return None

    @property
    def log(self) -> Path:
        """What the server wrote, over all starts."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """The process id. Raises ServerError when it does not run."""
        if self._process is None:
            raise ServerError(f"{self.name} does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there (frozen counts)."""
        return self._process is not None and self._process.poll() is None

    async def start(self, *, within: float = 30.0) -> None:
        """Start it, on the same port as ever, and wait until it serves. Raises ServerError."""
        if self.running:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if not is_free(self.port):
            raise ServerError(f"{self.name} cannot start: port {self.port} is taken by another program")
        await self.prepare()
        self._process = self._spawn()
        deadline = time.monotonic() + within
        while not await self._serves():
            if self._process.poll() is not None:
                raise ServerError(f"{self.name} ended with {self._process.returncode}: {self._last_words()}")
            if time.monotonic() > deadline:
                await self.kill()
                raise ServerError(f"{self.name} did not serve within {within:g} s: {self._last_words()}")
            await asyncio.sleep(_POLL)

    async def stop(self, *, within: float = 5.0) -> None:
        """Ask it to end, and kill it if it does not."""
        if self._process is None:
            return
        self._signal(signal.SIGCONT)
        self._family = self._find_family()
        if self.running:
            self._process.send_signal(self.stop_signal)
        await until(lambda: not self.running, within=within)
        await self.kill()

    async def kill(self) -> None:
        """Kill it and all its children (SIGKILL), and wait until they are gone."""
        if self._process is None:
            return
        self._family = self._find_family() or self._family
        if self.running:
            self._process.kill()
        for child in self._family:
            with contextlib.suppress(psutil.Error):
                child.kill()
        await until(lambda: not self.running and not any(map(_is_alive, self._family)))
        self._process = None
        self._family = []
        self._dismiss()

    async def restart(self) -> None:
        """Stop it, politely, and start it again."""
        await self.stop()
        await self.start()

    async def pause(self) -> None:
        """Freeze it and all its children (SIGSTOP): the kernel goes on accepting connections."""
        self._signal(signal.SIGSTOP)
        self._signal(signal.SIGSTOP)  # and what was born meanwhile
        if self._guard is None and self.running:
            self._guard = Guard([self.pid, *(child.pid for child in self._find_family())])

    async def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)
        self._dismiss()

    async def close(self) -> None:
        """Stop it for good, and remove its folder if that was a temporary one."""
        await self.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def run_tool(self, *command: str) -> None:
        """Run a program of the server's to its end, as the server's account. Raises ServerError."""
        process = self._spawn(command)
        try:
            await until(lambda: process.poll() is not None, within=60.0)
        finally:
            process.kill()  # nothing, if it has ended
            code = process.wait()
        if code:
            raise ServerError(f"{Path(command[0]).name} ended with {code}: {self._last_words()}")

    def _spawn(self, command: Sequence[str] | None = None) -> subprocess.Popen[bytes]:
        account = "-" if self.account is None else f"{self.account[0]}:{self.account[1]}"
        launch = [sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), account]
        path = os.pathsep.join(filter(None, [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "LC_ALL": "C"}
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # our own servers; it does not block
                [*launch, *(command or self.command())],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal is for us alone, who then stop it
            )

    async def _serves(self) -> bool:
        try:
            async with asyncio.timeout(2.0):
                return await self.ready()
        except (OSError, TimeoutError):
            return False

    async def _accepts(self) -> bool:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    def _signal(self, number: signal.Signals) -> None:
        if not self.running or self._process is None:
            return
        self._process.send_signal(number)
        for child in self._find_family():
            with contextlib.suppress(psutil.Error):
                child.send_signal(number)

    def _find_family(self) -> list[psutil.Process]:
        if not self.running or self._process is None:
            return []
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.Error:
            return []

    def _dismiss(self) -> None:
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-5:])
        return "it wrote no log"


async def until(condition: Callable[[], bool], *, within: float = 10.0) -> bool:
    """Wait until ``condition`` holds, and tell whether it came to that within ``within`` seconds."""
    deadline = time.monotonic() + within
    while not (holds := condition()) and time.monotonic() < deadline:  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(_POLL)
    return holds


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
