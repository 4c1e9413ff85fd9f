"""Own the whole stack on loopback: five real services, exporter, Prometheus, Alertmanager, webhook and mailbox."""

import asyncio
import email
import email.policy
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any, TypeVar

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope
from aiosmtpd.smtp import Session as MailSession
from connection_exporter.demo.servers import Bot, HttpApi, PostgreSQL, Redis, Server, WebSocket, free_port
from stack_receiver import Notification, receiving
from stack_servers import Alertmanager, Exporter, Prometheus

from support.dashboards_prometheus import Prometheus as Queries

_T = TypeVar("_T")

SCRAPE = 1
CONFIG = """\
defaults: {{interval: 2s, timeout: 1s, retry_delay: 500ms, max_retry_delay: 2s, canary: 4s}}
services:
  database: {{kind: postgresql, dsn: "{database}"}}
  redis: {{kind: redis, url: "{redis}"}}
  bot_process: {{kind: process, pidfile: {pidfile}}}
  external_api: {{kind: http, url: "{api}", expect: {{json: {{status: ok}}}}, tls: {{ca_file: {authority}}}}}
  websocket: {{kind: websocket, url: "{feed}"}}
"""


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert of one notification, as the webhook got it."""

    status: str
    alert: str
    who: str
    annotations: dict[str, str]


@dataclass
class Inbox:
    """Everything that arrived, in order, at the webhook and in the mailbox."""

    reported: list[Notice] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)

    def take(self, _: str, notification: Notification) -> None:
        """Take a notification from the webhook."""
        for alert in notification["alerts"]:
            labels = alert["labels"]
            who = labels.get("name") or labels.get("instance", "")
            self.reported.append(Notice(alert["status"], labels["alertname"], who, alert["annotations"]))

    async def handle_DATA(self, _: SMTP, __: MailSession, envelope: Envelope) -> str:  # noqa: N802
        """Take a mail."""
        assert isinstance(envelope.content, bytes)
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.mails.append(mail)
        return "250 OK"

    def find(self, status: str, alert: str, who: str = "", *, since: int = 0) -> Notice | None:
        """Return the first such alert after so many others."""
        found = (n for n in self.reported[since:] if (n.status, n.alert) == (status, alert))
        return next((notice for notice in found if who in ("", notice.who)), None)

    def find_mail(self, subject: str) -> EmailMessage | None:
        """Return the first mail with this subject."""
        return next((mail for mail in self.mails if mail["Subject"] == subject), None)


class SecureApi(HttpApi):
    """The demo's API over TLS, so that a certificate is watched."""

    @property
    def url(self) -> str:
        """The URL of its health route."""
        return f"https://localhost:{self.port}/health"

    @property
    def authority(self) -> Path:
        """Who has signed its certificate."""
        return self.folder / "authority.pem"

    async def prepare(self) -> None:
        """Make the certificate, the first time."""
        if self.authority.exists():
            return
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        certificate.private_key_and_cert_chain_pem.write_to_path(str(self.folder / "server.pem"))
        authority.cert_pem.write_to_path(str(self.authority))

    def command(self) -> Sequence[str]:
        """Return the same application, served with the certificate."""
        tls = ("--ssl-certfile", str(self.folder / "server.pem"))
        serve = (
            sys.executable,
            "-m",
            "uvicorn",
            "--factory",
            "connection_exporter.demo.api:build",
            "--log-level=warning",
        )
        return [*serve, "--port", str(self.port), *tls, "--timeout-graceful-shutdown=1"]


@dataclass(frozen=True)
class Stack:
    """All of it, running."""

    database: PostgreSQL
    redis: Redis
    bot: Bot
    api: SecureApi
    feed: WebSocket
    exporter: Exporter
    alertmanager: Alertmanager
    prometheus: Prometheus
    inbox: Inbox

    @property
    def services(self) -> dict[str, Server]:
        """The five services by their names."""
        return {
            "database": self.database,
            "redis": self.redis,
            "bot_process": self.bot,
            "external_api": self.api,
            "websocket": self.feed,
        }

    @property
    def queries(self) -> Queries:
        """What answers queries."""
        return Queries(f"http://127.0.0.1:{self.prometheus.port}")

    def board(self) -> dict[str, Any]:
        """Return /health/detailed."""
        board: dict[str, Any] = fetch(f"http://127.0.0.1:{self.exporter.port}/health/detailed")
        return board

    def statuses(self) -> dict[str, str]:
        """Return the status of each service, as the exporter sees it."""
        return {name: service["status"] for name, service in self.board()["services"].items()}

    def all_healthy(self) -> bool:
        """Tell whether every service is."""
        return set(self.statuses().values()) == {"healthy"}

    def alerts(self, *, name: str = "") -> list[dict[str, Any]]:
        """Return the alerts that Alertmanager holds, the Watchdog not."""
        found: list[dict[str, Any]] = fetch(f"http://127.0.0.1:{self.alertmanager.port}/api/v2/alerts")
        return [
            alert
            for alert in found
            if alert["labels"]["alertname"] != "Watchdog" and name in ("", alert["labels"].get("name"))
        ]


@contextmanager
def running() -> Iterator[Stack]:
    """Start the stack, give it once Prometheus sees every service healthy, and stop it at the end."""
    inbox = Inbox()
    with ExitStack() as stack:

        def cast(server: Any) -> Any:
            stack.callback(lambda: do(server.close()))
            return server

        services = (PostgreSQL(), Redis(arguments=["--maxmemory", "64mb"]), Bot(), SecureApi(), WebSocket())
        database, redis, bot, api, feed = map(cast, services)
        mail = Controller(inbox, hostname="127.0.0.1", port=free_port())
        mail.start()
        stack.callback(mail.stop)
        hook = stack.enter_context(receiving(inbox.take))
        do(_start(*services))
        config = CONFIG.format(
            database=database.dsn(),
            redis=redis.url,
            pidfile=bot.pidfile,
            api=api.url,
            authority=api.authority,
            feed=feed.url,
        )
        exporter = cast(Exporter(config=config))
        alertmanager = cast(
            Alertmanager(
                variables={
                    "ALERT_WEBHOOK_URL": f"http://127.0.0.1:{hook}/",
                    "ALERT_EMAIL_TO": "ops@example.com",
                    "ALERT_EMAIL_FROM": "alerts@example.com",
                    "ALERT_EMAIL_SMARTHOST": f"127.0.0.1:{mail.port}",
                    "ALERT_EMAIL_REQUIRE_TLS": "false",
                }
            )
        )
        targets = {
            "connection-exporter": f"127.0.0.1:{exporter.port}",
            "alertmanager": f"127.0.0.1:{alertmanager.port}",
        }
        prometheus = cast(Prometheus(targets=targets, scrape=f"{SCRAPE}s"))
        do(_start(exporter, alertmanager))
        do(_start(prometheus))
        whole = Stack(database, redis, bot, api, feed, exporter, alertmanager, prometheus, inbox)
        until(whole.all_healthy, within=30)
        until(lambda: len(whole.queries.instant("connection_up == 1", time.time()).series) == 5, within=30)
        yield whole


def do(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end."""
    return asyncio.run(work)


def until(condition: Callable[[], _T | None], *, within: float) -> _T:
    """Wait until the condition gives something, and return that; AssertionError if it does not in time."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within:g} s"
        time.sleep(0.1)
    return found


def fetch(url: str) -> Any:
    """Return the JSON at an address."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.load(reply)


async def _start(*servers: Server) -> None:
    await asyncio.gather(*(server.start() for server in servers))
