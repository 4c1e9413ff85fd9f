"""What `check` and `watch` draw alike: texts with the sign and color of a status, and tables without a frame.

Every text from a service passes through `shown`: rich itself lets escape sequences through to the terminal.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from connection_exporter.monitor.details import printable


class Sign(NamedTuple):
    """A character and a color for a status, so that it does not depend on its color alone."""

    character: str
    color: str


_UNKNOWN: Final = Sign("?", "magenta")
_SIGNS: Final[Mapping[str, Sign]] = {
    "healthy": Sign("✓", "green"),
    "connecting": Sign("↻", "cyan"),
    "unhealthy": Sign("!", "yellow"),
    "degraded": Sign("!", "yellow"),
    "disconnected": Sign("✕", "red"),
    "partial": Sign("✕", "red"),
}


def sign_of(status: str) -> Sign:
    """Return the sign of a status; a newer exporter may have others."""
    return _SIGNS.get(status, _UNKNOWN)


def shown(text: str, style: str = "") -> Text:
    """Return a text on one line, without control characters. Rich reads no markup in it."""
    return Text(printable(text), style=style)


def signed(status: str, text: str, style: str = "") -> Text:
    """Return a text behind the sign of a status."""
    sign = sign_of(status)
    return Text.assemble((sign.character, sign.color), " ", shown(text, style))


def open_table(*, rule: bool, expand: bool = False, style: str = "") -> Table:
    """Return a table without a frame and with two spaces between columns. ``rule`` puts a line below its headings."""
    return Table(
        box=SIMPLE_HEAD if rule else None,
        padding=(0, 1 if rule else 2, 0, 0),  # the box adds a space
        show_edge=False,
        pad_edge=False,
        expand=expand,
        style=style,
        header_style="dim",
        border_style="dim",
    )
