"""Owns what is known of all processes of this machine: names and command lines, for those who search them.

One table serves all services, since there is one /proc. Reading it whole takes 16 us a process, so it is
read in slices, and between two attempts only what is new is read.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import psutil

_SLICE: Final = 50
"""Processes read without letting others of the event loop have their turn: under 1 ms."""

_YOUNG: Final = 5.0
"""Seconds in which a new process may still become another program (fork, then exec)."""

_MAX_COMMAND: Final = 64 * 1024
_LINUX: Final = sys.platform.startswith("linux")


@dataclass(frozen=True, slots=True)
class Entry:
    """One process as the table knows it. ``started`` only tells older from younger, in no unit."""

    pid: int
    ppid: int
    name: str
    command: bytes
    started: float
    zombie: bool


class ProcessTable:
    """All processes but our own."""

    def __init__(self) -> None:
        self.unreadable = 0
        self._entries: dict[int, Entry] = {}
        self._first_seen: dict[int, float] = {}

    async def search(self, matches: Callable[[Entry], bool]) -> list[Entry]:
        """Read the table anew, and return the entries that match."""
        now = time.monotonic()
        pids = self._forget_the_gone()
        unreadable = 0
        for number, pid in enumerate(pids, 1):
            unreadable += not self._read(pid, now)
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        self.unreadable = unreadable
        return self._matching(matches)

    def glance(self, matches: Callable[[Entry], bool]) -> list[Entry]:
        """Read what is new since the last time, and return the entries that match."""
        now = time.monotonic()
        for pid in self._forget_the_gone():
            if now - self._first_seen.get(pid, now) < _YOUNG:
                self._read(pid, now)
        return self._matching(matches)

    def _forget_the_gone(self) -> list[int]:
        pids = _all_pids()
        for gone in self._first_seen.keys() - set(pids):
            del self._first_seen[gone]
            self._entries.pop(gone, None)
        return pids

    def _read(self, pid: int, now: float) -> bool:
        """Read one process; tell whether we may (that it is gone is no offence)."""
        try:
            self._entries[pid] = _read_linux(pid) if _LINUX else _read_elsewhere(pid)
        except (PermissionError, psutil.AccessDenied):
            return False
        except (OSError, psutil.Error):
            return True
        self._first_seen.setdefault(pid, now)
        return True

    def _matching(self, matches: Callable[[Entry], bool]) -> list[Entry]:
        return [entry for entry in self._entries.values() if matches(entry)]


def oldest_root(entries: Iterable[Entry]) -> Entry | None:
    """Return the oldest entry whose parent is not among them; ``None`` if no one is the oldest.

    A server and its workers are thus one service, and so are two copies of a program.
    """
    entries = list(entries)
    pids = {entry.pid for entry in entries}
    roots = sorted((entry for entry in entries if entry.ppid not in pids), key=lambda entry: entry.started)
    if not roots or (len(roots) > 1 and roots[0].started == roots[1].started):
        return None
    return roots[0]


def is_named(name: str) -> Callable[[Entry], bool]:
    """Match what ``ps -o comm`` shows as ``name``.

    The kernel keeps 15 bytes of a name (TASK_COMM_LEN, proc_pid_comm(5)). Of a longer one, the program's
    or script's file in the command line has to bear it.
    """
    full = name.encode()
    kept = full[:15].decode(errors="replace")
    if kept == name:
        return lambda entry: entry.name == name

    def matches(entry: Entry) -> bool:
        words = entry.command.split(b" ", 2)[:2]
        return entry.name == kept and any(word.rpartition(b"/")[2] == full for word in words)

    return matches


def _all_pids() -> list[int]:
    own = os.getpid()
    pids = psutil.pids()
    return [pid for pid in pids if pid != own]


def _read_linux(pid: int) -> Entry:
    """Read proc_pid_stat(5) and proc_pid_cmdline(5): a fifth of what psutil takes."""
    stat = _content(f"/proc/{pid}/stat")
    begin, end = stat.index(b"(") + 1, stat.rindex(b")")
    fields = stat[end + 2 :].split()
    command = _content(f"/proc/{pid}/cmdline").rstrip(b"\0").replace(b"\0", b" ")
    return Entry(
        pid=pid,
        ppid=int(fields[1]),
        name=stat[begin:end].decode(errors="replace"),
        command=command,
        started=float(fields[19]),
        zombie=fields[0] == b"Z",
    )


def _read_elsewhere(pid: int) -> Entry:
    process = psutil.Process(pid)
    with process.oneshot():
        return Entry(
            pid=pid,
            ppid=process.ppid(),
            name=process.name(),
            command=" ".join(process.cmdline()).encode(),
            started=process.create_time(),
            zombie=process.status() == psutil.STATUS_ZOMBIE,
        )


def _content(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, _MAX_COMMAND)
    finally:
        os.close(fd)
