"""Owns reading what stands in a `*_file`, and whether it has changed.

It is read in the event loop, and so never waiting and never without end.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Final

_MOST: Final = 1024 * 1024
"""Bytes. A password is short; a message that a dialogue sends may be longer."""


Stamp = tuple[int, int, int]
"""What changes when a file is written or exchanged."""


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a file. Raises OSError, and ValueError for a path that holds a NUL."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_secret(path: Path) -> str:
    """Return the text of a regular file without the line breaks at its end.

    Raises OSError, also for a named pipe or a device, which could keep the whole exporter waiting, and
    UnicodeDecodeError.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file")
        content = file.read(_MOST + 1)
    if len(content) > _MOST:
        raise OSError(errno.EFBIG, f"Larger than {_MOST} bytes")
    return content.decode().rstrip("\r\n")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
