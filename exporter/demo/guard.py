"""Owns what becomes of frozen processes when we end: they cannot notice it, so somebody else has to."""

import subprocess
from collections.abc import Sequence


class Guard:
    """A shell that waits for our end, and then kills ``pids``.

    The kernel kills a server whose parent has ended (see `exporter.demo.launch`), but the server's frozen
    children would stay for ever. The shell reads from a pipe that only we hold open.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        victims = " ".join(str(pid) for pid in pids)
        self._shell = subprocess.Popen(  # noqa: S603  # nothing but numbers in it
            ["/bin/sh", "-c", f"read _ || kill -9 {victims}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Send the shell home; nothing is killed."""
        self._shell.communicate(b"\n")
