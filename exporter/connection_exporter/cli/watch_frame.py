"""Draws the board of an exporter for a screen of any size. It reads no clock and no terminal, and writes nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from connection_exporter.cli.cells import canary, counts, latency, why
from connection_exporter.cli.styled import open_table, shown, sign_of, signed

if TYPE_CHECKING:
    from connection_exporter.cli.watch import Seen

_Service = Mapping[str, Any]

_ORDER: Final = ("disconnected", "unhealthy", "connecting", "unknown", "healthy")
_ROOMY: Final = 12
"""Rows of a terminal that has room for blank lines and rules."""
_MOST_CHANGES: Final = 8
_NARROWEST: Final = 8
"""Columns that the reason needs at least to be shown."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What the screen shows at ``now`` (seconds since the epoch), in the size that rich asks for."""

    seen: "Seen"
    now: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the headline, the services and the last changes."""
        height = options.height or console.height
        head = _headline(self.seen, options.max_width, self.now + self.seen.skew)
        yield head
        left = height - _height(head, console, options)
        if height >= _ROOMY:
            yield ""
            left -= 1
        changes = list(self.seen.changes)[: min(_MOST_CHANGES, max(0, (left - 3) // 4))]
        yield from self._services(console, options, left - (len(changes) + 2 if changes else 0))
        if changes:
            yield from ("", Rule(Text("Last changes"), align="left", style="dim"), _changes(changes))

    def _services(self, console: Console, options: ConsoleOptions, room: int) -> Iterator[RenderableType]:
        """Yield the table in ``room`` lines: with reasons in full, or cut to a line, or with the last rows counted."""
        services = sorted(self.seen.services.values(), key=lambda s: (_rank(s["status"]), not s["critical"]))
        rule = (options.height or console.height) >= _ROOMY
        rows = room - (2 if rule else 1)
        if not services or rows < 1:
            return
        if len(services) > rows:
            yield self._table(services[: rows - 1], options.max_width, rule=rule, wrap=False)
            yield _rest(services[rows - 1 :])
            return
        table = self._table(services, options.max_width, rule=rule, wrap=True)
        fits = _height(table, console, options) <= room
        yield table if fits else self._table(services, options.max_width, rule=rule, wrap=False)

    def _table(self, services: Sequence[_Service], width: int, *, rule: bool, wrap: bool) -> Table:
        longest = max((len(name) for name in self.seen.services), default=0)
        first = 2 + min(max(7, longest), max(12, width // 4))  # with the sign
        columns, left = _columns(width - first)
        table = open_table(rule=rule, expand=True, style="" if self.seen.live else "dim")
        table.add_column("  SERVICE", width=min(first, width), no_wrap=True)
        for column in columns:
            table.add_column(column.heading, width=column.width, no_wrap=True, justify=column.justify)
        if left >= _NARROWEST:
            table.add_column("REASON", ratio=1)
        for service in services:
            cells = [signed(service["status"], service["name"], "bold")]
            cells += [column.cell(service, self.now + self.seen.skew) for column in columns]
            table.add_row(*cells, *([_reason(service, wrap=wrap)] if left >= _NARROWEST else []))
        return table


class _Column(NamedTuple):
    """A column that is shown if it leaves ``reserve`` columns of the terminal for the reason."""

    heading: str
    width: int
    reserve: int
    cell: Callable[[_Service, float], Text]
    justify: Literal["left", "right"] = "left"


_COLUMNS: Final = (
    _Column("STATUS", 12, 0, lambda of, _: shown(of["status"], sign_of(of["status"]).color)),
    _Column("FOR", 11, 16, lambda of, now: Text(_duration(now - _seconds(of["status_since"])))),
    _Column("LATENCY", 9, 40, lambda of, _: Text(latency(of)), "right"),
    _Column("RETRIES", 7, 40, lambda of, _: Text(str(int(of["retry_count"]))), "right"),
    _Column("NEXT", 9, 40, lambda of, now: Text(_due(of["next_attempt"], now))),
    _Column("CHECKED", 14, 56, lambda of, now: Text(_ago(of["last_check"], now))),
    _Column("CANARY", 6, 56, lambda of, _: Text(canary(of))),
    _Column("KIND", 10, 56, lambda of, _: shown(of["kind"])),
)


def _columns(left: int) -> tuple[list[_Column], int]:
    """Return the columns that fit beside the reason, and what they leave for it."""
    chosen = []
    for column in _COLUMNS:
        if left - column.width - 4 >= column.reserve:
            chosen.append(column)
            left -= column.width + 2
    return chosen, left - 2


def _headline(seen: "Seen", width: int, now: float) -> Padding:
    """Return a bar in the color of the overall status, with what is known of all services together."""
    status = seen.overall.get("status", "unknown") if seen.live else "unknown"
    text = _totals(seen, status, width - 2) if seen.live else _not_live(seen, now)
    return Padding(text, (0, 1), style=f"bold reverse {sign_of(status).color}")


def _totals(seen: "Seen", status: str, width: int) -> Text:
    """Return the overall status, how many services have which, and as far as there is room, the address."""
    summary = seen.overall.get("summary", {})
    healthy = f"{summary.get('healthy', 0)} of {summary.get('total', 0)} healthy"
    others = (text for each, text in counts(summary) if each != "healthy")
    line = shown("  ".join((f"{sign_of(status).character} {status}", healthy, *others)))
    for right in map(shown, (f"{seen.place}  q quits", seen.place, "q quits")):
        if (gap := width - line.cell_len - right.cell_len) >= 2:
            return line.append(" " * gap).append_text(right)
    return _cut(line)


def _not_live(seen: "Seen", now: float) -> Text:
    """Return why the board is not up to date, and how old it is."""
    age = f"shown is {_duration(now - seen.skew - seen.heard)} old: " if seen.heard else ""
    return shown(f"{sign_of('unknown').character} not known  NOT LIVE  {age}{seen.link}")


def _changes(changes: Sequence[_Service]) -> Table:
    """Return a row for each transition, the last one first."""
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for _ in ("time", "name"):
        table.add_column(no_wrap=True)
    table.add_column()
    table.add_column(ratio=1)
    for change in changes:
        steps = shown(f"{change['from']} → ").append_text(shown(change["to"], sign_of(change["to"]).color))
        at = signed(change["to"], _clock(change["at"]), "dim")
        table.add_row(at, shown(change["name"], "bold"), _cut(steps), _cut(shown(why(change))))
    return table


def _reason(service: _Service, *, wrap: bool) -> Text:
    text = shown(why(service))
    return text if wrap else _cut(text)


def _rest(hidden: Sequence[_Service]) -> Text:
    healthy = all(service["status"] == "healthy" for service in hidden)
    return _cut(shown(f"  … and {len(hidden)} more{', all healthy' if healthy else ''}", "dim"))


def _cut(text: Text) -> Text:
    """Mark a text to be shown on one line, with an ellipsis if it is too long."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _height(what: RenderableType, console: Console, options: ConsoleOptions) -> int:
    """Return how many lines something takes."""
    return len(console.render_lines(what, options.reset_height(), pad=False))


def _rank(status: str) -> int:
    return _ORDER.index(status if status in _ORDER else "unknown")


def _due(timestamp: str | None, now: float) -> str:
    if timestamp is None:
        return "-"
    seconds = _seconds(timestamp) - now
    return "now" if seconds < 1 else f"in {_duration(seconds)}"


def _ago(timestamp: str | None, now: float) -> str:
    return "never" if timestamp is None else f"{_duration(now - _seconds(timestamp))} ago"


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
