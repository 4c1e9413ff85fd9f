"""Owns how the process of a service is found: by pidfile, name, command line or systemd unit.

Every way ends in a process id or in a `Failure` that says what was looked for and what was found.
"""

import asyncio
import contextlib
import errno
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from exporter.check import Failure
from exporter.checks.process_table import Entry, ProcessTable, is_named, oldest_root
from exporter.config.patterns import CompiledPattern
from exporter.core.health import Reason

_MAX_PID: Final = 2**31 - 1
_CLOCK_MARGIN: Final = 10.0
"""Seconds by which a process may seem younger than its own pidfile: clocks are set, file systems round."""

_UNIT_FACTS: Final = ("LoadState", "ActiveState", "SubState", "MainPID", "NRestarts")


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd knows of a unit."""

    pid: int
    restarts: int


class ByPidfile:
    """Finds the process whose number stands in the first line of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self) -> int:
        """Return the process id. Raises `Failure`.

        A process that began after its pidfile was written did not write it: it was given the number of
        one that has ended.
        """
        pid, written = self._read()
        try:
            process = psutil.Process(pid)
            started = process.create_time()
        except psutil.NoSuchProcess as error:
            if _exists(pid):
                raise Failure(
                    Reason.PERMISSION, f"process {pid} is hidden from us in /proc (hidepid)"
                ) from error
            raise Failure(Reason.MISSING, f"{self._path} names process {pid}, which is not there") from error
        except psutil.AccessDenied as error:
            raise Failure(Reason.PERMISSION, f"process {pid} may not be looked at") from error
        if started > written + _CLOCK_MARGIN and not self._is_of_another_clock(written):
            raise Failure(
                Reason.MISSING,
                f"{self._path} is stale: it was written {_ago(started - written)} before process {pid} began",
            )
        return pid

    def successor_of(self, pid: int) -> int | None:
        """Return another living process than ``pid`` that the file names by now, if it does."""
        with contextlib.suppress(Failure, OSError):
            if self._read()[0] != pid:
                return self.find()
        return None

    def _read(self) -> tuple[int, float]:
        """Return the number, and when the file was written."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe must not hold us up
            try:
                content = os.read(fd, 4096)
                written = os.fstat(fd).st_mtime
            finally:
                os.close(fd)
        except FileNotFoundError as error:
            raise Failure(Reason.MISSING, f"{self._path} is not there") from error
        except PermissionError as error:
            raise Failure(Reason.PERMISSION, f"{self._path} may not be read") from error
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise  # our own trouble
            raise Failure(Reason.MISSING, f"{self._path} cannot be read: {error.strerror}") from error
        word = content.partition(b"\n")[0].strip()
        if not content.strip():
            raise Failure(Reason.MISSING, f"{self._path} is empty")
        if not word.isdigit() or not 0 < int(word) <= _MAX_PID:
            shown = word[:20].decode(errors="replace")
            raise Failure(Reason.MISSING, f"{self._path} holds no process id, but {shown!r}")
        return int(word), written

    def _is_of_another_clock(self, written: float) -> bool:
        """Tell whether the file is older than the boot, but in memory: then the clock was set since.

        Boards without a clock of their own begin each boot in the past.
        """
        return written < psutil.boot_time() and _file_system(self._path) in ("tmpfs", "ramfs")


class BySearch:
    """Finds the oldest process of a name or command line, among those whose parent is no match."""

    def __init__(self, table: ProcessTable, what: str, matches: Callable[[Entry], bool]) -> None:
        self._table = table
        self._what = what
        self._matches = matches

    @classmethod
    def by_name(cls, table: ProcessTable, name: str) -> "BySearch":
        """Search by name."""
        return cls(table, f"named {name!r}", is_named(name))

    @classmethod
    def by_command(cls, table: ProcessTable, pattern: str) -> "BySearch":
        """Search by a regular expression that is found somewhere in the command line, joined by spaces."""
        compiled = CompiledPattern(pattern)

        def matches(entry: Entry) -> bool:
            return bool(entry.command) and compiled.found_in(entry.command)  # the kernel's threads have none

        return cls(table, f"with a command line that matches {pattern!r}", matches)

    async def find(self) -> int:
        """Return the process id. Raises `Failure`."""
        return self._choose(await self._table.search(self._matches))

    def glance(self) -> int:
        """Return the process id, going by what is known and what is new. Raises `Failure`."""
        return self._choose(self._table.glance(self._matches))

    def _choose(self, found: Sequence[Entry]) -> int:
        alive = [entry for entry in found if not entry.zombie]
        chosen = oldest_root(alive)
        if chosen is not None:
            return chosen.pid
        if alive:
            pids = ", ".join(str(entry.pid) for entry in alive[:5])
            message = f"{len(alive)} processes {self._what}, none of them the oldest: {pids}"
            raise Failure(Reason.AMBIGUOUS, message)
        if found:
            raise Failure(Reason.ZOMBIE, zombie_message(found[0].pid, found[0].ppid))
        if self._table.unreadable:
            unreadable = f"{self._table.unreadable} may not be looked at"
            raise Failure(
                Reason.PERMISSION, f"there is no process {self._what} that we can see; {unreadable}"
            )
        raise Failure(Reason.MISSING, f"there is no process {self._what}")


async def find_unit(unit: str) -> UnitState:
    """Ask systemd for the main process of ``unit``. Raises `Failure`."""
    program = shutil.which("systemctl")
    if program is None:
        raise Failure(Reason.MISSING, "there is no systemctl here: use pidfile, name or cmdline")
    facts = await _show(program, unit)
    if facts.get("LoadState") == "not-found":
        raise Failure(Reason.MISSING, f"systemd knows no unit {unit}")
    pid = _number(facts.get("MainPID"))
    if pid == 0:
        state = f"{facts.get('ActiveState')} ({facts.get('SubState')})"
        raise Failure(Reason.MISSING, f"unit {unit} is {state} and has no main process")
    return UnitState(pid, _number(facts.get("NRestarts")))


def zombie_message(pid: int, parent: int) -> str:
    """Say that a process has ended, and who has still to take notice."""
    return f"process {pid} has ended, but its parent {parent} has not collected it (zombie)"


async def _show(program: str, unit: str) -> dict[str, str]:
    process = await asyncio.create_subprocess_exec(
        *(program, "show", f"--property={','.join(_UNIT_FACTS)}", "--", unit),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        out, err = await process.communicate()
    except asyncio.CancelledError as cancelled:
        raise cancelled from Failure(Reason.TIMEOUT, f"systemctl did not answer for unit {unit}")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        words = err.decode(errors="replace").strip().partition("\n")[0]
        raise Failure(Reason.MISSING, f"systemctl could not tell of unit {unit}: {words}")
    lines = (line.partition("=") for line in out.decode(errors="replace").splitlines())
    return {key: value for key, _, value in lines}


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0  # "[not set]"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return False  # it came this moment: the next look will see it


def _file_system(path: Path) -> str:
    """Return the kind of file system that ``path`` is on (proc_pid_mountinfo(5)), or nothing if not known."""
    with contextlib.suppress(OSError):
        device = path.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            mount, _, kind = line.partition(" - ")
            if mount.split()[2] == number:
                return kind.split()[0]
    return ""


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
