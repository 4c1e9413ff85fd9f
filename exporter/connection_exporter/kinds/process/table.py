"""The processes of this machine: their names, command lines and parents, as /proc shows them.

All services share one table, because there is one /proc. Reading a process takes 15 to 40 us, so a scan of thousands is
cut into turns of a millisecond, and between two attempts only new processes are read. A service compares each process
once: again only if its name, its command line, its parent or its state has changed.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Final
from weakref import WeakKeyDictionary

import psutil

from connection_exporter.config.patterns import CompiledPattern
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.process.proc import LINUX, LONGEST_COMMAND, Entry, clock, read_process
from connection_exporter.net.failures import NO_THREADS
from connection_exporter.system.threads import NoThread, SharedWork

_TURN: Final = 0.001
"""Seconds of CPU that a scan may take in one iteration of the event loop, for all services together."""

_UNTIMED_READS: Final = 8
"""Processes that are read before the clock is looked at, which takes a twentieth as long as to read one."""

_REST: Final = 0.001
_YOUNG: Final = 5.0
"""Seconds in which a new process may still become another program (fork, then exec)."""

_SHARED_FOR: Final = 0.25
"""Seconds for which older processes are not read again, since most of them never become another program.

Hundreds of services that look for absent processes would otherwise read them all the time.
"""

_ROOM: Final = 16 * 1024 * 1024
_LONGEST_WITHOUT_ROOM: Final = 1024
"""Bytes of all command lines together, and of each one beyond that."""

_COSTLY: Final = 200_000
"""Bytes times the size of the compiled pattern from which a search runs in a thread: a millisecond or two."""

_UNTIMED: Final = _COSTLY // 4
_LOOK: Final = 500
"""What a search compares before it looks at the clock, in the same unit, and what a process counts in addition."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Criterion:
    """What a service looks for. ``size`` is that of its compiled pattern, or 0."""

    description: str
    matches: Callable[[Entry], bool]
    size: int = 0


class _Compared:
    """Which processes were compared with a criterion, and those that matched or are to be compared in a thread."""

    def __init__(self) -> None:
        self.version = 0
        self.matching: dict[int, Entry] = {}
        self.costly: dict[int, Entry] = {}


class ProcessTable:
    """All processes except our own. Belongs to one event loop."""

    def __init__(self) -> None:
        self.unreadable = 0
        self._entries: dict[int, Entry] = {}
        self._changes: dict[int, int] = {}
        self._version = 0
        self._young: set[int] = set()
        self._command_bytes = 0
        self._one_at_a_time = asyncio.Lock()
        self._compared: WeakKeyDictionary[Criterion, _Compared] = WeakKeyDictionary()
        self._in_thread: SharedWork[Criterion, list[Entry]] = SharedWork()
        self._scanned = self._scanned_all = -1.0
        self._turn_ends = 0.0

    async def search(self, criterion: Criterion) -> list[Entry]:
        """Read all processes again, unless that was done a moment ago, and return those that match.

        New processes are read in any case. Raises `Failure` (internal).
        """
        return await self._search(criterion, all_of_them=True)

    async def search_new(self, criterion: Criterion) -> list[Entry]:
        """Read only the processes that are new since the last search, and return all that match.

        Raises `Failure` (internal).
        """
        return await self._search(criterion, all_of_them=False)

    def is_current(self, found: Entry) -> bool:
        """Read a process that was found again; return whether it is still as it was. If not, search again."""
        self._read(found.pid, clock())
        return self._entries.get(found.pid) is found

    async def _search(self, criterion: Criterion, *, all_of_them: bool) -> list[Entry]:
        asked = time.monotonic()
        async with self._one_at_a_time:
            all_of_them = all_of_them and self._scanned_all < asked - _SHARED_FOR
            if all_of_them or self._scanned < asked:  # else another service scanned while this one waited
                await self._scan(all_of_them=all_of_them)
            compared = self._compared.setdefault(criterion, _Compared())
            await self._compare(criterion, compared)
            found, costly = self._current(compared.matching), self._current(compared.costly)
        if not costly:
            return found
        try:
            matching = await self._in_thread.run(
                criterion, lambda: list(filter(criterion.matches, costly)), name="search"
            )
        except NoThread as error:
            raise Failure(Reason.INTERNAL, NO_THREADS) from error
        return found + matching

    async def _compare(self, criterion: Criterion, compared: _Compared) -> None:
        """Compare the processes that have changed. A search that is cancelled goes on there the next time."""
        untimed = 0
        for pid, version in self._changed_since(compared.version):
            entry = self._entries[pid]
            cost = criterion.size * len(entry.command)
            untimed += _LOOK
            if cost > _COSTLY:
                compared.costly[pid] = entry
            else:
                untimed += cost
                if criterion.matches(entry):
                    compared.matching[pid] = entry
            compared.version = version
            if untimed > _UNTIMED:
                untimed = 0
                await self._rest()

    def _changed_since(self, version: int) -> list[tuple[int, int]]:
        """Return the ids of processes and the versions of their last changes, in the order of the changes."""
        newest_first = takewhile(lambda change: change[1] > version, reversed(self._changes.items()))
        return list(newest_first)[::-1]

    def _current(self, entries: dict[int, Entry]) -> list[Entry]:
        """Return those of ``entries`` that are in the table. Drop the others, which have ended or changed."""
        for pid in [pid for pid, entry in entries.items() if self._entries.get(pid) is not entry]:
            del entries[pid]
        return list(entries.values())

    async def _scan(self, *, all_of_them: bool) -> None:
        began, now, unreadable = time.monotonic(), clock(), 0
        pids = await self._pids()
        for gone in self._entries.keys() - pids:
            self._forget(gone)
        to_read = pids if all_of_them else (pids - self._entries.keys()) | self._young
        for number, pid in enumerate(to_read):
            unreadable += not self._read(pid, now)
            if number % _UNTIMED_READS == 0:
                await self._rest()
        self._scanned = began
        if all_of_them:
            self._scanned_all, self.unreadable = began, unreadable

    async def _pids(self) -> set[int]:
        if not LINUX:
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
            entry = read_process(pid, longest)
        except (PermissionError, psutil.AccessDenied):
            return False
        except (OSError, psutil.Error):
            return True
        if entry != self._entries.get(pid):
            self._forget(pid)
            self._entries[pid] = entry
            self._version += 1
            self._changes[pid] = self._version
            self._command_bytes += len(entry.command)
        if now - entry.started < _YOUNG:
            self._young.add(pid)
        else:
            self._young.discard(pid)
        return True

    def _forget(self, pid: int) -> None:
        if (entry := self._entries.pop(pid, None)) is not None:
            del self._changes[pid]
            self._young.discard(pid)
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
