"""Owns the terminal while the board is shown in it: the screen, the keys, the size, and how the board looks.

All that comes from the exporter is written only after `printable`: a message must not steer the terminal.
"""

import asyncio
import os
import signal
import sys
import termios
import time
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from exporter.record import printable

if TYPE_CHECKING:
    from exporter.commands.watch import Seen

_SIGNS: Final[Mapping[str, tuple[str, str]]] = {
    "healthy": ("✓", "32"),
    "connecting": ("↻", "36"),
    "unhealthy": ("!", "33"),
    "degraded": ("!", "33"),
    "disconnected": ("✕", "31"),
    "partial": ("✕", "31"),
    "unknown": ("?", "35"),
}
_ORDER: Final = ("disconnected", "unhealthy", "connecting", "unknown", "healthy")
_REASON_WIDTH: Final = 40
"""Columns that are left for reasons before there is room for more than the necessary."""
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"


class Screen:
    """The terminal's other screen, without echo; it is as it was again after the block."""

    def __init__(self, seen: "Seen") -> None:
        self._seen = seen
        self._colour = not os.environ.get("NO_COLOR")
        self._before = termios.tcgetattr(sys.stdin)
        self._quit = asyncio.Event()
        self._drawing: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self.linked)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        loop.add_reader(sys.stdin, self._key)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(sys.stdin)
        for number in (signal.SIGWINCH, signal.SIGTSTP):
            loop.remove_signal_handler(number)
        self._give_back()

    async def until_quit(self) -> None:
        """Draw once a second, for ages and countdowns, until ``q`` is pressed."""
        while not self._quit.is_set():
            self._draw()
            try:
                async with asyncio.timeout(1):
                    await self._quit.wait()
            except TimeoutError:
                continue

    def told(self, event: str, data: dict[str, Any]) -> None:  # noqa: ARG002 - it is drawn from what is seen
        """Draw soon: events come in bursts."""
        if self._drawing is None:
            self._drawing = asyncio.get_running_loop().call_later(0.05, self._draw)

    def linked(self) -> None:
        """Draw at once: the link has changed, or the size."""
        self._draw()

    def _draw(self) -> None:
        if self._drawing is not None:
            self._drawing.cancel()
            self._drawing = None
        width, height = os.get_terminal_size(sys.stdout.fileno())
        # A terminal that does not know its size says 0.
        lines = draw(self._seen, width=width or 80, height=height or 24, now=time.time(), colour=self._colour)
        body = "\r\n".join(f"{line}\x1b[K" for line in lines)
        # Shown in one piece by terminals that know how (mode 2026); the others leave it alone.
        _write(f"\x1b[?2026h\x1b[H{body}\x1b[J\x1b[?2026l")

    def _key(self) -> None:
        if os.read(sys.stdin.fileno(), 64) in (b"q", b"Q", b""):
            self._quit.set()

    def _suspend(self) -> None:
        """Give the terminal back for as long as we are stopped by Ctrl-Z."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()
        self._draw()

    def _take(self) -> None:
        quiet = termios.tcgetattr(sys.stdin)
        quiet[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
        _write(_ENTER)

    def _give_back(self) -> None:
        _write(_LEAVE)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)


def draw(seen: "Seen", *, width: int, height: int, now: float, colour: bool) -> list[str]:
    """Return the board as ``height`` lines at the most, none wider than ``width`` columns."""
    now += seen.skew
    lines = [_headline(seen, width, now, colour=colour), ""]
    services = sorted(seen.services.values(), key=lambda s: (_rank(s["status"]), not s["critical"]))
    changes = min(len(seen.changes), max(0, (height - len(lines) - 3) // 4), 8)
    room = height - len(lines) - 1 - (changes + 2 if changes else 0)
    lines += _rows(services, width, room, now, colour=colour)
    if changes:
        lines += ["", _styled("Last changes", "2", colour=colour)]
    for change in list(seen.changes)[:changes]:
        sign, style = _sign(change["to"])
        text = f"{_clock(change['at'])}  {change['name']}  {change['from']} -> {change['to']}  {_why(change)}"
        lines.append(f"{_styled(sign, style, colour=colour)} {_fitted(text, width - 2).rstrip()}")
    return lines[:height]


def _sign(status: str) -> tuple[str, str]:
    """Return the sign and colour of a status; an exporter that is newer may have others."""
    return _SIGNS.get(status, _SIGNS["unknown"])


def _rank(status: str) -> int:
    return _ORDER.index(status if status in _ORDER else "unknown")


def _headline(seen: "Seen", width: int, now: float, *, colour: bool) -> str:
    live = seen.live
    status = seen.overall.get("status", "unknown") if live else "unknown"
    sign, style = _sign(status)
    if live:
        counts = seen.overall.get("summary", {})
        healthy = f"{counts.get('healthy', 0)} of {counts.get('total', 0)} healthy"
        text = f"{healthy}  {printable(seen.place)}  q quits"
    else:
        age = f"shown is {_duration(now - seen.skew - seen.heard)} old: " if seen.heard else ""
        text = f"NOT LIVE  {age}{printable(seen.link)}"
    word = f" {sign} {printable(status) if live else 'not known'} "[:width]
    rest = _fitted(f" {text}", width - len(word)).rstrip()
    return _styled(word, f"{style};7;1", colour=colour) + rest


def _rows(
    services: list[dict[str, Any]], width: int, room: int, now: float, *, colour: bool
) -> Iterator[str]:
    """Yield the heading and a row for each service; where they do not fit, say how many more there are."""
    if not services or room < 2:
        return
    name_width = min(max(7, *(len(s["name"]) for s in services)), max(12, width // 4))
    columns = [("SERVICE", name_width), ("STATUS", 12), ("FOR", 11)]
    extra = [("LATENCY", 9), ("RETRIES", 7), ("NEXT", 9), ("CHECKED", 14), ("CANARY", 6), ("KIND", 10)]
    left = width - 2 - sum(size + 2 for _, size in columns) - _REASON_WIDTH
    for heading, size in extra:
        left -= size + 2
        if left >= 0:
            columns.append((heading, size))
    headings = "  ".join(_fitted(heading, size) for heading, size in columns)
    yield _styled(_fitted(f"  {headings}  REASON", width).rstrip(), "2", colour=colour)
    shown = services if len(services) <= room - 1 else services[: room - 2]
    for service in shown:
        sign, style = _sign(service["status"])
        cells = _cells(service, now)
        row = "  ".join(_fitted(cells[heading], size) for heading, size in columns)
        rest = _fitted(f"{row}  {_why(service)}", width - 2).rstrip()
        at = name_width + 2
        yield (
            f"{_styled(sign, style, colour=colour)} {rest[:at]}"
            f"{_styled(rest[at : at + 12], style, colour=colour)}{rest[at + 12 :]}"
        )
    if len(shown) < len(services):
        hidden = services[len(shown) :]
        healthy = all(s["status"] == "healthy" for s in hidden)
        yield _fitted(f"  … and {len(hidden)} more{', all healthy' if healthy else ''}", width).rstrip()


def _cells(service: Mapping[str, Any], now: float) -> dict[str, str]:
    latency, canary = service["latency_seconds"], service["canary"]["up"]
    checked, next_attempt = service["last_check"], service["next_attempt"]
    return {
        "SERVICE": service["name"],
        "KIND": service["kind"],
        "STATUS": service["status"],
        "FOR": _duration(now - _seconds(service["status_since"])),
        "LATENCY": "-" if latency is None else f"{latency * 1000:.1f} ms",
        "RETRIES": str(service["retry_count"]),
        "NEXT": "-" if next_attempt is None else _due(_seconds(next_attempt) - now),
        "CHECKED": "never" if checked is None else f"{_duration(now - _seconds(checked))} ago",
        "CANARY": {None: "-", True: "good", False: "bad"}[canary],
    }


def _due(seconds: float) -> str:
    return "now" if seconds < 1 else f"in {_duration(seconds)}"


def _why(of: Mapping[str, Any]) -> str:
    return ": ".join(printable(str(of[key])) for key in ("reason", "message") if of[key])


def _fitted(text: str, width: int) -> str:
    """Cut or fill ``text``, made printable, to ``width`` columns; wide characters take two, combining ones none."""
    used = 0
    kept: list[str] = []
    for character in printable(text):
        wide = 1 + (unicodedata.east_asian_width(character) in "WF")
        if unicodedata.combining(character):
            wide = 0
        if used + wide > width:
            if kept:
                kept[-1] = "…"
            break
        kept.append(character)
        used += wide
    return "".join(kept) + " " * (width - used)


def _styled(text: str, style: str, *, colour: bool) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if colour and text else text


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole // 60 % 60} min" if whole < 172_800 else f"{whole // 86_400} d"


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def _clock(timestamp: str) -> str:
    return datetime.fromisoformat(timestamp).astimezone().strftime("%H:%M:%S")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
