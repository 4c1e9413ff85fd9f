"""The recording rules return the correct availability, MTTR, MTBF and budget for 30 days of known faults."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.dashboards_prometheus import Prometheus, backfilled
from support.dashboards_series import FAULT_SECONDS, KINDS, OLD_OUTAGE_SECONDS, History, openmetrics

pytestmark = pytest.mark.timeout(120)

SLO = Path(__file__).resolve().parents[2] / "prometheus" / "rules" / "slo.yml"
RULES = {
    rule["record"]: rule["expr"]
    for group in yaml.safe_load(SLO.read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
}
DAYS = 30 * 86400
BAD = 2 * OLD_OUTAGE_SECONDS + FAULT_SECONDS


@pytest.fixture(scope="module")
def history() -> History:
    """Return the times of the faults."""
    return History(int(time.time()))


@pytest.fixture(scope="module")
def prometheus(history: History, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Return a Prometheus with the 30 days."""
    with backfilled(openmetrics(history), tmp_path_factory.mktemp("history")) as running:
        yield running


def expanded(record: str) -> str:
    """Return a rule's expression with the rules that it reads inserted, as if Prometheus had always evaluated them."""

    def read(found: re.Match[str]) -> str:
        window = f"[{found[2]}:5m]" if found[2] else ""
        return f"({expanded(found[1])}){window}"

    return re.sub(r"((?:service|connection):[a-z_]+:[a-z0-9_]+)(?:\[(\w+)\])?", read, RULES[record])


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("service:connection_availability:ratio_increase30d", pytest.approx(1 - BAD / DAYS, abs=2e-5)),
        (
            "service:connection_error_budget_remaining:ratio_increase30d",
            pytest.approx(1 - BAD / DAYS / 0.001, abs=0.03),
        ),
        ("service:connection_mttr_seconds:increase30d", pytest.approx(BAD / 3, rel=0.01)),
        ("service:connection_mtbf_seconds:increase30d", pytest.approx((DAYS - BAD) / 3, rel=0.01)),
    ],
)
def test_the_figures_of_30_days_are_those_of_the_known_faults(
    record: str, expected: float, prometheus: Prometheus, history: History
) -> None:
    """Each service failed three times for a known time; Prometheus returns no warning."""
    answer = prometheus.instant(expanded(record), history.end)
    assert answer.remarks == []
    assert {name: answer.values()[name] for name in KINDS} == dict.fromkeys(KINDS, expected)
