"""Owns everything between a service and a phone, with every connection through a proxy that can be cut.

One HTTP service and ten that depend on it, the exporter, Prometheus with the rules of the repository, a cluster of two
Alertmanagers with its routes, and one webhook that both notify. All timings are those that ship.
"""

import asyncio
import json
import re
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any, Final

from connection_exporter.demo.ports import reserve_port
from stack_receiver import Notification, receiving
from stack_servers import Alertmanager, Exporter, Prometheus

from support.datagrams import GossipProxy
from support.live import web
from support.proxy import Mode, Proxy

EFFECTS: Final = tuple(f"api_{number}" for number in range(10))
QUICK: Final = "interval: 1s, timeout: 1s, retry_delay: 300ms, max_retry_delay: 1s, canary: off"
RETRIES_OF_CAUSE: Final = 8
"""Failed attempts after which the database is disconnected, which is when its message is written.

The message names the services that have failed by then. A check of kind http notices a cut only with its next attempt,
so the effects fail within interval + timeout, 2 s after the cut, each at its own time. The first failure has the
database checked, and with three retries, it could be disconnected 0.7 s later, before the last effect had failed. With
eight, the delays between its attempts take at least 4.7 s: 0.3 + 0.6 + 5 x 1 s, times 0.8. The order is the same on a
machine that runs the exporter late, because all these timers belong to one event loop.
"""
LEASE: Final = 95.0
"""Seconds after which an alert has ended that the exporter does not renew."""
FLUSH: Final = 20.0
"""Seconds between two flushes of a page (`group_interval`)."""
PEER_TIMEOUT: Final = 15.0
"""Seconds for which the second member of a cluster waits for the first (`--cluster.peer-timeout`): the default."""
RECOMMENDED: Final = 5.0
"""The same, as docs/alerts.md recommends it."""
SETTLED: Final = FLUSH + PEER_TIMEOUT + 3.0
"""Seconds in which another message would have come."""


@dataclass(frozen=True, slots=True)
class Message:
    """One notification, as the webhook got it. ``alerts`` are the names of the alerts in it."""

    at: float
    status: str
    about: str
    alerts: tuple[str, ...]
    text: str


@dataclass
class Inbox:
    """Every notification, in order."""

    messages: list[Message] = field(default_factory=list)

    def take(self, _: str, notification: Notification) -> None:
        """Take a notification from the webhook, in its thread."""
        alerts = notification["alerts"]
        self.messages.append(
            Message(
                time.monotonic(),
                notification["status"],
                notification["groupLabels"].get("name", ""),
                tuple(alert["labels"]["alertname"] for alert in alerts),
                " ".join(alert["annotations"].get("description", "") for alert in alerts),
            )
        )

    def statuses(self) -> list[str]:
        """Return the statuses of the messages about services, in order. Others are about the monitoring itself."""
        return [message.status for message in self.messages if message.about]


@dataclass(frozen=True, slots=True)
class Rig:
    """What a case breaks, and what arrived. ``links`` are the connections, as "exporter-first"."""

    exporter: Exporter
    prometheus: Prometheus
    first: Alertmanager
    second: Alertmanager
    links: dict[str, Proxy]
    gossip: Sequence[GossipProxy]
    inbox: Inbox

    async def cut(self, *names: str, vanish: bool = False) -> None:
        """Cut connections: reset them, new ones at once, or let every packet of them vanish."""
        for name in names:
            link = self.links[name]
            link.mode = Mode.SWALLOW if vanish else Mode.RESET
            if not vanish:
                link.reset()

    def heal(self, *names: str) -> None:
        """Let connections through again."""
        for name in names:
            link = self.links[name]
            link.mode = Mode.PASS
            link.reset()  # what was swallowed is missing in the connections that are left

    async def partition(self) -> None:
        """Cut the members of the cluster off from each other, until both have noticed."""
        for proxy in self.gossip:
            proxy.cut()
        await self.members_are(1)

    async def reunite(self) -> None:
        """Let the members talk to each other again, until both have noticed."""
        for proxy in self.gossip:
            proxy.heal()
        await self.members_are(2)

    async def members_are(self, count: int) -> None:
        """Wait until both members of the cluster know so many."""
        async with asyncio.timeout(60):
            while [await member.members() for member in (self.first, self.second)] != [count, count]:  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    async def break_service(self) -> None:
        """Break the database and, with it, everything that depends on it."""
        await self.cut("database", "apis")

    async def repair_service(self) -> None:
        """Repair them, so that nothing is without its cause for a moment, which is an incident of its own."""
        self.heal("apis")
        if self.exporter.running:
            await self.until(lambda: all(self.statuses()[name] == "healthy" for name in EFFECTS))
        self.heal("database")

    async def repair_service_between_flushes(self, since: float) -> None:
        """Start them again while the second member, whose flushes began at a time, is not waiting for the first.

        The members flush at different times after one of them was restarted or cut off. What a member sends after its
        wait is as old as the wait, so the end of an incident within it can repeat a message.
        """
        into = (time.monotonic() - since) % FLUSH
        await asyncio.sleep((RECOMMENDED + 2.0 - into) % FLUSH)
        await self.repair_service()
        await self.until(lambda: len(self.inbox.statuses()) >= 2)
        await asyncio.sleep(SETTLED)
        # If both send within the 0.2 s in which one tells the other, the end arrives twice.
        assert self.inbox.statuses() in (["firing", "resolved"], ["firing", "resolved", "resolved"]), (
            self.inbox.messages
        )

    async def receives(self, *statuses: str) -> None:
        """Wait until exactly these messages about services have come."""
        await self.until(lambda: len(self.inbox.statuses()) >= len(statuses))
        assert self.inbox.statuses() == list(statuses), self.inbox.messages

    async def until(self, condition: Callable[[], object], *, within: float = 60.0) -> None:
        """Wait for a condition, which may block, in a thread."""
        deadline = time.monotonic() + within
        while not await asyncio.to_thread(_holds, condition):
            assert time.monotonic() < deadline, f"not within {within:g} s: {self.inbox.messages}"
            await asyncio.sleep(0.2)

    async def receives_no_more(self) -> None:
        """Wait for messages about services that must not come."""
        before = self.inbox.statuses()
        await asyncio.sleep(SETTLED)
        assert self.inbox.statuses() == before, self.inbox.messages

    async def knows(self, member: Alertmanager) -> None:
        """Wait until a member has an alert about the database."""
        url = f"http://127.0.0.1:{member.port}/api/v2/alerts?filter=name%3D%22database%22"

        def alerts() -> object:
            with urllib.request.urlopen(url, timeout=10) as reply:
                return json.load(reply)

        await self.until(alerts)

    async def noted(self) -> None:
        """Wait until each message was noted by the member of the cluster that has not sent it."""
        await self.until(
            lambda: sum(map(_noted, (self.first, self.second))) >= len(self.inbox.messages),
        )

    def is_evaluated(self) -> bool:
        """Return whether Prometheus has evaluated a scrape with all services healthy, and knows where alerts go."""
        healthy = self._ask_prometheus("query?query=service:connection_status:last==1")["result"]
        members = self._ask_prometheus("alertmanagers")["activeAlertmanagers"]
        return len(healthy) == 1 + len(EFFECTS) and len(members) == 2

    def is_announced(self) -> bool:
        """Return whether the rules know that push has announced the incident."""
        return bool(self._ask_prometheus("query?query=service:connection_pushed:last")["result"])

    def firing(self) -> set[tuple[str, str]]:
        """Return the alerts about the database that Prometheus fires, with their label `push`."""
        alerts = self._ask_prometheus("alerts")["alerts"]
        return {
            (alert["labels"]["alertname"], alert["labels"].get("push", ""))
            for alert in alerts
            if alert["state"] == "firing" and alert["labels"].get("name") == "database"
        }

    def statuses(self) -> dict[str, str]:
        """Return the status of each service."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.exporter.port}/health/detailed", timeout=10
        ) as reply:
            services = json.load(reply)["services"]
        return {name: service["status"] for name, service in services.items()}

    def _ask_prometheus(self, question: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.prometheus.port}/api/v1/{question}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            data: dict[str, Any] = json.load(reply)["data"]
        return data


def _noted(member: Alertmanager) -> int:
    """Return how many messages of others a member of the cluster has noted."""
    with urllib.request.urlopen(f"http://127.0.0.1:{member.port}/metrics", timeout=10) as reply:
        metrics = reply.read().decode()
    (count,) = re.findall(
        r"^alertmanager_nflog_gossip_messages_propagated_total (\S+)", metrics, re.MULTILINE
    )
    return int(float(count))


def _holds(condition: Callable[[], object]) -> bool:
    try:
        return bool(condition())
    except OSError:
        return False


@asynccontextmanager
async def rig(
    starting: asyncio.Semaphore, *, push: bool = True, peer_timeout: float = PEER_TIMEOUT
) -> AsyncIterator[Rig]:
    """Run everything, and give it once every service is healthy and known to Prometheus."""
    inbox = Inbox()
    async with AsyncExitStack() as stack:
        await starting.acquire()
        released = False
        try:
            hook = stack.enter_context(receiving(inbox.take))
            service = await stack.enter_async_context(web())
            upstreams = {
                "database": service.port,
                "apis": service.port,
                "first-webhook": hook,
                "second-webhook": hook,
            }
            links = {name: await stack.enter_async_context(Proxy(port)) for name, port in upstreams.items()}
            # kept from all others until the members listen on them, and over their restarts
            ports = [stack.enter_context(reserve_port()).getsockname()[1] for _ in range(2)]
            gossip = [await stack.enter_async_context(GossipProxy(port)) for port in ports]
            first, second = (
                Alertmanager(
                    variables={"ALERT_WEBHOOK_URL": f"http://127.0.0.1:{links[f'{name}-webhook'].port}/"},
                    cluster=[
                        f"--cluster.listen-address=127.0.0.1:{ports[place]}",
                        f"--cluster.advertise-address=127.0.0.1:{gossip[place].port}",
                        f"--cluster.peer=127.0.0.1:{gossip[1 - place].port}",
                        f"--cluster.peer-timeout={peer_timeout:g}s",
                    ],
                )
                for place, name in enumerate(("first", "second"))
            )
            for whose in ("exporter", "prometheus"):
                for name, member in (("first", first), ("second", second)):
                    links[f"{whose}-{name}"] = await stack.enter_async_context(Proxy(member.port))
            links["prometheus-exporter"] = await stack.enter_async_context(Proxy(0))
            folder = stack.enter_context(TemporaryDirectory(prefix="ce-"))
            config = _config(links, push=push)
            exporter = Exporter(config=config, flags=[f"--storage.path={folder}"])
            links["prometheus-exporter"].upstream = exporter.port
            prometheus = Prometheus(
                targets={
                    "connection-exporter": f"127.0.0.1:{links['prometheus-exporter'].port}",
                    "alertmanager": f"127.0.0.1:{first.port}",
                },
                alertmanagers=[
                    f"127.0.0.1:{links[f'prometheus-{name}'].port}" for name in ("first", "second")
                ],
            )
            whole = Rig(exporter, prometheus, first, second, links, gossip, inbox)
            for server in (first, second, exporter, prometheus):  # the first member has the first position
                await stack.enter_async_context(server)
            starting.release()
            released = True
            await whole.members_are(2)
            await whole.until(lambda: set(whole.statuses().values()) == {"healthy"})
            await whole.until(whole.is_evaluated)
            yield whole
        finally:
            if not released:
                starting.release()


def _config(links: dict[str, Proxy], *, push: bool) -> str:
    urls = [f"http://127.0.0.1:{links[f'exporter-{name}'].port}" for name in ("first", "second")]
    alerting = f"alerting: {{alertmanagers: {json.dumps(urls)}, external_url: 'http://127.0.0.1:{links['prometheus-exporter'].port}'}}\n"
    effects = "".join(
        f'  {name}: {{kind: http, url: "http://127.0.0.1:{links["apis"].port}/{name}", depends_on: [database]}}\n'
        for name in EFFECTS
    )
    url = f"http://127.0.0.1:{links['database'].port}/"
    cause = f'  database: {{kind: http, url: "{url}", retries: {RETRIES_OF_CAUSE}}}\n'
    return f"{alerting if push else ''}defaults: {{{QUICK}}}\nservices:\n{cause}{effects}"
