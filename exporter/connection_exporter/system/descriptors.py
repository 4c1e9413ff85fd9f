"""Limits of open files: whether they are enough for the services, and how many are left."""

import errno
import os
import resource
import socket
from contextlib import suppress
from typing import Final

_SPARE_FILES: Final = 64
"""File descriptors for listeners, scrapes and the interpreter, in addition to two for each service."""

_RESERVED_FILES: Final = 24
"""Descriptors that connections to services leave free."""


def raise_file_limit() -> None:
    """Raise our limit of open files to the hard limit, which `validate` uses: the soft one is often 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def share_of_files(parts: int, *, most: int) -> int:
    """Return the ``parts``-th part of the files that we may open now, and ``most`` if that is less."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else min(most, soft // parts)


def may_stay_open(fd: int) -> bool:
    """Return whether a file that was just opened may stay open only because opening it again would cost time.

    The kernel gives the lowest free number, so such files take at most a third of the limit.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft == resource.RLIM_INFINITY or fd < soft // 3


def require_free_files() -> None:
    """Raise OSError (EMFILE) if another connection would take one of the last descriptors.

    Whatever there is too much of, /metrics has to be answered.
    """
    with socket.socket() as lowest_free:
        require_spare(lowest_free.fileno())


def require_spare(fd: int) -> None:
    """Raise OSError (EMFILE) if ``fd``, which the kernel has just given, is one of the last descriptors.

    The kernel gives the lowest free number.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and fd >= limit - _RESERVED_FILES:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def files_missing(services: int) -> str | None:
    """Return what is missing for a session and a canary of each service, or None."""
    needed = 2 * services + _SPARE_FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard in (-1, resource.RLIM_INFINITY) or needed <= hard:
        return None
    return f"{services} services may need {needed} file descriptors, the limit is {hard}: raise LimitNOFILE="
