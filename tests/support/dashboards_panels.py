"""Read the committed dashboards, and substitute variables in queries as Grafana does."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "grafana" / "dashboards"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
POINTS = 1000

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """One query of one panel."""

    dashboard: str
    panel: str
    ref: str
    expr: str
    legend: str
    instant: bool
    interval: str | None
    range_seconds: int

    def __str__(self) -> str:
        return f"{self.dashboard}-{self.panel}-{self.ref}"

    def step(self, scrape: int) -> int:
        """Return $__interval: the range over the points, at least the panel's and the scrape's."""
        least = seconds(self.interval) if self.interval else scrape
        return max(least, scrape, self.range_seconds // POINTS)

    def substituted(self, scrape: int, variables: dict[str, str]) -> str:
        """Return the expression with Grafana's variables and ours filled in."""
        step = self.step(scrape)
        values = {
            "__interval": f"{step}s",
            "__rate_interval": f"{max(step + scrape, 4 * scrape)}s",
            "__range_s": str(self.range_seconds),
            "__range": f"{self.range_seconds}s",
        } | variables
        return re.sub(r"\$\{?([a-z_]\w*)\}?", lambda found: values[found[1]], self.expr)


def dashboards() -> dict[str, Json]:
    """Return every committed dashboard by its file's stem."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def panels(dashboard: Json) -> Iterator[Json]:
    """Yield every panel except rows, including those in collapsed rows."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def queries() -> list[Query]:
    """Return every query of every panel of every dashboard."""
    return [
        Query(
            dashboard=stem,
            panel=panel["title"],
            ref=target["refId"],
            expr=target["expr"],
            legend=target["legendFormat"],
            instant=target["instant"],
            interval=panel.get("interval"),
            range_seconds=seconds(dashboard["time"]["from"].removeprefix("now-")),
        )
        for stem, dashboard in dashboards().items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]


def strings(value: object) -> Iterator[str]:
    """Yield every string in a value, except the keys of mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def seconds(duration: str) -> int:
    """Return the seconds of a duration of one unit, as 30d."""
    return int(duration[:-1]) * SECONDS[duration[-1]]
