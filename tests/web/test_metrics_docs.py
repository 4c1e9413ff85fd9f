"""docs/metrics.md lists exactly the metrics that are exposed, with their types and labels."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import yaml
from connection_exporter.alerting.push import Deliveries
from connection_exporter.config import EXAMPLE
from connection_exporter.core.health import Event, Reason
from connection_exporter.kind import MetricType, Observation
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import build
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Report
from connection_exporter.net import Network
from connection_exporter.system.clock import SystemClock
from connection_exporter.web.families import FAMILIES
from connection_exporter.web.own_metrics import OwnMetrics
from connection_exporter.web.samples import labels_of
from prometheus_client.core import Metric as Family

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "metrics.md").read_text()
ROW = re.compile(
    r"^\| `(?P<name>[a-z_]+)` \| (?P<type>[a-z]+) \| (?P<labels>[a-z, ]+|—) \| .+ \|$", re.MULTILINE
)


class Notice(NamedTuple):
    name: str
    type: str
    labels: frozenset[str]


def documented() -> list[Notice]:
    labels = (
        frozenset(row["labels"].split(", ")) if row["labels"] != "—" else frozenset()
        for row in ROW.finditer(DOCS)
    )
    return [
        Notice(row["name"], row["type"], found) for row, found in zip(ROW.finditer(DOCS), labels, strict=True)
    ]


def labels_in(lines: str) -> frozenset[str]:
    return frozenset(re.findall(r'[{,]([a-z]+)="', lines)) - {"le"}


def exposed() -> set[Notice]:
    config = f"{EXAMPLE}  backup: {{kind: heartbeat, max_age: 1h}}\n  mail: {{kind: tcp, address: a:1}}\n"
    config = config.replace('/health"}', '/health", depends_on: [database]}')
    board = Board(build(load_text(config).services, Network()), SystemClock())
    for name in board.names:  # so that each family has a series to show its labels
        board.put(name, Report(Event.FAILED, Reason.REFUSED))
        board.put(name, Report(Event.ANSWERED_GOOD, observation=Observation()))
    for name in ("database", "external_api"):  # the one is the cause of the other
        board.put(name, Report(Event.LOST, Reason.EOF))
    board.announce("database", announced=True)
    found: set[Notice] = set()
    labels = {family.name: {"name", "kind"} for family in FAMILIES}
    labels["connection_state_seconds_total"].add("state")  # written at each scrape
    for record in board.records():
        for family in FAMILIES:
            labels[family.name] |= labels_in(family.text([record], [labels_of(record)]))
        for metric in record.service.check.traits.metrics:
            found.add(Notice(metric.name, metric.type.value, frozenset({"name", "kind"})))
    found |= {Notice(family.name, family.type.value, frozenset(labels[family.name])) for family in FAMILIES}
    own = OwnMetrics(
        board,
        callbacks_dropped=lambda: 0,
        deliveries=lambda: Deliveries(healthy=True, counts={"alertmanager:9093": (1, 0)}),
    )
    return found | {_own(family) for family in own.registry.collect()}


def _own(family: Family) -> Notice:
    name = family.name + ("_total" if family.type == MetricType.COUNTER else "")
    labels = frozenset({label for sample in family.samples for label in sample.labels} - {"le"})
    return Notice(name, family.type, labels)


def test_the_tables_list_exactly_what_is_exposed() -> None:
    """Each once, with its type and labels."""
    assert len(documented()) == len(set(documented()))
    assert set(documented()) == exposed()


def test_every_row_of_a_table_is_read_by_this_test() -> None:
    """A row that the pattern does not match would not be checked."""
    rows = [line for line in DOCS.splitlines() if line.startswith("| `")]
    assert len(rows) == len(documented())


def test_the_example_queries_are_valid_and_about_metrics_that_exist(tmp_path: Path) -> None:
    """Parsed by promtool, as the expressions of rules."""
    tool = shutil.which("promtool", path=f"{os.environ.get('PATH', '')}{os.pathsep}{ROOT / '.tools' / 'bin'}")
    assert tool is not None, "promtool is neither on PATH nor in .tools/bin: run `make tools`"
    block = re.search(r"```promql\n(.*?)```", DOCS, re.DOTALL)
    assert block is not None
    queries = re.sub(r"^#.*\n", "\n", block[1], flags=re.MULTILINE)
    names = {reported.name for reported in documented()}
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
