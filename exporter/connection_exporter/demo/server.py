"""Starts, stops, kills and freezes one server of the demo, and leaves no process behind.

The servers themselves are in `connection_exporter.demo.servers`. Nothing here belongs to an event loop,
so one server can be used in several (a fixture of a whole test session).
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
from typing import Final, Self

import psutil

from connection_exporter.demo.ports import is_free, reserve_port

_LAUNCH = Path(__file__).with_name("launch.py")
_PACKAGE_PARENT = Path(__file__).parents[2]
_POLL = 0.01


INSTALL: Final = "pip install 'connection-exporter[demo]'"


class ServerError(Exception):
    """A server of the demo did not start; the message holds the end of its log."""


class Guard:
    """A shell that kills ``pids`` when this process ends.

    The kernel kills a server whose parent has ended (see `connection_exporter.demo.launch`), but the server's frozen
    children would stay forever. The shell reads from a pipe that only we hold open.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        victims = " ".join(str(pid) for pid in pids)
        self._shell = subprocess.Popen(  # noqa: S603  # nothing but numbers in it
            ["/bin/sh", "-c", f"read _ || kill -9 {victims}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """End the shell without killing anything."""
        self._shell.communicate(b"\n")


class Server:
    """A server in a child process of its own; the port stays the same over restarts.

    A subclass defines what to run (`command`) and when it serves (`ready`). ``folder`` is where the server keeps its
    files and its log. The default is a temporary folder, which is removed when the server is closed.
    """

    name = "server"
    stop_signal = signal.SIGTERM
    has_port = True

    def __init__(self, folder: Path | None = None) -> None:
        self._temporary = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="ce-")) if folder is None else folder
        self._reserved = reserve_port()
        self.port: int = self._reserved.getsockname()[1]
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
        """Return whether it serves. An OSError means not yet."""
        return await self._accepts()

    async def prepare(self) -> None:
        """Prepare the first start."""

    @property
    def account(self) -> tuple[int, int] | None:
        """The user and group id to run under; ``None`` for our own."""
        return None

    @property
    def log(self) -> Path:
        """The output of all starts."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """The process ID. Raises ServerError when it does not run."""
        if self._process is None:
            raise ServerError(f"{self.name} does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process exists, running or frozen."""
        return self._process is not None and self._process.poll() is None

    async def start(self, *, within: float = 30.0) -> None:
        """Start it on its port, and wait until it serves. Raises ServerError."""
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
        """Send the stop signal, and kill it if it does not end."""
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
        """Stop it, and start it again."""
        await self.stop()
        await self.start()

    async def pause(self) -> None:
        """Freeze it and all its children (SIGSTOP): the kernel still accepts connections."""
        self._signal(signal.SIGSTOP)
        self._signal(signal.SIGSTOP)  # and what was born meanwhile
        if self._guard is None and self.running:
            self._guard = Guard([self.pid, *(child.pid for child in self._find_family())])

    async def resume(self) -> None:
        """Continue it (SIGCONT)."""
        self._signal(signal.SIGCONT)
        self._dismiss()

    async def close(self) -> None:
        """Stop it, and remove its folder if that is temporary."""
        await self.stop()
        self._reserved.close()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def run_tool(self, *command: str) -> None:
        """Run a program to its end, under the account of the server. Raises ServerError."""
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
                return await self.ready() and self._listens()
        except (OSError, TimeoutError):
            return False

    def _listens(self) -> bool:
        """Return whether the server's own process listens on the port, and not another program."""
        if not self.has_port:
            return True
        try:
            family = [psutil.Process(self.pid), *self._find_family()]
            sockets = [socket for process in family for socket in process.net_connections("tcp")]
        except psutil.AccessDenied:
            return True  # this machine does not let us look
        except psutil.Error:
            return False
        return any(s.status == psutil.CONN_LISTEN and s.laddr.port == self.port for s in sockets)

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
    """Wait until ``condition`` holds; return False if it does not within ``within`` seconds."""
    deadline = time.monotonic() + within
    while not (holds := condition()) and time.monotonic() < deadline:  # noqa: ASYNC110  # nobody tells us
        await asyncio.sleep(_POLL)
    return holds


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
