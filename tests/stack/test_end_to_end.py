"""The stack as one thing: a fault goes in at one end, and a notification comes out at the other.

Real services, the real exporter, Prometheus and Alertmanager with the rules and routes of the repository. Only the
scrape interval and the addresses are the tests' own.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from dashboards_panels import queries
from stack_live import SCRAPE, Stack, do, running, until

pytestmark = pytest.mark.timeout(150)

EVERYTHING = {"name": ".+", "kind": ".+", "job": ".+", "slo": "99.9"}
# What five healthy services of one machine cannot show; the back-filled series have all of it.
NOT_HERE = {
    "service-Replication lag-A": "no standby",
    "service-Link of a replica to its master-A": "no replica",
    "monitor-Storage-B": "Prometheus 2.42 does not tell",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Give the running stack; each test leaves it as healthy as it found it."""
    with running() as whole:
        yield whole


def empty_panels(stack: Stack) -> set[str]:
    """Return the queries that have no answer now, and those on which Prometheus remarks something."""
    now = time.time()
    found = set()
    for query in queries():
        step = query.step(SCRAPE)
        at = (
            now // step * step if "offset -" in query.expr else now
        )  # such a query looks ahead, to the day's end
        answer = stack.queries.instant(query.substituted(SCRAPE, EVERYTHING), at)
        if not answer.series or answer.remarks:
            found.add(str(query))
    return found - NOT_HERE.keys()


def test_every_panel_answers_on_live_data(stack: Stack) -> None:
    """Every query of every dashboard returns samples, without a remark of Prometheus."""
    deadline = time.monotonic() + 40
    while (empty := empty_panels(stack)) and time.monotonic() < deadline:
        time.sleep(1)
    assert empty == set()


def test_a_session_that_is_closed_while_idle_fires_nothing(stack: Stack) -> None:
    """Redis closes our session three times; it is counted as lost, and no alert is even pending."""
    began = time.time()

    def lost() -> float:
        query = 'connection_sessions_lost_total{name="redis"}'
        return stack.queries.instant(query, time.time()).values()["redis"]

    for number in (1, 2, 3):
        time.sleep(1)  # a session that has lived for less than retry_delay is not made again at once
        do(stack.redis.call("CLIENT", "KILL", "TYPE", "normal"))
        until(partial(lambda count: lost() >= count, number), within=20)
    time.sleep(6)  # longer than the rules' interval, for an alert to show
    window = f"[{int(time.time() - began)}s]"
    alerts = stack.queries.instant(f'max_over_time(ALERTS{{name="redis"}}{window})', time.time())
    outages = stack.queries.instant('connection_outages_total{name="redis"}', time.time())
    assert alerts.series == []
    assert outages.values() == {"redis": 0}
    assert stack.inbox.find("firing", "ConnectionDisconnected") is None


def test_a_fault_is_told_by_webhook_and_mail_and_so_is_its_end(stack: Stack) -> None:
    """Who, what, what to do and where to look are in the message; no panel goes empty meanwhile."""
    do(stack.redis.kill())
    told = until(lambda: stack.inbox.find("firing", "ConnectionDisconnected", "redis"), within=40)
    assert f"127.0.0.1:{stack.redis.port}" in told.annotations["description"]
    assert "refused" in told.annotations["description"]
    assert told.annotations["runbook_url"].startswith(stack.prometheus.url)
    firing = "[FIRING] redis: A service is disconnected."
    mail = until(lambda: stack.inbox.find_mail(firing), within=10)
    text = mail.get_body(("plain",))
    assert text is not None
    assert told.annotations["action"] in text.get_content()
    assert mail["To"] == "ops@example.com"
    assert empty_panels(stack) <= {"service-Memory-A", "service-Memory-B"}  # of Redis, which nobody can ask

    do(stack.redis.start())
    until(lambda: stack.inbox.find("resolved", "ConnectionDisconnected", "redis"), within=60)
    until(lambda: stack.inbox.find_mail("[RESOLVED] redis: ConnectionDisconnected is over"), within=10)
    until(stack.all_healthy, within=20)
    assert empty_panels(stack) == set()


def test_when_all_is_down_one_page_stands_for_all(stack: Stack) -> None:
    """ConnectionAllDown is told; the alert of each service is there, but muted by it."""
    before = len(stack.inbox.told)
    do(stack.prometheus.pause())  # so that it sees all of them go at once, as with a network that is cut
    for server in stack.services.values():
        do(server.kill())
    until(lambda: set(stack.statuses().values()) == {"disconnected"}, within=30)
    do(stack.prometheus.resume())

    until(lambda: stack.inbox.find("firing", "ConnectionAllDown", since=before), within=40)
    until(lambda: len(disconnected(stack)) == 5, within=20)
    assert all(alert["status"]["inhibitedBy"] for alert in disconnected(stack))
    assert {told.alert for told in stack.inbox.told[before:]} == {"ConnectionAllDown"}

    for server in stack.services.values():
        do(server.start())
    until(stack.all_healthy, within=30)
    until(lambda: stack.inbox.find("resolved", "ConnectionAllDown", since=before), within=60)
    until(lambda: not disconnected(stack), within=30)


def disconnected(stack: Stack) -> list[dict[str, Any]]:
    """Return the services' alerts that Alertmanager holds as active, told or muted."""
    return [a for a in stack.alerts() if a["labels"]["alertname"] == "ConnectionDisconnected"]


def test_an_exporter_that_is_gone_is_told_and_nobody_hears_a_false_all_clear(stack: Stack) -> None:
    """While it is away, what was down stays down, muted by the one alert that matters."""
    before = len(stack.inbox.told)
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
