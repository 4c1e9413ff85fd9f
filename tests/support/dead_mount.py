"""A file system that does not respond: a real FUSE mount behind which nobody answers."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

_DETACH: Final = 2  # MNT_DETACH, umount(2)


@contextmanager
def dead_mount(folder: Path) -> Iterator[Path]:
    """Mount it on ``folder``. Every system call on a path below it waits until the block ends, then fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"needs /dev/fuse: {error}")
    options = f"fd={device},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()}"
    if libc.mount(b"dead", os.fsencode(folder), b"fuse", 0, options.encode()) != 0:
        os.close(device)
        pytest.skip(f"needs the right to mount: {os.strerror(ctypes.get_errno())}")
    try:
        yield folder
    finally:
        os.close(device)  # ends what waits, with ENOTCONN
        libc.umount2(os.fsencode(folder), _DETACH)
