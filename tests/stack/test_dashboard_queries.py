"""Every query of every panel returns samples on a real Prometheus: before, during and after a fault."""

import re
import time
from collections.abc import Iterator

import pytest
from support.dashboards_panels import ROOT, Query, dashboards, queries
from support.dashboards_prometheus import Answer, Prometheus, backfilled
from support.dashboards_series import (
    DISCONNECTED,
    FAULT_SECONDS,
    KINDS,
    OLD_OUTAGE_SECONDS,
    OTHER,
    PUSHED,
    REASONS,
    RETIRED,
    SCRAPE,
    UNHEALTHY,
    History,
    openmetrics,
)

pytestmark = pytest.mark.timeout(180)

DAY = 86400
OUR_JOBS = "(alertmanager|connection-exporter|prometheus)"
ALL = {"name": ".+", "kind": ".+", "job": OUR_JOBS, "slo": "99.9"}
QUERIES = {str(query): query for query in queries()}
STATUS_NOW = "overview-Services by group-A"
STATUS_OVER_TIME = "overview-Status over time-A"


@pytest.fixture(scope="module")
def history() -> History:
    """Return the times of the faults; the last sample is recent, because Prometheus deletes old samples."""
    return History(int(time.time()))


@pytest.fixture(scope="module")
def prometheus(history: History, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Return a Prometheus with the 30 days."""
    with backfilled(openmetrics(history), tmp_path_factory.mktemp("prometheus")) as running:
        yield running


# The queries of the table Services. Each but the first returns rows by their `id`: job, instance and name.
ROWS, STATUS, SINCE, REASON, CAUSE, RUNBOOK = (f"overview-Services-{ref}" for ref in "ABCDEF")


def by_name(answer: Answer, label: str = "") -> dict[str, str | float]:
    """Return the value of each row, or one of its labels, by the name of its service."""
    return {
        one["metric"]["id"].split()[-1]: one["metric"].get(label, "") if label else float(one["value"][1])
        for one in answer.series
    }


def line_name(query: Query, labels: dict[str, str]) -> str:
    """Return what the legend says about a series."""
    return re.sub(r"{{(\w+)}}", lambda label: labels.get(label[1], ""), query.legend)


def ask(prometheus: Prometheus, query: Query, at: int, **variables: str) -> Answer:
    """Send the query that the panel sends at a moment."""
    expr = query.substituted(SCRAPE, ALL | variables)
    if query.instant:
        return prometheus.instant(expr, at)
    return prometheus.over(expr, at - query.range_seconds, at, query.step(SCRAPE))


@pytest.mark.parametrize("moment", ["before", "during", "after"])
@pytest.mark.parametrize("query", QUERIES.values(), ids=str)
def test_a_panel_shows_samples_without_a_warning(
    query: Query, moment: str, prometheus: Prometheus, history: History
) -> None:
    """No panel says "No data", and Prometheus returns no warnings and no infos."""
    answer = ask(prometheus, query, getattr(history, moment))
    assert answer.series, query.expr
    assert answer.remarks == []


@pytest.mark.parametrize("query", [query for query in QUERIES.values() if "{{" in query.legend], ids=str)
def test_every_line_has_the_name_that_its_legend_asks_for(
    query: Query, prometheus: Prometheus, history: History
) -> None:
    """If no label of a legend exists, Grafana names the line "Value"."""
    wanted = set(re.findall(r"{{(\w+)}}", query.legend))
    for one in ask(prometheus, query, history.after).series:
        assert wanted & one["metric"].keys(), one["metric"]


@pytest.mark.parametrize("query", [query for query in QUERIES.values() if "{{" in query.legend], ids=str)
def test_no_two_lines_have_the_same_name(query: Query, prometheus: Prometheus, history: History) -> None:
    """Two exporters, and several services, can be told apart."""
    one_service = {"name": "database"} if query.dashboard == "service" else {}
    series = ask(prometheus, query, history.before, **one_service).series
    names = [line_name(query, one["metric"]) for one in series]
    assert len(set(names)) == len(names), names


def test_the_status_is_the_current_one(prometheus: Prometheus, history: History) -> None:
    """Tiles and table show the fault while it lasts, and not afterwards."""
    faulty = dict.fromkeys(KINDS, float(DISCONNECTED)) | {"external_api": float(UNHEALTHY)}
    for moment, expected in ((history.during, faulty), (history.after, dict.fromkeys(KINDS, 1.0))):
        tiles = ask(prometheus, QUERIES[STATUS_NOW], moment).values()
        table = by_name(ask(prometheus, QUERIES[STATUS], moment))
        assert expected.items() <= tiles.items()
        assert expected.items() <= table.items()


def test_a_tile_shows_group_name_and_since(prometheus: Prometheus, history: History) -> None:
    """A service without a group has no such label; a label `since` rounds down to whole units."""
    tiles = {
        one["metric"]["name"]: one["metric"]
        for one in ask(prometheus, QUERIES[STATUS_NOW], history.during).series
    }
    assert tiles["database"] == {"group": "shop /", "name": "database", "since": "· 9 min"}
    assert tiles["external_api"] == {"name": "external_api", "since": "· 10 min"}
    later = ask(prometheus, QUERIES[STATUS_NOW], history.fault + 45).series
    assert {one["metric"].get("since") for one in later if one["metric"]["name"] in KINDS} == {
        "· 45 s",
        "· 15 s",
    }


def test_the_table_says_why_and_since_when(prometheus: Prometheus, history: History) -> None:
    """The reason of the newest failures while a service is not healthy, and a dash otherwise."""
    during = by_name(ask(prometheus, QUERIES[REASON], history.during), "reason")
    assert REASONS.items() <= during.items()
    assert during[RETIRED] == "-"
    healthy = by_name(ask(prometheus, QUERIES[REASON], history.fault + FAULT_SECONDS + 60), "reason")
    assert set(healthy.values()) == {"-"}
    since = by_name(ask(prometheus, QUERIES[SINCE], history.during))
    assert since["external_api"] == 1000 * history.fault
    assert set(by_name(ask(prometheus, QUERIES[CAUSE], history.during), "cause").values()) == {"-"}


def test_all_jobs_are_those_of_the_stack(prometheus: Prometheus, history: History) -> None:
    """Monitor shows the exporter, Prometheus and Alertmanager, whatever else this Prometheus scrapes."""
    (job,) = (one for one in dashboards()["monitor"]["templating"]["list"] if one["name"] == "job")
    assert job["allValue"] is None  # then All stands for the values that are listed
    asked = re.fullmatch(r"label_values\((.+), (\w+)\)", job["query"]["query"])
    assert asked
    listed = prometheus.label_values(asked[1], asked[2], history.before - 21600, history.before)
    assert f"({'|'.join(listed)})" == OUR_JOBS
    assert ask(prometheus, QUERIES["monitor-Targets down-A"], history.before).values() == {"": 0}
    memory = ask(prometheus, QUERIES["monitor-Memory-A"], history.before)
    assert {one["metric"]["job"] for one in memory.series} == set(listed)


def test_every_alert_of_ours_is_listed_whoever_sends_it(prometheus: Prometheus, history: History) -> None:
    """Those of the rules and those that the exporter sends itself, but none of other rules in this Prometheus."""

    def alerts(query: str, at: int, **variables: str) -> dict[str, tuple[str, str, float]]:
        return {
            one["metric"].get("name", ""): (
                one["metric"]["alertname"],
                one["metric"].get("severity", ""),
                float(one["value"][1]),
            )
            for one in ask(prometheus, QUERIES[query], at, **variables).series
        }

    pushed = ("ConnectionDown", "critical", 1000.0 * (history.fault + 30))
    during = alerts("overview-Firing alerts-A", history.during)
    assert during.keys() == KINDS.keys()
    assert during[PUSHED] == pushed
    assert during["external_api"][0] == "ConnectionUnhealthy"
    assert alerts("service-Firing alerts of the service-A", history.during, name=PUSHED) == {PUSHED: pushed}
    count = QUERIES["overview-Alerts-A"]
    assert ask(prometheus, count, history.during).values() == {"": len(KINDS)}
    assert ask(prometheus, count, history.before).values() == {"": 0}
    nothing = {"": ("none is firing", "", 0.0)}
    assert alerts("overview-Firing alerts-A", history.before) == nothing
    assert alerts("monitor-Firing alerts about the monitoring-A", history.during) == nothing
    steps = ask(prometheus, QUERIES["history-Alerts that fired-A"], history.end).series
    fired = {one["metric"]["alertname"]: max(int(value) for _, value in one["values"]) for one in steps}
    expected = {"ConnectionDisconnected": 5, "ConnectionUnhealthy": 1, "ConnectionDown": 1}
    assert fired == expected | {"none fired": 0}


def test_each_row_has_the_runbook_of_its_status(prometheus: Prometheus, history: History) -> None:
    """Every one exists."""
    during = by_name(ask(prometheus, QUERIES[RUNBOOK], history.during), "runbook")
    gone = by_name(ask(prometheus, QUERIES[RUNBOOK], history.gone), "runbook")
    assert during["database"] == "ConnectionDisconnected"
    assert during["external_api"] == "ConnectionUnhealthy"
    assert during[RETIRED] == "README"
    assert set(gone.values()) == {"ConnectionStale"}
    for name in {*during.values(), *gone.values()}:
        assert (ROOT / "docs" / "runbooks" / f"{name}.md").exists()


def test_each_row_has_the_address_of_its_own_exporter(prometheus: Prometheus, history: History) -> None:
    """It is the browser_url of the target; without one, it is derived from the instance."""
    rows = ask(prometheus, QUERIES[ROWS], history.during).series
    addresses = {one["metric"]["name"]: one["metric"]["browser_url"] for one in rows}
    assert addresses["database"] == "http://localhost:8000"
    assert addresses[OTHER] == "http://second:8000"
    assert len({one["metric"]["id"] for one in rows}) == len(rows)


def test_a_service_that_is_down_has_no_latency(prometheus: Prometheus, history: History) -> None:
    """Its last latency is not that of now."""
    for ref in "ABC":
        query = QUERIES[f"service-Latency-{ref}"]
        expr = query.substituted(SCRAPE, ALL | {"name": "database"})
        assert prometheus.instant(expr, history.fault - 30).series
        assert not prometheus.instant(expr, history.fault + 30).series


def test_a_short_fault_shows_on_a_wide_timeline(prometheus: Prometheus, history: History) -> None:
    """At a step much longer than the fault, the timeline still shows its worst status."""
    query = QUERIES[STATUS_OVER_TIME]
    expr = query.substituted(SCRAPE, ALL | {"__interval": "2h"})
    answer = prometheus.over(expr, history.after - 7 * DAY, history.after + 7200, 7200)
    worst = {one["metric"]["name"]: max(float(v) for _, v in one["values"]) for one in answer.series}
    assert worst["database"] == DISCONNECTED
    assert worst["external_api"] >= UNHEALTHY


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("overview-Overall-A", {"": 0.0}),
        ("overview-Monitoring-A", {"": 0.0}),
        (STATUS_NOW, dict.fromkeys(KINDS, 0.0)),
        (STATUS_OVER_TIME, dict.fromkeys(KINDS, 0.0)),
        (ROWS, dict.fromkeys(KINDS, 1.0)),
    ],
)
def test_an_exporter_that_is_gone_is_shown_as_unknown(
    query: str, expected: dict[str, float], prometheus: Prometheus, history: History
) -> None:
    """On the Overview, an exporter that is down is unknown, never healthy or "No data"."""
    shown = ask(prometheus, QUERIES[query], history.gone).values()
    assert expected.items() <= shown.items()


def test_an_attempt_that_is_due_is_not_shown_as_one_that_is_late(
    prometheus: Prometheus, history: History
) -> None:
    """The seconds until the next attempt count down to 0 and stay at 0 until the next scrape."""
    query = QUERIES["service-Facts-C"]
    planned = 20
    shown = [by_name(ask(prometheus, query, history.end + passed))["database"] for passed in (0, 5, 60)]
    assert shown == [planned, planned - 5, 0]


def test_a_message_ages_with_the_stream_and_not_with_the_scrape(
    prometheus: Prometheus, history: History
) -> None:
    """The age is that at the last check, whenever the panel is drawn."""
    query = QUERIES["service-Age of the last message-A"]
    expr = query.substituted(SCRAPE, ALL)
    for passed in (0, 60):
        assert prometheus.instant(expr, history.end + passed).values() == {"websocket": 2.0}


@pytest.mark.parametrize("query", ["service-Facts-D", "service-Facts-E"])
def test_the_last_check_and_success_outlive_the_exporter(
    query: str, prometheus: Prometheus, history: History
) -> None:
    """While the exporter is down, the time of the last check is still known; "never" would be wrong."""
    alive = by_name(ask(prometheus, QUERIES[query], history.end))
    gone = by_name(ask(prometheus, QUERIES[query], history.gone))
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
def test_one_of_two_exporters_that_is_gone_is_not_hidden_by_the_other(
    query: str, expected: tuple[float, ...], prometheus: Prometheus, history: History
) -> None:
    """One partial exporter makes the whole partial, and one that cannot be scraped makes it unknown."""
    moments = (history.before, history.during, history.end)
    assert tuple(ask(prometheus, QUERIES[query], at).values()[""] for at in moments) == expected


@pytest.mark.parametrize("query", [STATUS_NOW, ROWS])
def test_a_service_that_was_dropped_from_the_config_leaves_the_board(
    query: str, prometheus: Prometheus, history: History
) -> None:
    """A service that a running exporter no longer has is not kept as unknown."""
    assert RETIRED in ask(prometheus, QUERIES[query], history.before).values()
    assert RETIRED not in ask(prometheus, QUERIES[query], history.end).values()


def test_the_first_failure_of_a_reason_is_counted(prometheus: Prometheus, history: History) -> None:
    """The series of a reason begins with its first failure, which increase() would miss."""
    query = QUERIES["service-Failed checks by reason-A"]
    expr = query.substituted(SCRAPE, ALL)
    answer = prometheus.instant(expr, history.fault + 1)
    assert answer.values("reason")["refused"] >= 1


@pytest.mark.parametrize("name", list(KINDS))
def test_service_levels_are_those_of_the_known_faults(
    name: str, prometheus: Prometheus, history: History
) -> None:
    """Over 30 days, availability, MTTR, MTBF, outages and budget follow from the three faults."""

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
    assert column("Budget left") == pytest.approx(1 - bad / total / 0.001, abs=0.02)


def test_the_time_left_agrees_with_the_budget_that_is_left(prometheus: Prometheus, history: History) -> None:
    """With a day of history in a range of 30 days, both are calculated from that day."""
    query = QUERIES[f"history-Service levels-{COLUMNS['Time left']}"]
    left = ask(prometheus, query, history.start + DAY).values()
    assert left == pytest.approx(dict.fromkeys(KINDS, 0.001 * DAY), rel=0.02)


# The column of each figure in the table of service levels, by the letter of its query.
COLUMNS = {
    "Availability": "B",
    "Budget left": "C",
    "Time left": "D",
    "Not healthy": "E",
    "Outages": "F",
    "MTTR": "G",
    "MTBF": "H",
}
