"""Metrics, rules, dashboards, runbooks, notifications and docs name the same things, and all of them."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from connection_exporter.alerting.ledger import ALERT_NAME as PUSHED
from connection_exporter.core.health import Reason, Status
from support.dashboards_metrics import (
    COMMON_METRICS,
    EXPORTER_METRICS,
    KIND_METRICS,
    OWN_METRICS,
    STACK_METRICS,
)
from support.dashboards_panels import dashboards, panels, strings

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
RULE_TESTS = sorted((ROOT / "prometheus" / "tests").glob("*.yml"))
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

METRIC = re.compile(
    r"(?<![\w:.$-])(?:connection|process|python|alertmanager|prometheus)_[a-z0-9_]+(?![\w:*{]*\.)"
)
RECORDED = re.compile(r"(?<![\w:])[a-z_]+:[a-z0-9_]+:[a-z0-9_]+(?![\w{])")
ALERT = re.compile(r"\b(?:Connection|Prometheus|Alertmanager)(?:[A-Z][a-z]+)+\b|\bWatchdog\b")
# Words that look like one of our metrics but are not.
NO_METRICS = {
    "connection_exporter",
    "connection_exporter_smtp",
    "connection_class",
    "connection_limit",
    "connection_made",
}


def rules() -> list[dict[str, Any]]:
    """Return every rule of every group."""
    return [
        rule
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


ALERTS = {PUSHED} | {rule["alert"] for rule in rules() if "alert" in rule}
RECORDS = {rule["record"] for rule in rules() if "record" in rule}
SERIES = EXPORTER_METRICS | STACK_METRICS


def metrics_in(text: str) -> set[str]:
    """Return the names in a text that look like metrics of the exporter or of the stack."""
    return set(METRIC.findall(RECORDED.sub("", text))) - NO_METRICS


def base(series: str) -> str:
    """Return the family of a histogram's series."""
    return re.sub(r"_(bucket|sum|count)$", "", series)


@pytest.mark.parametrize("path", [*RULES, *RULE_TESTS], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_rules_and_their_tests_read_only_series_that_exist(path: Path) -> None:
    """A rule on a series that does not exist never fires, and a unit test with such a series proves nothing."""
    text = path.read_text()
    alertmanagers_and_prometheus = {
        n for n in metrics_in(text) if n.startswith(("alertmanager_", "prometheus_"))
    }
    assert metrics_in(text) - alertmanagers_and_prometheus <= EXPORTER_METRICS | {base(s) for s in SERIES}
    assert set(RECORDED.findall(text)) <= RECORDS


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    """docs/metrics.md names each family of every service, of each kind and of the exporter, and no other."""
    families = {base(name) for name in COMMON_METRICS | KIND_METRICS | OWN_METRICS}
    documented = set(
        re.findall(r"^\| `([a-z_0-9]+)` \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    )
    prefixes = ("process_", "python_")
    assert {name for name in documented if not name.startswith(prefixes)} == {
        name for name in families if not name.startswith(prefixes)
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_names_only_what_exists(path: Path) -> None:
    """Metrics, recorded series and alerts: a query that is copied from a page returns something."""
    text = path.read_text()
    known = {base(name) for name in SERIES} | SERIES
    assert {name for name in metrics_in(text) if name.startswith("connection_")} <= known
    assert {name for name in RECORDED.findall(text) if "connection" in name} <= RECORDS | {
        "level:metric:operations"
    }
    assert set(ALERT.findall(text)) - {"PrometheusRule"} <= ALERTS


def test_notifications_and_inhibitions_name_only_alerts_that_exist() -> None:
    """An inhibition with the old name of an alert has no effect."""
    config = yaml.safe_load((ROOT / "alertmanager" / "alertmanager.yml").read_text())
    matchers = [text for text in strings(config) if re.match("alertname[=!]", text)]
    patterns = [re.search(r'"(.*)"', text) for text in matchers]
    assert len(patterns) > 5
    for found in patterns:
        assert found is not None
        for alternative in _alternatives(found[1]):
            assert any(re.fullmatch(alternative, alert) for alert in ALERTS), alternative


def _alternatives(pattern: str) -> Iterator[str]:
    """Yield each alternative of a pattern such as ``A|B`` or ``A(B|C)``."""
    inner = re.fullmatch(r"(\w*)\((.*)\)", pattern)
    if inner is None:
        yield from pattern.split("|")
    else:
        yield from (inner[1] + one for one in inner[2].split("|"))


def test_alerts_link_to_dashboards_and_variables_that_exist() -> None:
    """The link in a notification opens the dashboard of the service."""
    known = {
        board["uid"]: {v["name"] for v in board["templating"]["list"]} for board in dashboards().values()
    }
    for rule in rules():
        if "alert" in rule:
            found = re.fullmatch(
                r"\{\{ \$externalLabels\.grafana_url \}\}/d/([a-z-]+)(?:\?var-(\w+)=.*)?",
                rule["annotations"]["dashboard_url"],
            )
            assert found is not None
            assert found[1] in known
            assert found[2] is None or found[2] in known[found[1]]


def test_the_status_has_the_same_words_and_codes_in_metrics_rules_and_docs() -> None:
    """The README's table, the help of the metric and the comparisons of the rules."""
    codes = {status.value: status.code for status in Status}
    readme = (ROOT / "README.md").read_text()
    assert {w: int(c) for w, c in re.findall(r"^\| `(\w+)` \| (\d) \|", readme, re.MULTILINE)} == codes
    for rule in rules():
        assert set(re.findall(r'state[!=]="(\w+)"', rule["expr"])) <= codes.keys()


def test_every_reason_that_a_page_or_a_rule_names_is_one() -> None:
    """A query for a reason that does not exist returns nothing, which looks like success."""
    named = {
        reason for path in [*PAGES, *RULES] for reason in re.findall(r'reason="(\w+)"', path.read_text())
    }
    assert named <= {reason.value for reason in Reason}


def test_every_flag_that_the_compose_file_and_the_deployments_use_exists() -> None:
    """As `serve --help` lists them."""
    serve = [sys.executable, "-m", "connection_exporter", "serve", "--help"]
    listed = subprocess.run(serve, capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"--[a-z.-]+", listed))
    flag = re.compile(r"--(?:web\.(?:cors|listen|enable|telemetry)|log|config\.file|storage\.path)[a-z.-]*")
    ours = [ROOT / "docker-compose.yml", *(ROOT / "deploy").rglob("*.service")]
    kubernetes = ROOT / "deploy" / "kubernetes" / "statefulset.yaml"
    for path in [*ours, kubernetes]:
        text = re.sub(r"(?s)(prom/prometheus|prom/alertmanager).*?volumes:", "", path.read_text())
        assert set(flag.findall(text)) <= known, path


def test_the_colours_of_a_certificate_are_those_of_its_alerts() -> None:
    """The panel turns amber with the first ticket and red with the first page."""
    (panel,) = (one for one in panels(dashboards()["service"]) if one["title"] == "Certificate ends in")
    steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    days = {
        rule["alert"]: int(found[1])
        for rule in rules()
        if "alert" in rule and (found := re.search(r"time\(\) < (\d+) \* 86400", rule["expr"]))
    }
    page, ticket = days["ConnectionCertificateExpiresNow"], days["ConnectionCertificateExpiresSoon"]
    assert steps[-2:] == [page * 86400, ticket * 86400]
