"""A machine that starts no more threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from connection_exporter.system.threads import _Worker


@contextmanager
def no_threads() -> Iterator[None]:
    """Have the kernel refuse every new thread: there is no room for a stack of 64 TiB. None is idle either."""
    before = threading.stack_size(1 << 46)
    idle = [_Worker.idle.pop() for _ in range(len(_Worker.idle))]
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            threading.Thread(target=int).start()
        yield
    finally:
        threading.stack_size(before)
        _Worker.idle.extend(idle)
