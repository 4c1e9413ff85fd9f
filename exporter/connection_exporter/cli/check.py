"""The command ``check``: makes one attempt and one canary for each service, and prints a table or JSON."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from connection_exporter.cli.cells import canary, counts, latency, why
from connection_exporter.cli.terminal import console_on
from connection_exporter.config import Config
from connection_exporter.kind import takes_beats
from connection_exporter.monitor.broken import build_services
from connection_exporter.monitor.monitor import Monitor
from connection_exporter.net import Network

_EXIT: Final[Mapping[str, int]] = {"healthy": 0, "degraded": 1, "partial": 3, "unknown": 3}


async def check(config: Config, *, as_json: bool, color: bool) -> int:
    """Check every service once, print the result, and return the exit status.

    ``retries`` is taken as 1, so that one failed attempt already means disconnected. Services that report to a running
    exporter (heartbeat) are left out.
    """
    built = build_services(config.services, Network())
    left_out = [service.name for service in built if takes_beats(service.check)]
    if left_out:
        print(
            f"not checked, because they report to a running exporter: {', '.join(left_out)}", file=sys.stderr
        )
    once = {
        name: service.model_copy(update={"retries": 1})
        for name, service in config.services.items()
        if name not in left_out
    }
    status = await _checked(Monitor(replace(config, services=once)), list(once), color=color)
    if as_json:
        print(json.dumps(status, indent=2, ensure_ascii=False))
    else:
        _print(status, color=color)
    return _EXIT[status["status"]]


async def _checked(monitor: Monitor, names: list[str], *, color: bool) -> dict[str, Any]:
    """Return the board after one attempt and one canary of each. Meanwhile, a terminal on stderr shows the progress."""
    if (console := console_on(sys.stderr, color=color)) is None:
        async with monitor:
            await monitor.force_check()
            return monitor.status()
    from connection_exporter.cli.check_screen import CheckProgress

    async with CheckProgress(console, names, monitor.board), monitor:
        await monitor.force_check()
        return monitor.status()


def _print(status: dict[str, Any], *, color: bool) -> None:
    """Print the result, drawn on a terminal if possible."""
    if not status["services"]:
        print("no service was checked")
        return
    if (console := console_on(sys.stdout, color=color)) is None:
        print("\n".join(_lines(status)))
        return
    from connection_exporter.cli.check_screen import result

    console.print(result(status, console.width))


def _lines(status: dict[str, Any]) -> Iterator[str]:
    """Yield the result as plain text: a line for each service, however long, so that other programs can read it."""
    rows = [("SERVICE", "KIND", "STATUS", "LATENCY", "CANARY", "REASON")]
    for name, service in status["services"].items():
        rows.append(
            (name, service["kind"], service["status"], latency(service), canary(service), why(service))
        )
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
    yield f"{status['status']}: {', '.join(text for _, text in counts(status['summary']))}"
