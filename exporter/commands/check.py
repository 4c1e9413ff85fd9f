"""Owns ``connection-exporter check``: one attempt and one canary each, then a table or JSON."""

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from exporter.app import Monitor
from exporter.config import Config
from exporter.core.health import Status
from exporter.record import Transition

_EXIT: Final[Mapping[str, int]] = {"healthy": 0, "degraded": 1, "partial": 3, "unknown": 3}
_COLOURS: Final[Mapping[str, str]] = {
    "healthy": "32",
    "degraded": "33",
    "connecting": "36",
    "unhealthy": "33",
    "disconnected": "31",
    "partial": "31",
    "unknown": "35",
}


async def check(config: Config, *, as_json: bool) -> int:
    """Check every service once, print the result, and return the exit status.

    ``retries`` is taken as 1, so that one failed attempt already means disconnected.
    """
    once = {name: service.model_copy(update={"retries": 1}) for name, service in config.services.items()}
    monitor = Monitor(replace(config, services=once))
    progress = _Progress(list(once))
    monitor.board.subscribe(progress.told)
    async with monitor:
        ticking = asyncio.create_task(progress.tick())
        await monitor.force_check()
        status = monitor.status()
        ticking.cancel()
    progress.clear()
    print(
        json.dumps(status, indent=2, ensure_ascii=False)
        if as_json
        else _table(status, colour=sys.stdout.isatty())
    )
    return _EXIT[status["status"]]


class _Progress:
    """Says on standard error who has not answered yet: in place on a terminal, not at all elsewhere."""

    def __init__(self, names: list[str]) -> None:
        self._waiting = dict.fromkeys(names)
        self._total = len(names)
        self._on = sys.stderr.isatty()

    def told(self, transition: Transition) -> None:
        if transition.status not in (Status.CONNECTING, Status.UNKNOWN):
            self._waiting.pop(transition.name, None)

    async def tick(self) -> None:
        while self._on:
            done = self._total - len(self._waiting)
            left = ", ".join(list(self._waiting)[:3]) + (" …" if len(self._waiting) > 3 else "")
            text = f"checked {done} of {self._total}" + (
                f", waiting for {left}" if left else ", canaries under way"
            )
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            await asyncio.sleep(0.1)

    def clear(self) -> None:
        if self._on:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _table(status: dict[str, Any], *, colour: bool) -> str:
    rows = [("SERVICE", "KIND", "STATUS", "LATENCY", "CANARY", "REASON")]
    for name, service in status["services"].items():
        canary = {None: "-", True: "good", False: "bad"}[service["canary"]["up"]]
        why = ": ".join(part for part in (service["reason"], service["message"]) if part)
        rows.append(
            (name, service["kind"], service["status"], _milliseconds(service["latency_seconds"]), canary, why)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        if colour and row[2] in _COLOURS:
            cells[2] = f"\x1b[{_COLOURS[row[2]]}m{cells[2]}\x1b[0m"
        lines.append("  ".join((*cells, row[5])).rstrip())
    summary = ", ".join(
        f"{count} {word}" for word, count in status["summary"].items() if count and word != "total"
    )
    return "\n".join((*lines, "", f"{status['status']}: {summary}"))


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"
