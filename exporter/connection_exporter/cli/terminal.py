"""Decides whether a terminal can be drawn on. Imports rich only if it can: no other command loads it."""

import os
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console

INSTALL: Final = "pip install 'connection-exporter[terminal]'"


def is_terminal(stream: TextIO) -> bool:
    """Return whether ``stream`` is a terminal that can move its cursor and show any character."""
    term = os.environ.get("TERM", "dumb").lower()
    return stream.isatty() and term not in ("dumb", "unknown") and stream.encoding.lower().startswith("utf")


def console_on(stream: TextIO, *, color: bool) -> "Console | None":
    """Return a console of rich, or None for plain text: on no such terminal, or without the extra ``terminal``."""
    if not is_terminal(stream):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(
        file=stream,
        force_terminal=True,  # FORCE_COLOR and TTY_COMPATIBLE decide nothing here
        color_system="auto" if color else None,
        no_color=not color,
        markup=False,
        emoji=False,
        highlight=False,
    )
