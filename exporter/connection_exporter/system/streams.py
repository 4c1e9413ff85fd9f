"""The standard streams of the process. Imports little, because every command imports it."""

import os
import sys


def reserve_standard_streams() -> None:
    """Open /dev/null in place of each standard stream that is closed (``>&-``). Call this before anything is opened.

    The kernel would otherwise give the free descriptor 2 to the next file or socket, and the log would be written to
    it. Python's ``sys.stdout`` and ``sys.stderr`` are None in that case.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the kernel returns the lowest free number
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for the life of the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
