"""Every query of every panel answers on a real Prometheus: before, during and after a fault."""

import re
import time
from collections.abc import Iterator

import pytest
from dashboards_panels import Query, queries
from dashboards_prometheus import Answer, Prometheus, backfilled
from dashboards_series import (
    DISCONNECTED,
    FAULT_SECONDS,
    KINDS,
    OLD_OUTAGE_SECONDS,
    RETIRED,
    SCRAPE,
    UNHEALTHY,
    History,
    openmetrics,
)

pytestmark = pytest.mark.timeout(180)

DAY = 86400
ALL = {"name": ".+", "kind": ".+", "job": ".+", "slo": "99.9"}
QUERIES = {str(query): query for query in queries()}
# What a Grafana panel sends for a table is one query a column; this is a column of a service table.
STATUS_NOW = "overview-Status of each service-A"
STATUS_OVER_TIME = "overview-Status over time-A"


@pytest.fixture(scope="module")
def history() -> History:
    """Give the times of the faults; the last sample is recent, for Prometheus drops what is old."""
    return History(int(time.time()))


@pytest.fixture(scope="module")
def prometheus(history: History, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Give a Prometheus that holds the 30 days."""
    with backfilled(openmetrics(history), tmp_path_factory.mktemp("prometheus")) as running:
        yield running


def ask(prometheus: Prometheus, query: Query, at: int, **variables: str) -> Answer:
    """Ask what the panel would ask at a moment."""
    expr = query.substituted(SCRAPE, ALL | variables)
    if query.instant:
        return prometheus.instant(expr, at)
    return prometheus.over(expr, at - query.range_seconds, at, query.step(SCRAPE))


@pytest.mark.parametrize("moment", ["before", "during", "after"])
@pytest.mark.parametrize("query", QUERIES.values(), ids=str)
def test_a_panel_shows_samples_and_prometheus_has_no_remark(
    query: Query, moment: str, prometheus: Prometheus, history: History
) -> None:
    """No panel says No data, and none asks for what Prometheus warns of."""
    answer = ask(prometheus, query, getattr(history, moment))
    assert answer.series, query.expr
    assert answer.remarks == []


@pytest.mark.parametrize("query", [query for query in QUERIES.values() if "{{" in query.legend], ids=str)
def test_every_line_has_the_name_that_its_legend_asks_for(
    query: Query, prometheus: Prometheus, history: History
) -> None:
    """Where none of the labels of a legend is there, Grafana calls the line Value."""
    wanted = set(re.findall(r"{{(\w+)}}", query.legend))
    for one in ask(prometheus, query, history.after).series:
        assert wanted & one["metric"].keys(), one["metric"]


@pytest.mark.parametrize("query", [STATUS_NOW, "overview-Services-B"])
def test_the_status_is_the_one_of_the_moment(query: str, prometheus: Prometheus, history: History) -> None:
    """Tiles and table show the fault while it lasts, and nothing of it afterwards."""
    during = ask(prometheus, QUERIES[query], history.during).values()
    after = ask(prometheus, QUERIES[query], history.after).values()
    expected = dict.fromkeys(KINDS, float(DISCONNECTED)) | {"external_api": float(UNHEALTHY)}
    assert {name: during[name] for name in KINDS} == expected
    assert {name: after[name] for name in KINDS} == dict.fromkeys(KINDS, 1.0)


def test_a_short_fault_shows_on_a_wide_timeline(prometheus: Prometheus, history: History) -> None:
    """At a step far longer than the fault the timeline still shows the worst of it."""
    query = QUERIES[STATUS_OVER_TIME]
    expr = query.expr.replace("$__interval", "2h").replace("$name", ".+").replace("$kind", ".+")
    answer = prometheus.over(expr, history.after - 7 * DAY, history.after + 7200, 7200)
    worst = {one["metric"]["name"]: max(float(v) for _, v in one["values"]) for one in answer.series}
    assert worst["database"] == DISCONNECTED
    assert worst["external_api"] >= UNHEALTHY


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("overview-Overall-A", {"": 0.0}),
        ("overview-Monitoring-A", {"": 0.0}),
        ("overview-Exporter up for-A", {"": 0.0}),
        (STATUS_NOW, dict.fromkeys(KINDS, 0.0)),
        (STATUS_OVER_TIME, dict.fromkeys(KINDS, 0.0)),
        ("overview-Services-A", dict.fromkeys(KINDS, 1.0)),
    ],
)
def test_an_exporter_that_is_gone_is_shown_as_unknown(
    query: str, expected: dict[str, float], prometheus: Prometheus, history: History
) -> None:
    """Where people look first, an exporter that is gone reads unknown, never healthy or No data."""
    shown = ask(prometheus, QUERIES[query], history.gone).values()
    assert expected.items() <= shown.items()


def test_an_attempt_that_is_due_is_not_shown_as_one_that_is_late(
    prometheus: Prometheus, history: History
) -> None:
    """The seconds until the next attempt count down to 0 and stay there until the next scrape."""
    query = QUERIES["overview-Services-E"]
    planned = 20
    shown = [ask(prometheus, query, history.end + passed).values()["database"] for passed in (0, 5, 60)]
    assert shown == [planned, planned - 5, 0]


def test_a_message_ages_with_the_stream_and_not_with_the_scrape(
    prometheus: Prometheus, history: History
) -> None:
    """A stream that brought its last message at its last check is fresh, whenever one looks."""
    query = QUERIES["service-Age of the last message-A"]
    expr = query.substituted(SCRAPE, ALL)
    for passed in (0, 60):
        assert prometheus.instant(expr, history.end + passed).values() == {"websocket": 2.0}


@pytest.mark.parametrize("query", ["overview-Services-F", "overview-Services-G"])
def test_the_last_check_and_success_outlive_the_exporter(
    query: str, prometheus: Prometheus, history: History
) -> None:
    """When something was last known is what counts while nothing is; "never" would be wrong."""
    alive = ask(prometheus, QUERIES[query], history.end).values()
    gone = ask(prometheus, QUERIES[query], history.gone).values()
    assert alive.keys() == set(KINDS)
    assert gone == alive


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("overview-Overall-A", (1.0, 3.0, 0.0)),
        ("overview-Monitoring-A", (1.0, 1.0, 0.0)),
        ("monitor-Monitoring-A", (1.0, 1.0, 0.0)),
    ],
)
def test_one_of_two_exporters_that_is_gone_is_not_outvoted_by_the_other(
    query: str, expected: tuple[float, ...], prometheus: Prometheus, history: History
) -> None:
    """Partial shows whoever says it, and an exporter that cannot be scraped makes the whole unknown."""
    moments = (history.before, history.during, history.end)
    assert tuple(ask(prometheus, QUERIES[query], at).values()[""] for at in moments) == expected


@pytest.mark.parametrize("query", [STATUS_NOW, "overview-Services-A", "overview-Services-N"])
def test_a_service_that_was_dropped_from_the_config_leaves_the_board(
    query: str, prometheus: Prometheus, history: History
) -> None:
    """A service that a living exporter no longer knows is not kept as unknown."""
    assert RETIRED in ask(prometheus, QUERIES[query], history.before).values()
    assert RETIRED not in ask(prometheus, QUERIES[query], history.end).values()


def test_the_first_failure_of_a_reason_is_counted(prometheus: Prometheus, history: History) -> None:
    """A reason whose series begins with the failure shows it, though increase() would not."""
    query = QUERIES["service-Failed checks by reason-A"]
    expr = query.substituted(SCRAPE, ALL)
    answer = prometheus.instant(expr, history.fault + 1)
    assert answer.values("reason")["refused"] >= 1


@pytest.mark.parametrize("name", list(KINDS))
def test_service_levels_are_those_of_the_known_faults(
    name: str, prometheus: Prometheus, history: History
) -> None:
    """Over 30 days availability, MTTR, MTBF, outages and budget follow from the three faults."""

    def column(title: str) -> float:
        ref = COLUMNS[title]
        query = QUERIES[f"history-Service levels-{ref}"]
        return ask(prometheus, query, history.end).values()[name]

    bad = 2 * OLD_OUTAGE_SECONDS + FAULT_SECONDS
    total = 30 * DAY
    assert column("Not healthy") == pytest.approx(bad, rel=0.01)
    assert column("Availability") == pytest.approx(1 - bad / total, abs=1e-5)
    assert column("Outages") == 3
    assert column("MTTR") == pytest.approx(bad / 3, rel=0.01)
    assert column("MTBF") == pytest.approx((total - bad) / 3, rel=0.01)
    assert column("Error budget left") == pytest.approx(1 - bad / total / 0.001, abs=0.02)


def test_what_may_still_fail_agrees_with_the_budget_that_is_left(
    prometheus: Prometheus, history: History
) -> None:
    """With a day of history in the 30 shown, both reckon with that day."""
    query = QUERIES[f"history-Service levels-{COLUMNS['May still fail for']}"]
    left = ask(prometheus, query, history.start + DAY).values()
    assert left == pytest.approx(dict.fromkeys(KINDS, 0.001 * DAY), rel=0.02)


# The column of each figure in the table of service levels, by the letter of its query.
COLUMNS = {
    "Availability": "B",
    "Error budget left": "C",
    "May still fail for": "D",
    "Not healthy": "E",
    "Outages": "F",
    "MTTR": "G",
    "MTBF": "H",
}
