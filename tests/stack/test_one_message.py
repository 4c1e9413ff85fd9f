"""A real Alertmanager with the committed routes and inhibition rules: one message for one incident."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from stack_receiver import Notification, receiving
from stack_servers import Alertmanager
from support.stack_live import until

Seen = list[tuple[str, str, str]]
"""Of each alert in each notification: service, status, name of the alert."""


class Poster:
    """Posts alerts as the exporter and Prometheus do, and keeps what the webhook receives."""

    def __init__(self, url: str, seen: Seen) -> None:
        self._url = url
        self.seen = seen

    def post(self, alert: str, name: str = "", *, lease: float = 600, **labels: str) -> None:
        """Post one alert that ends after ``lease`` seconds."""
        now = datetime.now(UTC)
        where = {"name": name, "kind": "k"} if name else {}
        body = {
            "labels": {"alertname": alert, "severity": "critical", "instance": "i", **where, **labels},
            "annotations": {"summary": "A service is disconnected."},
            "startsAt": (now - timedelta(seconds=1)).isoformat(),
            "endsAt": (now + timedelta(seconds=lease)).isoformat(),
        }
        headers = {"Content-Type": "application/json"}
        data = json.dumps([body]).encode()
        request = urllib.request.Request(f"{self._url}/api/v2/alerts", data, headers)
        urllib.request.urlopen(request, timeout=10).close()

    def push(self, name: str, *, lease: float = 600) -> None:
        """Post what the exporter sends itself."""
        self.post("ConnectionDown", name, lease=lease, source="connection-exporter")

    def rule(self, name: str, push: str = "") -> None:
        """Post what Prometheus sends."""
        self.post("ConnectionDisconnected", name, job="j", push=push)  # Alertmanager drops an empty label

    def messages(self, name: str) -> list[tuple[str, str]]:
        """Return status and name of each alert that the webhook received for a service."""
        return [(status, alert) for who, status, alert in self.seen if who == name]


@contextmanager
def alertmanager() -> Iterator[Poster]:
    """Run Alertmanager with a webhook."""
    seen: Seen = []

    def take(_: str, notification: Notification) -> None:
        for alert in notification["alerts"]:
            labels = alert["labels"]
            seen.append((labels.get("name", ""), alert["status"], labels["alertname"]))

    with receiving(take) as port, asyncio.Runner() as runner:
        server = Alertmanager(variables={"ALERT_WEBHOOK_URL": f"http://127.0.0.1:{port}/"})
        runner.run(server.__aenter__())
        try:
            yield Poster(server.url.replace("localhost", "127.0.0.1"), seen)
        finally:
            runner.run(server.__aexit__(None, None, None))


@pytest.mark.timeout(180)
def test_one_incident_is_one_message_under_either_name() -> None:
    """In both orders, and at the same moment; with the exporter gone; and after the lease of the first has ended."""
    down, disconnected = ("firing", "ConnectionDown"), ("firing", "ConnectionDisconnected")
    with alertmanager() as it:
        it.push("down_first")
        it.rule("failing_first", "failing")
        it.push("both")
        it.rule("both")
        it.push("lease_ends", lease=25)
        until(lambda: len(it.seen) == 4, within=40)
        it.rule("down_first")
        it.push("failing_first")
        it.post("ConnectionExporterDown", job="j")
        until(lambda: it.messages("") == [("firing", "ConnectionExporterDown")], within=40)
        it.rule("lease_ends", "silent")
        it.push("breaks_meanwhile")
        until(lambda: it.messages("breaks_meanwhile"), within=40)
        time.sleep(36)  # nothing may arrive: the lease ends after 25 s, and the group is looked at every 10 s
        assert it.messages("down_first") == [down]
        assert it.messages("failing_first") == [disconnected]
        assert it.messages("both") == [down]
        assert it.messages("lease_ends") == [down]
        assert it.messages("breaks_meanwhile") == [down]


@pytest.mark.timeout(120)
def test_the_end_of_one_alert_without_a_service_does_not_repeat_another() -> None:
    """Prometheus keeps sending the end of an alert for 15 minutes."""
    with alertmanager() as it:
        firing, resolved = ("firing", "ConnectionExporterDown"), ("resolved", "ConnectionExporterDown")
        it.post("ConnectionExporterDown", job="j", instance="first")
        until(lambda: it.messages("") == [firing], within=40)
        it.post("ConnectionExporterDown", job="j", instance="first", lease=0)
        until(lambda: it.messages("") == [firing, resolved], within=60)
        time.sleep(25)  # until Alertmanager has forgotten it
        it.post("ConnectionExporterDown", job="j", instance="second")
        until(lambda: it.messages("") == [firing, resolved, firing], within=40)
        it.post("ConnectionExporterDown", job="j", instance="first", lease=0)
        time.sleep(25)
        assert it.messages("").count(firing) == 2
