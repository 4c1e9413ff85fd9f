"""Never two messages for one incident, and never none, whatever one thing is gone.

Real programs with the rules, routes and timings that ship. The cases run side by side, each on a stack of its own,
because most of their time is waiting: for the end of a lease, or for a message that must not come.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import pytest
from support.incidents import EFFECTS, FLUSH, PEER_TIMEOUT, RECOMMENDED, Rig, rig

pytestmark = pytest.mark.timeout(600)

AT_ONCE: Final = 4
"""Stacks that start at the same time, on two cores."""
LEASE: Final = 95.0
"""Seconds after which an alert has ended that the exporter does not renew."""

Case = Callable[[Rig], Awaitable[None]]


async def the_end(it: Rig) -> None:
    """Repair the service, and expect one message about it."""
    await it.repair_service()
    await it.receives("firing", "resolved")
    await it.receives_no_more()


async def an_incident(it: Rig) -> None:
    """Break the service, repair it at once, and expect one message about each."""
    await it.break_service()
    await it.receives("firing")
    await the_end(it)


async def nothing_is_gone(it: Rig) -> None:
    """Ten services fail with the database: one message, which names all ten. The rules stay silent."""
    await it.break_service()
    await it.receives("firing")
    (message,) = it.inbox.messages
    assert message.alerts == ("ConnectionDown",)
    assert all(name in message.text for name in EFFECTS)
    await asyncio.sleep(30)
    assert it.firing() == set()
    await the_end(it)
    assert {message.about for message in it.inbox.messages} == {"database"}


async def rules_alone(it: Rig) -> None:
    """Without push, the message of the rules names all ten."""
    await it.break_service()
    await it.receives("firing")
    await the_end(it)
    message = it.inbox.messages[0]
    assert message.alerts == ("ConnectionDisconnected",)
    assert all(name in message.text for name in EFFECTS)


async def prometheus_is_down(it: Rig) -> None:
    """Push notifies. Prometheus comes back during the incident, and is gone again at its end."""
    await it.prometheus.kill()
    await it.break_service()
    await it.receives("firing")
    await it.prometheus.start()
    await asyncio.sleep(30)
    await it.prometheus.kill()
    await the_end(it)


async def prometheus_restarts(it: Rig) -> None:
    """During the incident."""
    await it.break_service()
    await it.receives("firing")
    await it.prometheus.restart()
    await asyncio.sleep(30)
    await the_end(it)


async def the_exporter_restarts(it: Rig) -> None:
    """During the incident. The alert continues as the same alert."""
    await it.break_service()
    await it.receives("firing")
    await it.exporter.restart()
    await asyncio.sleep(30)
    await the_end(it)


async def the_exporter_is_gone(it: Rig) -> None:
    """For longer than its lease: its end pages, and no all-clear comes that nobody observed."""
    await it.break_service()
    await it.receives("firing")
    await it.until(it.is_announced)
    await it.exporter.kill()
    await asyncio.sleep(LEASE + 20)
    await it.receives("firing")
    assert any("ConnectionExporterDown" in message.alerts for message in it.inbox.messages)
    await it.exporter.start()
    await it.until(lambda: it.statuses()["database"] == "disconnected")
    await the_end(it)


async def a_service_recovers_while_the_exporter_is_gone(it: Rig) -> None:
    """For longer than the lease of its alert. The exporter ends the alert when it is back."""
    await it.break_service()
    await it.receives("firing")
    await it.until(it.is_announced)
    await it.exporter.kill()
    await it.repair_service()
    await asyncio.sleep(LEASE + 20)
    await it.receives("firing")
    await it.exporter.start()
    await it.receives("firing", "resolved")
    await it.receives_no_more()


async def an_alertmanager_is_down(it: Rig) -> None:
    """Before the incident: the one that notifies first."""
    await it.first.kill()
    await an_incident(it)


async def an_alertmanager_returns(it: Rig) -> None:
    """It fails after it has notified, and comes back during the incident."""
    await it.break_service()
    await it.receives("firing")
    await it.noted()
    await it.first.kill()
    await asyncio.sleep(30)
    await it.first.start()
    await it.knows(it.first)
    since = time.monotonic()
    await asyncio.sleep(30)
    await it.repair_service_between_flushes(since)


async def an_alertmanager_fails(it: Rig) -> None:
    """After it has notified, and for good."""
    await it.break_service()
    await it.receives("firing")
    await it.noted()
    await it.first.kill()
    await asyncio.sleep(30)
    await the_end(it)


def cut_before(*links: str, vanish: bool = False) -> Case:
    """Return a case: connections are cut before the incident, and until it is over."""

    async def case(it: Rig) -> None:
        await it.cut(*links, vanish=vanish)
        await an_incident(it)

    return case


def cut_during(*links: str, vanish: bool = False) -> Case:
    """Return a case: connections are cut during the incident, for longer than a lease, and healed before its end."""

    async def case(it: Rig) -> None:
        await it.break_service()
        await it.receives("firing")
        since = time.monotonic()
        await it.noted()
        await it.cut(*links, vanish=vanish)
        await asyncio.sleep(LEASE + 20)
        await it.receives("firing")
        it.heal(*links)
        await asyncio.sleep(15)
        if links == ("exporter-first",):
            await it.repair_service_between_flushes(since)
        else:
            await the_end(it)

    return case


def cut_until_after(*links: str, vanish: bool = False) -> Case:
    """Return a case: connections are cut during the incident, for longer than a lease, and healed after its end."""

    async def case(it: Rig) -> None:
        await it.break_service()
        await it.receives("firing")
        await it.noted()
        await it.cut(*links, vanish=vanish)
        await asyncio.sleep(LEASE + 20)
        await it.repair_service()
        await asyncio.sleep(15)
        it.heal(*links)
        await it.receives("firing", "resolved")
        await it.receives_no_more()

    return case


async def a_webhook_out_of_reach_of_the_first_alertmanager(it: Rig) -> None:
    """At the end of the incident. The second one notifies, and the first one gives up before the connection is back."""
    await it.break_service()
    await it.receives("firing")
    await it.noted()
    await it.cut("first-webhook")
    await asyncio.sleep(30)
    await it.repair_service()
    await it.receives("firing", "resolved")
    await asyncio.sleep(FLUSH + 2)
    it.heal("first-webhook")
    await it.receives_no_more()


async def a_partition_before(it: Rig) -> None:
    """Each half notifies, because it cannot know of the other. They agree again before the end."""
    await it.partition()
    await it.break_service()
    await it.receives("firing", "firing")
    await it.reunite()
    await it.repair_service()
    await it.receives("firing", "firing", "resolved")
    await it.receives_no_more()


async def a_partition_during(it: Rig) -> None:
    """After the first message, which both members have noted."""
    await it.break_service()
    await it.receives("firing")
    await it.noted()
    await it.partition()
    await asyncio.sleep(30)
    await it.reunite()
    await the_end(it)


WITH_PUSH: Mapping[str, Case] = {
    # those that take longest first
    "exporter": the_exporter_is_gone,
    "exporter, and the service recovers": a_service_recovers_while_the_exporter_is_gone,
    "alertmanager returns": an_alertmanager_returns,
    "exporter-first during": cut_during("exporter-first", vanish=True),
    "exporter-second until after": cut_until_after("exporter-second"),
    "exporter-both during": cut_during("exporter-first", "exporter-second"),
    "exporter-both until after": cut_until_after("exporter-first", "exporter-second"),
    "prometheus-exporter until after": cut_until_after("prometheus-exporter", vanish=True),
    "prometheus-first during": cut_during("prometheus-first"),
    "prometheus-both during": cut_during("prometheus-first", "prometheus-second", vanish=True),
    "nothing": nothing_is_gone,
    "short incident": an_incident,
    "prometheus": prometheus_is_down,
    "prometheus restarts": prometheus_restarts,
    "exporter restarts": the_exporter_restarts,
    "alertmanager": an_alertmanager_is_down,
    "alertmanager fails": an_alertmanager_fails,
    "exporter-first before": cut_before("exporter-first"),
    "exporter-both before": cut_before("exporter-first", "exporter-second", vanish=True),
    "prometheus-exporter before": cut_before("prometheus-exporter"),
    "first-webhook before": cut_before("first-webhook"),
    "first-webhook at the end": a_webhook_out_of_reach_of_the_first_alertmanager,
    "partition before": a_partition_before,
    "partition during": a_partition_during,
}
RULES_ALONE: Mapping[str, Case] = {
    "rules alone": rules_alone,
    "rules alone, prometheus restarts": prometheus_restarts,
    "rules alone, prometheus-first before": cut_before("prometheus-first"),
}
CASES = {**WITH_PUSH, **RULES_ALONE}
MEMBERS_FLUSH_APART = {"alertmanager returns", "exporter-first during"}
"""Here the members wait for each other as recommended, elsewhere as by default."""


async def run(names: list[str]) -> dict[str, BaseException | None]:
    """Run cases side by side, and return how each has ended."""
    starting = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> None:
        timeout = RECOMMENDED if name in MEMBERS_FLUSH_APART else PEER_TIMEOUT
        async with rig(starting, push=name in WITH_PUSH, peer_timeout=timeout) as it:
            began = time.monotonic()
            try:
                await CASES[name](it)
            finally:
                for message in it.inbox.messages:
                    print(
                        f"{name}: {message.at - began:.1f} s {message.status} {message.about} {message.alerts}"
                    )

    results = await asyncio.gather(*map(one, names), return_exceptions=True)
    await asyncio.sleep(1)  # for the last transports to close
    return dict(zip(names, results, strict=True))


@pytest.fixture(scope="module")
def ended(request: pytest.FixtureRequest) -> dict[str, BaseException | None]:
    """Run the cases that are selected."""
    nodes = {item.nodeid for item in request.session.items}
    return asyncio.run(run([name for name in CASES if any(node.endswith(f"[{name}]") for node in nodes)]))


@pytest.mark.parametrize("case", CASES)
def test_one_incident_is_one_message(case: str, ended: dict[str, BaseException | None]) -> None:
    """And one when it is over. Only a partition of the cluster sends one for each part."""
    if (error := ended[case]) is not None:
        raise error
