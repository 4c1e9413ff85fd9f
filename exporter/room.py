"""Owns whether there is room for what is to be watched: file descriptors."""

import resource
from typing import Final

_SPARE_FILES: Final = 64
"""File descriptors for listeners, scrapes and the interpreter, beside two for each service."""


def files_missing(services: int) -> str | None:
    """Say what is missing for a session and a canary of each service; ``None`` where there is enough."""
    needed = 2 * services + _SPARE_FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard in (-1, resource.RLIM_INFINITY) or needed <= hard:
        return None
    return f"{services} services may need {needed} file descriptors, the limit is {hard}: raise LimitNOFILE="
