"""Draws what ``check`` shows in a terminal: its progress, and the result as a table that fits the width."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from connection_exporter.cli.cells import canary, counts, latency, why
from connection_exporter.cli.styled import open_table, shown, sign_of, signed
from connection_exporter.core.health import Status
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Transition

_HEADINGS: Final = tuple(map(Text, ("SERVICE", "KIND", "STATUS", "LATENCY", "CANARY")))
_NARROWEST: Final = 24
"""Columns that reasons need at least to be beside the other cells."""


class CheckProgress:
    """Shows which services have not answered yet, until the end of the block, which removes it from the terminal."""

    def __init__(self, console: Console, names: list[str], board: Board) -> None:
        self._console = console
        self._waiting = dict.fromkeys(names)
        self._total = len(names)
        self._live = Live(
            console=console,
            get_renderable=self._line,
            auto_refresh=False,  # without a thread of its own
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        board.subscribe(self._on_transition)

    async def __aenter__(self) -> Self:
        self._live.start()
        self._console.show_cursor()  # a signal that kills the process would leave it hidden
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ticking.cancel()
        with suppress(asyncio.CancelledError):
            await self._ticking
        self._live.stop()

    def _on_transition(self, transition: Transition) -> None:
        if transition.status not in (Status.CONNECTING, Status.UNKNOWN):
            self._waiting.pop(transition.name, None)

    async def _tick(self) -> None:
        while True:
            self._live.refresh()
            await asyncio.sleep(0.1)

    def _line(self) -> RenderableType:
        left = ", ".join(list(self._waiting)[:3]) + (" …" if len(self._waiting) > 3 else "")
        done = self._total - len(self._waiting)
        text = f"checked {done} of {self._total}, " + (
            f"waiting for {left}" if left else "canaries under way"
        )
        line = Table.grid(padding=(0, 1))
        line.add_column(width=20)
        line.add_column(no_wrap=True, overflow="ellipsis")
        line.add_row(ProgressBar(total=self._total, completed=done), shown(text))
        return line


def result(status: dict[str, Any], width: int) -> RenderableType:
    """Return the result for a terminal of ``width`` columns: as a table or, if that is too wide, as a list."""
    services = status["services"]
    rows = [
        (shown(name, "bold"), shown(of["kind"]), _status(of), Text(latency(of)), Text(canary(of)))
        for name, of in services.items()
    ]
    reasons = [shown(why(of)) for of in services.values()]
    cells = sum(max(cell.cell_len for cell in column) + 2 for column in zip(_HEADINGS, *rows, strict=True))
    fits = cells + min(_NARROWEST, max((reason.cell_len for reason in reasons), default=0)) <= width
    return Group(_table(rows, reasons) if fits else _list(services), "", _summary(status))


def _status(service: Mapping[str, Any]) -> Text:
    return signed(service["status"], service["status"], sign_of(service["status"]).color)


def _table(rows: Sequence[Sequence[Text]], reasons: Sequence[Text]) -> Table:
    """Return a row for each service, whose reason is wrapped beside the other cells."""
    table = open_table(rule=True)
    for heading in _HEADINGS:
        table.add_column(heading, no_wrap=True, justify="right" if heading.plain == "LATENCY" else "left")
    table.add_column("REASON", overflow="fold")
    for row, reason in zip(rows, reasons, strict=True):
        table.add_row(*row, reason)
    return table


def _list(services: Mapping[str, Any]) -> Table:
    """Return what is known about each service beside its name, and the reason on lines of its own."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in ("service", "facts"):
        table.add_column(overflow="fold")
    for name, service in services.items():
        facts = [_status(service), shown(service["kind"])]
        if service["latency_seconds"] is not None:
            facts.append(Text(latency(service)))
        if service["canary"]["up"] is not None:
            facts.append(Text(f"canary {canary(service)}"))
        lines = [Text("  ").join(facts), shown(why(service))]
        table.add_row(shown(name, "bold"), Text("\n").join(line for line in lines if line))
    return table


def _summary(status: dict[str, Any]) -> Text:
    overall = status["status"]
    found = (shown(text, sign_of(each).color) for each, text in counts(status["summary"]))
    return signed(overall, f"{overall}: ", f"bold {sign_of(overall).color}").append_text(
        Text(", ").join(found)
    )
