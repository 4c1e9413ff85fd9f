"""Owns the end of the line: a webhook on loopback that takes Alertmanager's notifications and puts them in words."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Notification = dict[str, Any]
"""The body of a webhook, as https://prometheus.io/docs/alerting/latest/configuration/#webhook_config has it."""


@contextmanager
def receiving(take: Callable[[str, Notification], None]) -> Iterator[int]:
    """Give the port of a webhook; ``take`` gets the path and the body of each notification, in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            take(self.path, json.loads(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  # as the base names it
            """Say nothing: what is taken is said by who takes it."""

    class Webhook(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = (
            1024  # Alertmanager notifies of each service at once, and repeats what is not accepted
        )

    server = Webhook(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def in_words(notification: Notification) -> str:
    """Say what broke, since when and what to do, or what is over, one alert after the other."""
    return "\n".join(_alert_in_words(alert) for alert in notification["alerts"])


def _alert_in_words(alert: dict[str, Any]) -> str:
    labels, notes = alert["labels"], alert["annotations"]
    who = labels.get("name") or labels.get("instance") or labels["alertname"]
    began = _moment(alert["startsAt"])
    if alert["status"] == "resolved":
        ended = _moment(alert["endsAt"])
        lasted = round((ended - began).total_seconds())
        return f"OVER     {who}: {labels['alertname']}, from {began:%H:%M:%S} to {ended:%H:%M:%S} UTC, {lasted} s"
    lines = [
        f"{labels.get('severity', 'none').upper():<8} {who}: {notes.get('summary', labels['alertname'])}",
        notes.get("description", ""),
        f"since {began:%H:%M:%S} UTC; do: {notes.get('action', '-')}",
        notes.get("runbook_url", ""),
    ]
    return "\n         ".join(line for line in lines if line)


def _moment(text: str) -> datetime:
    """Read a time of Alertmanager's, whose nanoseconds Python does not take."""
    return datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
