"""The figures of a run: the targets, what was measured, and the table that shows both."""

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the results. ``measured`` and ``limit``, the target, are in ``unit``. Some figures have no target."""

    what: str
    measured: float
    unit: str
    limit: float | None = None
    peer: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the target is met."""
        if self.limit is None:
            return ""
        return "met" if self.measured <= self.limit else "missed"

    def cells(self) -> tuple[str, ...]:
        """Return the line of the table."""
        ratio = f"{self.measured / self.peer:.2f}" if self.peer else ""
        return (
            self.what,
            shown(self.limit, self.unit),
            shown(self.measured, self.unit),
            shown(self.peer, self.unit),
            ratio,
            self.verdict,
            self.note,
        )


def middle(values: Iterable[float]) -> float:
    """Return the median of the rounds."""
    return median(values)


def percentile(values: Iterable[float], share: float) -> float:
    """Return a percentile: the value that ``share`` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as a Markdown table."""
    head = ("what", "target", "measured", "peer", "ratio", "verdict", "remark")
    return table_of(head, [figure.cells() for figure in figures])


def table_of(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table with aligned columns, so that it is readable in a terminal too."""
    rows = [head, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def machine() -> str:
    """Describe the machine, and its load."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}; load at the start {load:.1f}"
    )


def shown(value: float | None, unit: str) -> str:
    """Return a value with its unit and three digits, or nothing for None."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {unit}"
