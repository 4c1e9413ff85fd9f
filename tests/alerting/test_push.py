"""Direct alerting on real Alertmanagers: one message for the cause, and none lost, whatever is gone meanwhile."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from connection_exporter.app import serving
from connection_exporter.config import Config
from connection_exporter.kinds import load_text
from connection_exporter.monitor.monitor import Monitor
from connection_exporter.runtime.settings import Settings
from connection_exporter.system.wakeup import Wakeup
from connection_exporter.web.server import bind
from support.alertmanagers import PlainAlertmanager, alertmanagers, until
from support.live import Web, web
from support.served import Served

TEN = [f"api_{number}" for number in range(10)]
QUICK = "interval: 300ms, timeout: 250ms, retry_delay: 100ms, max_retry_delay: 300ms, retries: 2, canary: off"
SETTLED = 3.0
"""Seconds in which another message would have come: Alertmanager sends changes of a group once a second."""


def text_of(
    receivers: Iterable[PlainAlertmanager], database: Web, apis: Web, *, names: Iterable[str] = TEN
) -> str:
    urls = ", ".join(f'"{receiver.url}"' for receiver in receivers)
    effects = "".join(
        f'  {name}: {{kind: http, url: "http://127.0.0.1:{apis.port}/{name}", depends_on: [database]}}\n'
        for name in names
    )
    return (
        f"alerting: {{alertmanagers: [{urls}], external_url: 'http://monitor.example.com'}}\n"
        f"defaults: {{{QUICK}}}\n"
        "services:\n"
        f'  database: {{kind: http, url: "http://127.0.0.1:{database.port}/", group: data}}\n{effects}'
    )


class Running:
    """An exporter in this process, whose settings can be replaced."""

    def __init__(self, monitor: Monitor, hangup: Wakeup, settings: list[Config], port: int) -> None:
        self.monitor = monitor
        self._hangup = hangup
        self._settings = settings
        self.port = port

    async def reload(self, text: str) -> None:
        self._settings[0] = load_text(text)
        self._hangup.set()
        await until(lambda: self.monitor.config is self._settings[0])

    def all_are(self, status: str, names: Iterable[str]) -> bool:
        return all(self.monitor.board.record(name).status.value == status for name in names)

    async def metric(self, name: str) -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        lines = (await reader.read()).decode().splitlines()
        writer.close()
        return [float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)]

    async def until_metric(self, name: str, holds: Callable[[list[float]], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds(await self.metric(name)):  # noqa: ASYNC110 - a metric has no event
                await asyncio.sleep(0.05)


@asynccontextmanager
async def exporter(text: str) -> AsyncIterator[Running]:
    hangup, settings, sockets = Wakeup(), [load_text(text)], bind(["127.0.0.1:0"])
    port = sockets[0].getsockname()[1]
    async with serving(settings[0], sockets, reread=lambda: Settings(settings[0]), hangup=hangup) as monitor:
        running = Running(monitor, hangup, settings, port)
        await until(lambda: running.all_are("healthy", monitor.board.names))
        yield running


async def test_a_database_with_ten_dependents_makes_one_alert_that_names_all_ten() -> None:
    async with (
        web() as database,
        web() as apis,
        alertmanagers(1) as ((receiver,), (inbox,)),
        exporter(text_of([receiver], database, apis)) as running,
    ):
        await database.stop()
        await apis.stop()
        await until(lambda: running.all_are("disconnected", ["database", *TEN]) and inbox.messages)
        await asyncio.sleep(SETTLED)
        assert inbox.of("firing") == ["database"]
        (message,) = inbox.messages
        assert all(name in message.text for name in TEN)
        assert message.labels == {
            "alertname": "ConnectionDown",
            "source": "connection-exporter",
            "name": "database",
            "kind": "http",
            "group": "data",
            "severity": "critical",
            "instance": "monitor.example.com:80",
        }
        await apis.start()
        await database.start()
        await until(lambda: inbox.of("resolved"))
        await asyncio.sleep(SETTLED)
        assert [(m.status, m.name) for m in inbox.messages] == [
            ("firing", "database"),
            ("resolved", "database"),
        ]
        assert await running.metric("connection_exporter_alerting_healthy") == [1.0]
        assert await running.metric("connection_exporter_alerts_failed_total{") == [0.0]


async def test_effects_that_are_noticed_before_their_frozen_cause_send_nothing() -> None:
    """The database is frozen and would be noticed only in minutes. The disconnected effect has it checked at once."""
    async with web() as database, web() as apis, alertmanagers(1) as ((receiver,), (inbox,)):
        slow = "interval: 5m, timeout: 300ms"
        text = text_of([receiver], database, apis).replace("group: data", slow)
        async with exporter(text) as running:
            database.silent = True
            await apis.stop()
            await until(lambda: running.all_are("disconnected", TEN))
            await until(lambda: inbox.messages)
            await asyncio.sleep(SETTLED)
            assert inbox.of("firing") == ["database"]
            database.silent = False
            await apis.start()
            await until(lambda: inbox.of("resolved"))
            await asyncio.sleep(SETTLED)
            assert inbox.of("firing") == inbox.of("resolved") == ["database"]


async def test_an_effect_that_does_not_recover_with_its_cause_has_an_alert_of_its_own() -> None:
    """It starts at once, and continues when the cause fails again, until the effect itself is healthy."""
    async with (
        web() as database,
        web() as apis,
        alertmanagers(1) as ((receiver,), (inbox,)),
        exporter(text_of([receiver], database, apis, names=["api_0"])) as running,
    ):
        await database.stop()
        await apis.stop()
        await until(lambda: running.all_are("disconnected", ["database", "api_0"]) and inbox.messages)
        await database.start()
        await until(lambda: inbox.of("firing") == ["database", "api_0"])
        await until(lambda: inbox.of("resolved") == ["database"])
        await database.stop()
        await until(lambda: inbox.of("firing") == ["database", "api_0", "database"])
        await asyncio.sleep(SETTLED)
        assert inbox.of("resolved") == ["database"]
        await apis.start()
        await until(lambda: inbox.of("resolved") == ["database", "api_0"])


async def test_one_alertmanager_of_two_is_enough_and_the_other_catches_up() -> None:
    async with (
        web() as database,
        web() as apis,
        alertmanagers(2) as (receivers, (first, second)),
        exporter(text_of(receivers, database, apis, names=[])) as running,
    ):
        await until(lambda: running.monitor.board.active)
        await receivers[1].stop()
        await database.stop()
        await until(lambda: first.of("firing") == ["database"])
        failed = f'connection_exporter_alerts_failed_total{{alertmanager="127.0.0.1:{receivers[1].port}"}}'
        await running.until_metric(failed, any)
        assert await running.metric("connection_exporter_alerting_healthy") == [1.0]
        await receivers[1].start()
        await until(lambda: second.of("firing") == ["database"])
        await receivers[0].restart()
        await database.start()
        await until(lambda: second.of("resolved") == ["database"])
        await until(lambda: not receivers[0].alerts())
        await asyncio.sleep(SETTLED)
        assert len(first.of("firing")) == len(second.of("firing")) == 1


async def test_no_alertmanager_at_all_is_not_healthy_and_disturbs_nothing() -> None:
    async with (
        web() as database,
        web() as apis,
        alertmanagers(1) as ((receiver,), (inbox,)),
        exporter(text_of([receiver], database, apis, names=[])) as running,
    ):
        await receiver.stop()
        await database.stop()
        await until(lambda: running.all_are("disconnected", ["database"]))
        await running.until_metric("connection_exporter_alerting_healthy", lambda values: values == [0.0])
        await receiver.start()
        await until(lambda: inbox.of("firing") == ["database"])
        await running.until_metric("connection_exporter_alerting_healthy", lambda values: values == [1.0])


async def test_a_reload_changes_the_addresses_and_resolves_only_what_was_removed() -> None:
    async with web() as database, web() as apis, alertmanagers(2) as (receivers, (first, second)):
        both = text_of(receivers[:1], database, apis, names=["api_0"]).replace(", depends_on: [database]", "")
        async with exporter(both) as running:
            await database.stop()
            await apis.stop()
            await until(lambda: sorted(first.of("firing")) == ["api_0", "database"])
            moved = text_of(receivers[1:], database, apis, names=["api_0"])
            await running.reload(moved.replace(", depends_on: [database]", ""))
            await until(lambda: sorted(second.of("firing")) == ["api_0", "database"])
            assert first.of("resolved") == []
            await running.reload(text_of(receivers[1:], database, apis, names=[]))
            await until(lambda: second.of("resolved") == ["api_0"])
            await asyncio.sleep(SETTLED)
            assert second.of("resolved") == ["api_0"]
            assert first.of("resolved") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_after_a_restart_an_open_alert_continues_as_the_same_alert(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with web() as database, web() as apis, alertmanagers(1) as ((receiver,), (inbox,)):
        text, flags = text_of([receiver], database, apis), [f"--storage.path={tmp_path / 'history'}"]
        async with Served(text, tmp_path, flags=flags) as served:
            await served.until("api_9", "healthy", within=60)
            await database.stop()
            await apis.stop()
            await until(lambda: inbox.messages)
            (before,) = receiver.alerts()
            served.send(number)
            await served.ended(within=20)
        async with Served(text, tmp_path, flags=flags) as served:
            await served.until("database", "disconnected", within=60)
            await until(lambda: receiver.alerts()[0]["endsAt"] > before["endsAt"])
            (after,) = receiver.alerts()
            assert (after["fingerprint"], after["startsAt"]) == (before["fingerprint"], before["startsAt"])
            assert before["startsAt"].replace("T", " ")[:19] in after["annotations"]["description"]
            await asyncio.sleep(SETTLED)
            assert [m.status for m in inbox.messages] == ["firing"]
            await apis.start()
            await database.start()
            await until(lambda: inbox.of("resolved") == ["database"])


async def test_the_end_of_an_incident_while_the_exporter_was_gone_is_sent_after_its_restart(
    tmp_path: Path,
) -> None:
    """The history tells which alert may be open. Of a service that was never disconnected, nothing is sent."""
    async with web() as database, web() as apis, alertmanagers(1) as ((receiver,), (inbox,)):
        text = text_of([receiver], database, apis, names=["api_0"])
        flags = [f"--storage.path={tmp_path / 'history'}"]
        async with Served(text, tmp_path, flags=flags) as served:
            await served.until("database", "healthy", within=60)
            await database.stop()
            await until(lambda: inbox.of("firing") == ["database"])
            async with asyncio.timeout(20):
                while "connection_alert_announced{" not in await served.get("/metrics"):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            served.send(signal.SIGKILL)
            await served.ended(within=20)
        await database.start()
        async with Served(text, tmp_path, flags=flags) as served:
            await until(lambda: inbox.of("resolved") == ["database"])
            await served.until("api_0", "healthy", within=60)
            sent = f'connection_exporter_alerts_sent_total{{alertmanager="127.0.0.1:{receiver.port}"}} 1.0'
            assert sent in await served.get("/metrics")


async def test_a_restart_without_history_keeps_the_start_that_alertmanager_knows(tmp_path: Path) -> None:
    """Alertmanager merges alerts with the same labels, and keeps the earlier start."""
    async with web() as database, web() as apis, alertmanagers(1) as ((receiver,), (inbox,)):
        text = text_of([receiver], database, apis, names=[])
        starts: list[str] = []
        await database.stop()
        for _ in range(2):
            async with Served(text, tmp_path) as served:
                await served.until("database", "disconnected", within=60)
                await until(receiver.alerts)
                starts.append(receiver.alerts()[0]["startsAt"])
        assert starts[0] == starts[1]
        assert inbox.of("resolved") == []
