"""The processes of this machine: their names, command lines and parents, as /proc shows them.

All services share one table, because there is one /proc. Reading a process takes 16 us, so a scan of thousands is cut
into turns of a millisecond, and between two attempts only new processes are read.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import psutil

from connection_exporter.config.patterns import CompiledPattern
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net.failures import NO_THREADS
from connection_exporter.system.threads import NoThread, SharedWork

_TURN: Final = 0.001
"""Seconds of CPU that a scan may take in one iteration of the event loop, for all services together."""

_REST: Final = 0.001
_YOUNG: Final = 5.0
"""Seconds in which a new process may still become another program (fork, then exec)."""

STAT_LIMIT: Final = 4096
"""Bytes of /proc/PID/stat, which has fewer."""

LONGEST_COMMAND: Final = 64 * 1024
"""Bytes of a command line that are read. Java programs have class paths of some 10 KB."""

_ROOM: Final = 16 * 1024 * 1024
_LONGEST_WITHOUT_ROOM: Final = 1024
"""Bytes of all command lines together, and of each one beyond that."""

_COSTLY: Final = 200_000
"""Bytes times the size of the compiled pattern from which a search runs in a thread: a millisecond or two."""

_LINUX: Final = sys.platform.startswith("linux")


@dataclass(frozen=True, slots=True)
class Entry:
    """One process. ``started`` only tells older from younger; it has no unit.

    ``command`` is valid UTF-8: other bytes are replaced by U+FFFD, so that a dot in a pattern matches them.
    """

    pid: int
    ppid: int
    name: str
    command: bytes
    started: float
    zombie: bool


@dataclass(frozen=True, slots=True)
class Criterion:
    """What a service looks for. ``size`` is that of its compiled pattern, or 0."""

    description: str
    matches: Callable[[Entry], bool]
    size: int = 0


class ProcessTable:
    """All processes except our own. Belongs to one event loop."""

    def __init__(self) -> None:
        self.unreadable = 0
        self._entries: dict[int, Entry] = {}
        self._first_seen: dict[int, float] = {}
        self._command_bytes = 0
        self._one_at_a_time = asyncio.Lock()
        self._in_thread: SharedWork[Criterion, list[Entry]] = SharedWork()
        self._scanned = {True: -1.0, False: -1.0}
        self._turn_ends = 0.0

    async def search(self, criterion: Criterion) -> list[Entry]:
        """Read all processes again, and return those that match. Raises `Failure` (internal)."""
        return await self._search(criterion, all_of_them=True)

    async def search_new(self, criterion: Criterion) -> list[Entry]:
        """Read only the processes that are new since the last search, and return all that match.

        Raises `Failure` (internal).
        """
        return await self._search(criterion, all_of_them=False)

    async def _search(self, criterion: Criterion, *, all_of_them: bool) -> list[Entry]:
        asked = time.monotonic()
        async with self._one_at_a_time:
            if self._scanned[all_of_them] < asked:  # else another service scanned while this one waited
                await self._scan(all_of_them=all_of_them)
            found: list[Entry] = []
            costly: list[Entry] = []
            for entry in list(self._entries.values()):
                if criterion.size * len(entry.command) > _COSTLY:
                    costly.append(entry)
                elif criterion.matches(entry):
                    found.append(entry)
                await self._rest()
        if not costly:
            return found
        try:
            matching = await self._in_thread.run(
                criterion, lambda: list(filter(criterion.matches, costly)), name="search"
            )
        except NoThread as error:
            raise Failure(Reason.INTERNAL, NO_THREADS) from error
        return found + matching

    async def _scan(self, *, all_of_them: bool) -> None:
        began, unreadable = time.monotonic(), 0
        pids = await self._pids()
        for gone in self._first_seen.keys() - pids:
            del self._first_seen[gone]
            self._forget(gone)
        for pid in pids:
            if all_of_them or began - self._first_seen.get(pid, began) < _YOUNG:
                unreadable += not self._read(pid, began)
                await self._rest()
        self._scanned[False] = began
        if all_of_them:
            self._scanned[True], self.unreadable = began, unreadable

    async def _pids(self) -> set[int]:
        if not _LINUX:
            return set(psutil.pids()) - {os.getpid()}
        pids = set()
        with os.scandir("/proc") as folder:
            for number, item in enumerate(folder):
                if item.name.isdecimal():
                    pids.add(int(item.name))
                if number % 64 == 0:
                    await self._rest()
        return pids - {os.getpid()}

    def _read(self, pid: int, now: float) -> bool:
        """Read one process; return whether we have the permission. That it has ended is not a lack of permission."""
        longest = LONGEST_COMMAND if self._command_bytes < _ROOM else _LONGEST_WITHOUT_ROOM
        try:
            entry = _read_linux(pid, longest) if _LINUX else _read_elsewhere(pid)
        except (PermissionError, psutil.AccessDenied):
            return False
        except (OSError, psutil.Error):
            return True
        self._forget(pid)
        self._entries[pid] = entry
        self._command_bytes += len(entry.command)
        self._first_seen.setdefault(pid, now)
        return True

    def _forget(self, pid: int) -> None:
        if (entry := self._entries.pop(pid, None)) is not None:
            self._command_bytes -= len(entry.command)

    async def _rest(self) -> None:
        """Let the event loop run if this turn is over."""
        if time.thread_time() >= self._turn_ends:
            await asyncio.sleep(_REST)
            self._turn_ends = time.thread_time() + _TURN


def oldest_root(entries: Iterable[Entry]) -> Entry | None:
    """Return the oldest entry whose parent is not among them; ``None`` if two are equally old, or if there is none.

    A server and its workers are thus one service, and so are two copies of a program.
    """
    entries = list(entries)
    pids = {entry.pid for entry in entries}
    roots = sorted((entry for entry in entries if entry.ppid not in pids), key=lambda entry: entry.started)
    if not roots or (len(roots) > 1 and roots[0].started == roots[1].started):
        return None
    return roots[0]


def named(name: str) -> Criterion:
    """Look for what ``ps -o comm`` shows as ``name``.

    The kernel keeps 15 bytes of a name (TASK_COMM_LEN, proc_pid_comm(5)). If it is longer, the file of the program or
    script in the command line must have that name.
    """
    full = name.encode()
    kept = full[:15].decode(errors="replace")

    def matches(entry: Entry) -> bool:
        words = entry.command.split(b" ", 2)[:2]
        return entry.name == kept and any(word.rpartition(b"/")[2] == full for word in words)

    what = f"named {name!r}"
    return Criterion(what, matches if kept != name else lambda entry: entry.name == name)


def with_command(pattern: str) -> Criterion:
    """Look for a regular expression in the command line, whose arguments are joined by spaces.

    A dot matches every character, because an argument may contain line breaks.
    """
    compiled = CompiledPattern(f"(?s){pattern}")

    def matches(entry: Entry) -> bool:
        return bool(entry.command) and compiled.found_in(entry.command)  # kernel threads have none

    return Criterion(f"with a command line that matches {pattern!r}", matches, compiled.size)


def live_thread(pid: int) -> int | None:
    """Return a thread of ``pid`` other than the main one; ``None`` if there is none.

    When the main thread has exited, /proc shows the process as a zombie without memory, files and command line. It is
    alive all the same while another thread runs, and under that thread /proc shows what belongs to the process.
    """
    with suppress(OSError), os.scandir(f"/proc/{pid}/task") as threads:
        return next((int(thread.name) for thread in threads if thread.name != str(pid)), None)
    return None


def is_zombie(pid: int) -> bool:
    """Return whether a process has ended and was not yet collected by its parent. Raises OSError and psutil.Error."""
    if not _LINUX:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return _read_linux(pid, 0).zombie


def read_stat(pid: int) -> tuple[bytes, list[bytes]]:
    """Return the name of a process and the fields that follow it in proc_pid_stat(5). Raises OSError."""
    return parse_stat(read_start(f"/proc/{pid}/stat", STAT_LIMIT), pid)


def parse_stat(stat: bytes, pid: int) -> tuple[bytes, list[bytes]]:
    """Return what `read_stat` does. Raises ProcessLookupError if there is nothing."""
    start, end = stat.find(b"(") + 1, stat.rfind(b")")  # the name may contain both, spaces and line breaks
    fields = stat[end + 2 :].split()
    if len(fields) < 20:
        raise ProcessLookupError(pid)
    return stat[start:end], fields


def _read_linux(pid: int, longest: int) -> Entry:
    """Read proc_pid_stat(5) and proc_pid_cmdline(5), in a fifth of the time that psutil takes."""
    name, fields = read_stat(pid)
    alone = int(fields[17]) <= 1
    reader: int | None = pid
    if fields[0] == b"Z" and not alone:
        reader = live_thread(pid)
    command = b""
    if longest and reader is not None:
        command = read_start(f"/proc/{reader}/cmdline", longest).rstrip(b"\0").replace(b"\0", b" ")
        if not command.isascii():
            command = command.decode(errors="replace").encode()
    return Entry(
        pid=pid,
        ppid=int(fields[1]),
        name=name.decode(errors="replace"),
        command=command,
        started=float(fields[19]),
        zombie=fields[0] == b"Z" and alone,
    )


def _read_elsewhere(pid: int) -> Entry:
    process = psutil.Process(pid)
    with process.oneshot():
        return Entry(
            pid=pid,
            ppid=process.ppid(),
            name=process.name(),
            command=" ".join(process.cmdline()).encode(errors="replace")[:LONGEST_COMMAND],
            started=process.create_time(),
            zombie=process.status() == psutil.STATUS_ZOMBIE,
        )


def read_start(path: str, longest: int) -> bytes:
    """Return the first bytes of a file, in a third of the time that ``open`` takes. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, longest)
    finally:
        os.close(fd)
