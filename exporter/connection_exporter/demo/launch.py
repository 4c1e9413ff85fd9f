"""Starts a child process of the demo, which ends with this process and has no root privileges where it must not.

It runs as a script that then becomes the program, so that no Python code runs between fork and exec in a process
with threads. It imports only the standard library, to start in 20 ms.

    python -I -S launch.py PARENT_PID UID:GID PROGRAM ARGUMENT...
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Become the program. UID:GID of ``-`` keeps the account."""
    parent, account, *command = arguments
    if account != "-":
        uid, gid = (int(number) for number in account.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    _die_with(int(parent))  # after setuid, which would undo it
    os.execv(command[0], command)  # noqa: S606  # a shell is what we do without


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends (prctl(2), Linux only)."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent has ended")


if __name__ == "__main__":
    main(sys.argv[1:])
