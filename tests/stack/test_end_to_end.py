"""The stack from end to end: a fault of a service becomes a notification.

Real services, the real exporter, Prometheus and Alertmanager with the rules and routes of the repository. Only the
scrape interval and the addresses are the tests' own.
"""

import time
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import pytest
from support.dashboards_panels import queries
from support.stack_live import SCRAPE, Stack, do, running, until

pytestmark = pytest.mark.timeout(150)

EVERYTHING = {"name": ".+", "kind": ".+", "job": ".+", "slo": "99.9"}
# What five healthy services on one machine cannot show. The backfilled series contain it.
NOT_HERE = {
    "service-Replication lag-A": "no standby",
    "service-Phases-C": "no TLS",
    "service-Phases-I": "no service of kind tcp",
    "service-Round trip-A": "no service of kind tcp",
    "service-Dialogue-A": "no service of kind tcp",
    "service-Age of the last beat-A": "no service of kind heartbeat",
    "service-Beats-A": "no service of kind heartbeat",
    "monitor-Storage-B": "Prometheus 2.42 does not export it",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Return the running stack; each test leaves it healthy."""
    with running() as whole:
        yield whole


def empty_panels(stack: Stack) -> set[str]:
    """Return the queries that have no result now, and those with a warning of Prometheus."""
    now = time.time()
    found = set()
    for query in queries():
        step = query.step(SCRAPE)
        # A query with a negative offset looks ahead, to the day's end.
        at = now // step * step if "offset -" in query.expr else now
        answer = stack.queries.instant(query.substituted(SCRAPE, EVERYTHING), at)
        if not answer.series or answer.remarks:
            found.add(str(query))
    return found - NOT_HERE.keys()


def panels_that_stay_empty(stack: Stack, *, expected: Collection[str] = ()) -> set[str]:
    """Return the queries that have no result, also later: on a busy machine, one failed scrape empties all of them."""
    deadline = time.monotonic() + 40
    while (empty := empty_panels(stack).difference(expected)) and time.monotonic() < deadline:
        time.sleep(1)
    return empty


def test_every_panel_answers_on_live_data(stack: Stack) -> None:
    """Every query of every dashboard returns samples without a warning."""
    assert panels_that_stay_empty(stack) == set()


def test_only_up_has_the_addresses_for_a_browser(stack: Stack) -> None:
    """Force check finds its exporter through `up`; the identity of the other series does not depend on an address."""
    exporter = f"http://127.0.0.1:{stack.exporter.port}"
    (up,) = stack.queries.instant('up{job="connection-exporter"}', time.time()).series
    assert up["metric"]["browser_url"] == exporter
    assert up["metric"]["runbooks_url"].endswith("/user/runbooks")
    for one in stack.queries.instant("connection_status", time.time()).series:
        assert one["metric"].keys() == {"__name__", "job", "instance", "name", "kind"}


def test_a_session_that_is_closed_while_idle_fires_nothing(stack: Stack) -> None:
    """Redis closes our session three times: each counts as a loss, and no alert is even pending."""
    began = time.time()

    def lost() -> float:
        query = 'connection_sessions_lost_total{name="redis"}'
        return stack.queries.instant(query, time.time()).values()["redis"]

    for number in (1, 2, 3):
        time.sleep(1)  # a session that was shorter than retry_delay does not reconnect immediately
        do(stack.redis.call("CLIENT", "KILL", "TYPE", "normal"))
        until(partial(lambda count: lost() >= count, number), within=20)
    time.sleep(6)  # longer than the rules' interval, for an alert to show
    window = f"[{int(time.time() - began)}s]"
    alerts = stack.queries.instant(f'max_over_time(ALERTS{{name="redis"}}{window})', time.time())
    outages = stack.queries.instant('connection_outages_total{name="redis"}', time.time())
    assert alerts.series == []
    assert outages.values() == {"redis": 0}
    assert stack.inbox.find("firing", "ConnectionDisconnected") is None


@pytest.mark.timeout(240)
def test_a_fault_and_its_end_are_sent_by_webhook_and_mail(stack: Stack) -> None:
    """The message says who, what, what to do and where to look. No panel becomes empty meanwhile."""
    do(stack.redis.kill())
    reported = until(lambda: stack.inbox.find("firing", "ConnectionDisconnected", "redis"), within=40)
    assert f"127.0.0.1:{stack.redis.port}" in reported.annotations["description"]
    assert "refused" in reported.annotations["description"]
    assert reported.annotations["runbook_url"].startswith(stack.prometheus.url)
    assert (
        reported.annotations["dashboard_url"] == "http://localhost:3000/d/connection-service?var-name=redis"
    )
    assert not [label for alert in stack.alerts() for label in alert["labels"] if label.endswith("_url")]
    firing = "[FIRING] redis: A service is disconnected."
    mail = until(lambda: stack.inbox.find_mail(firing), within=10)
    text = mail.get_body(("plain",))
    assert text is not None
    assert reported.annotations["action"] in text.get_content()
    assert mail["To"] == "ops@example.com"
    memory_of_redis = {"service-Memory-A", "service-Memory-B"}
    assert panels_that_stay_empty(stack, expected=memory_of_redis) == set()

    do(stack.redis.start())
    until(lambda: stack.inbox.find("resolved", "ConnectionDisconnected", "redis"), within=60)
    until(lambda: stack.inbox.find_mail("[RESOLVED] redis: ConnectionDisconnected is resolved"), within=10)
    until(stack.all_healthy, within=20)
    assert panels_that_stay_empty(stack) == set()


@pytest.mark.timeout(240)
def test_when_everything_is_down_there_is_one_page(stack: Stack) -> None:
    """ConnectionAllDown is sent, and inhibits the alert of each service."""
    before = len(stack.inbox.reported)
    do(stack.prometheus.pause())  # so that it sees all of them fail at once, as after a network failure
    for server in stack.services.values():
        do(server.kill())
    until(lambda: set(stack.statuses().values()) == {"disconnected"}, within=30)
    do(stack.prometheus.resume())

    until(lambda: stack.inbox.find("firing", "ConnectionAllDown", since=before), within=40)
    until(lambda: len(disconnected(stack)) == 5, within=20)
    assert all(alert["status"]["inhibitedBy"] for alert in disconnected(stack))
    assert {reported.alert for reported in stack.inbox.reported[before:]} == {"ConnectionAllDown"}

    for server in stack.services.values():
        do(server.start())
    until(stack.all_healthy, within=30)
    until(lambda: stack.inbox.find("resolved", "ConnectionAllDown", since=before), within=120)
    until(lambda: not disconnected(stack), within=30)
    assert {reported.alert for reported in stack.inbox.reported[before:]} == {"ConnectionAllDown"}


def disconnected(stack: Stack) -> list[dict[str, Any]]:
    """Return the active alerts of services in Alertmanager, including inhibited ones."""
    return [a for a in stack.alerts() if a["labels"]["alertname"] == "ConnectionDisconnected"]


@pytest.mark.timeout(240)
def test_a_restart_of_prometheus_does_not_end_a_page(stack: Stack) -> None:
    """Alertmanager holds it for a minute. By then, Prometheus sends it again without waiting for its `for`."""
    before = len(stack.inbox.reported)
    do(stack.exporter.kill())
    until(lambda: stack.inbox.find("firing", "ConnectionExporterDown", since=before), within=90)
    do(stack.prometheus.stop())
    time.sleep(30)
    do(stack.prometheus.start())
    time.sleep(60)
    pages = [one.status for one in stack.inbox.reported[before:] if one.alert == "ConnectionExporterDown"]
    assert pages == ["firing"]

    do(stack.exporter.start())
    until(lambda: stack.inbox.find("resolved", "ConnectionExporterDown", since=before), within=60)
    until(stack.all_healthy, within=30)


def test_an_exporter_that_is_down_pages_and_sends_no_false_all_clear(stack: Stack) -> None:
    """While it is down, the alert of a service stays active, inhibited by the alert of the exporter."""
    before = len(stack.inbox.reported)
    do(stack.feed.kill())
    until(lambda: stack.inbox.find("firing", "ConnectionDisconnected", "websocket", since=before), within=40)
    do(stack.exporter.kill())
    until(lambda: stack.inbox.find("firing", "ConnectionExporterDown", since=before), within=90)
    (websocket,) = (a for a in disconnected(stack) if a["labels"]["name"] == "websocket")
    assert websocket["status"]["inhibitedBy"]
    assert stack.inbox.find("resolved", "ConnectionDisconnected", since=before) is None

    do(stack.exporter.start())
    do(stack.feed.start())
    until(stack.all_healthy, within=30)
    until(lambda: stack.inbox.find("resolved", "ConnectionExporterDown", since=before), within=60)
    until(lambda: not disconnected(stack), within=60)
