"""Reads files that others may replace by anything: a pipe, a device, a file without end."""

import errno
import os
import stat
import time
from pathlib import Path
from typing import Final

Stamp = tuple[int, ...]
"""What differs after a change of a file, if the file system's clock has ticked meanwhile; empty if there is no file.

The last change of the inode (ctime) is part of it: a copy can preserve the time of modification and the size.
"""

NO_RESPONSE: Final = "the file system does not respond"
"""Why a file could not be read in time."""

_TICK: Final = 1_000_000_000
"""Nanoseconds. Ticks take up to 10 ms on local file systems, and may take a second on others."""


def read_regular_file(path: Path, *, most: int) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes.

    Raises OSError, also for a named pipe or a device, which might never end, and ValueError for a path with a NUL.
    Blocks while the file system does not respond: call it in a thread.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file")
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"Larger than {most} bytes")
    return content


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def stamp_of(path: Path | str) -> Stamp:
    """Return the present stamp of a file. Blocks while the file system does not respond.

    What is read afterwards belongs to this stamp or to a later one, so a change in between shows at the next look.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - half the time of Path
    except (OSError, ValueError):
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def is_recent(stamp: Stamp) -> bool:
    """Return whether another change may get the same stamp."""
    return bool(stamp) and time.time_ns() - stamp[1] < _TICK
