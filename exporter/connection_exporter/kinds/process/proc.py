"""Reads what /proc shows of one process: its name, command line, parent and state."""

import os
import sys
import time
from contextlib import suppress
from typing import Final, NamedTuple

import psutil

LINUX: Final = sys.platform.startswith("linux")

TICKS: Final = os.sysconf("SC_CLK_TCK")
"""Ticks in a second, the unit of times in /proc/PID/stat."""

STAT_LIMIT: Final = 4096
"""Bytes of /proc/PID/stat, which has fewer."""

LONGEST_COMMAND: Final = 64 * 1024
"""Bytes of a command line that are read. Java programs have class paths of some 10 KB."""

_KERNEL_THREAD: Final = 0x00200000
"""PF_KTHREAD among the flags of proc_pid_stat(5): it has no command line. Half of the processes of a host are such."""


class Entry(NamedTuple):
    """One process. ``started`` is its start, in seconds on the clock of `clock`.

    ``command`` is valid UTF-8: other bytes are replaced by U+FFFD, so that a dot in a pattern matches them.
    """

    pid: int
    ppid: int
    name: str
    command: bytes
    started: float
    zombie: bool


def clock() -> float:
    """Return the time in seconds, on Linux since the boot, and on other systems as Unix time."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if LINUX else time.time()


def live_thread(pid: int) -> int | None:
    """Return a thread of ``pid`` other than the main one; ``None`` if there is none.

    When the main thread has exited, /proc shows the process as a zombie without memory, files and command line. It is
    alive all the same while another thread runs, and under that thread /proc shows what belongs to the process.
    """
    with suppress(OSError), os.scandir(f"/proc/{pid}/task") as threads:
        return next((int(thread.name) for thread in threads if thread.name != str(pid)), None)
    return None


def read_process(pid: int, longest: int) -> Entry:
    """Read one process, and the first ``longest`` bytes of its command line. Raises OSError and psutil.Error."""
    return _read_linux(pid, longest) if LINUX else _read_elsewhere(pid)


def is_zombie(pid: int) -> bool:
    """Return whether a process has ended and was not yet collected by its parent. Raises OSError and psutil.Error."""
    if not LINUX:
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
    if int(fields[6]) & _KERNEL_THREAD:
        reader = None
    elif fields[0] == b"Z" and not alone:
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
        started=int(fields[19]) / TICKS,
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
