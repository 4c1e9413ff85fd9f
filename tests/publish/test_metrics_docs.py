"""docs/metrics.md lists exactly the metrics that are exposed, with their types and labels."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import yaml
from prometheus_client.core import Metric as Family

from exporter.board import Board
from exporter.building import build
from exporter.check import MetricType, Observation
from exporter.clock import SystemClock
from exporter.config import EXAMPLE, load_text
from exporter.core.health import Event, Reason
from exporter.net import Network
from exporter.publish.families import FAMILIES, label_pairs
from exporter.publish.own_metrics import OwnMetrics
from exporter.record import Report

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "metrics.md").read_text()
ROW = re.compile(
    r"^\| `(?P<name>[a-z_]+)` \| (?P<type>[a-z]+) \| (?P<labels>[a-z, ]+|—) \| .+ \|$", re.MULTILINE
)


class Told(NamedTuple):
    name: str
    type: str
    labels: frozenset[str]


def documented() -> list[Told]:
    labels = (
        frozenset(row["labels"].split(", ")) if row["labels"] != "—" else frozenset()
        for row in ROW.finditer(DOCS)
    )
    return [
        Told(row["name"], row["type"], found) for row, found in zip(ROW.finditer(DOCS), labels, strict=True)
    ]


def labels_in(lines: str) -> frozenset[str]:
    return frozenset(re.findall(r'[{,]([a-z]+)="', lines)) - {"le"}


def exposed() -> set[Told]:
    board = Board(build(load_text(EXAMPLE).services, Network()), SystemClock())
    for name in board.names:  # so that each family has a series to show its labels
        board.put(name, Report(Event.FAILED, Reason.REFUSED))
        board.put(name, Report(Event.ANSWERED_GOOD, observation=Observation()))
    found: set[Told] = set()
    for record in board.records():
        for family in FAMILIES:
            lines = family.lines(record, label_pairs(record))
            labels = labels_in(lines) or frozenset({"name", "kind"})
            if family.name == "connection_state_seconds_total":  # written at each scrape
                labels |= {"state"}
            found.add(Told(family.name, family.type.value, labels))
        for metric in record.service.check.traits.metrics:
            found.add(Told(metric.name, metric.type.value, frozenset({"name", "kind"})))
    return found | {_own(family) for family in OwnMetrics(board, dropped=lambda: 0).registry.collect()}


def _own(family: Family) -> Told:
    name = family.name + ("_total" if family.type == MetricType.COUNTER else "")
    labels = frozenset({label for sample in family.samples for label in sample.labels} - {"le"})
    return Told(name, family.type, labels)


def test_the_tables_list_exactly_what_is_exposed() -> None:
    """Each once, with its type and labels."""
    assert len(documented()) == len(set(documented()))
    assert set(documented()) == exposed()


def test_every_row_of_a_table_is_read_by_this_test() -> None:
    """A row that the pattern does not match would be held against nothing."""
    rows = [line for line in DOCS.splitlines() if line.startswith("| `")]
    assert len(rows) == len(documented())


def test_the_example_queries_are_valid_and_about_metrics_that_exist(tmp_path: Path) -> None:
    """Parsed by promtool, as the expressions of rules."""
    tool = shutil.which("promtool", path=f"{os.environ.get('PATH', '')}{os.pathsep}{ROOT / '.tools' / 'bin'}")
    assert tool is not None, "promtool is neither on PATH nor in .tools/bin: run `make tools`"
    block = re.search(r"```promql\n(.*?)```", DOCS, re.DOTALL)
    assert block is not None
    queries = re.sub(r"^#.*\n", "\n", block[1], flags=re.MULTILINE)
    names = {told.name for told in documented()}
    for used in re.findall(r"connection_[a-z_]+", queries):
        assert used.removesuffix("_bucket") in names
    rules = [
        {"record": f"example:query{number}", "expr": query.strip()}
        for number, query in enumerate(re.split(r"\n(?! )", queries))
        if query.strip()
    ]
    assert len(rules) > 8
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "examples", "rules": rules}]}))
    result = subprocess.run([tool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
