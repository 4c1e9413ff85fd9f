"""Reads files that somebody else may replace by anything: a pipe, a device, a file without end."""

import errno
import os
import stat
from pathlib import Path


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
