"""Many alerts at once, proxies that take only small requests, and clocks that differ, on real Alertmanagers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from connection_exporter.alerting.ledger import LEASE, Alert, Ledger
from connection_exporter.alerting.sender import Sender
from connection_exporter.app import serving
from connection_exporter.config.alerting import AlertingConfig
from connection_exporter.kinds import load_text
from connection_exporter.net.tls import TlsContexts
from connection_exporter.system.clock import Clock, SystemClock
from connection_exporter.web.server import bind
from support.alertmanagers import alertmanagers, until
from support.live import web
from support.senders import running

STORM = 500


class Front:
    """A reverse proxy that counts requests, and rejects those that are longer than a limit, as nginx does."""

    def __init__(self, upstream: int, longest: int) -> None:
        self.port = 0
        self.accepted = 0
        self.rejected = 0
        self._upstream = upstream
        self._longest = longest

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until the client closes."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                body = await reader.readexactly(length)
                if length > self._longest:
                    self.rejected += 1
                    writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
                    continue
                self.accepted += 1
                from_it, to_it = await asyncio.open_connection("127.0.0.1", self._upstream)
                to_it.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body)
                await from_it.read()
                to_it.close()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def front(upstream: int, *, longest: int) -> AsyncIterator[Front]:
    """Run a `Front`."""
    made = Front(upstream, longest)
    listener = await asyncio.start_server(made.take, "127.0.0.1", 0)
    made.port = listener.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listener.close()


async def test_five_hundred_services_that_fail_at_once_take_a_few_requests() -> None:
    """And one message each."""
    async with (
        web() as service,
        alertmanagers(1) as ((receiver,), (inbox,)),
        front(receiver.port, longest=2**20) as proxy,
    ):
        quick = (
            "interval: 2s, timeout: 2s, retry_delay: 500ms, max_retry_delay: 500ms, retries: 2, canary: off"
        )
        services = "".join(
            f'  s{number}: {{kind: http, url: "http://127.0.0.1:{service.port}/{number}"}}\n'
            for number in range(STORM)
        )
        alerting = f'{{alertmanagers: ["http://127.0.0.1:{proxy.port}"]}}'
        text = f"alerting: {alerting}\ndefaults: {{{quick}}}\nservices:\n{services}"
        async with serving(load_text(text), bind(["127.0.0.1:0"])) as monitor:
            await until(lambda: monitor.status()["summary"]["healthy"] == STORM)
            await service.stop()
            await until(lambda: len(inbox.of("firing")) >= STORM)
            assert Counter(inbox.of("firing")) == Counter(f"s{number}" for number in range(STORM))
            assert inbox.of("resolved") == []
            assert proxy.accepted < STORM / 2
            await until(lambda: all(record.announced for record in monitor.board.records()))


@asynccontextmanager
async def sending(
    url: str, ledger: Ledger, clock: Clock, accepted: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Sender]:
    """Run a sender for a ledger."""
    config = AlertingConfig(alertmanagers=[url])
    sender = Sender(
        url,
        config,
        ledger,
        clock=clock,
        contexts=TlsContexts(),
        generator_url="http://us",
        accepted=accepted,
    )
    async with running(sender):
        yield sender


def down(name: str, since: float) -> Alert:
    """Return an alert."""
    return Alert({"alertname": "ConnectionDown", "name": name}, {"description": "x" * 300}, since)


async def test_a_proxy_that_takes_only_short_requests_gets_several() -> None:
    """nginx, for example, takes a megabyte by default."""
    ledger, clock = Ledger(), SystemClock()
    for number in range(STORM):
        ledger.open(f"s{number}", down(f"s{number}", clock.wall()))
    async with (
        alertmanagers(1) as ((receiver,), (inbox,)),
        front(receiver.port, longest=20_000) as proxy,
        sending(f"http://127.0.0.1:{proxy.port}", ledger, clock) as sender,
    ):
        await until(lambda: len(inbox.of("firing")) >= STORM)
        await until(lambda: sender.healthy)
        assert Counter(inbox.of("firing")) == Counter(f"s{number}" for number in range(STORM))
        assert (sender.sent, sender.failed) == (STORM, 0)
        assert proxy.rejected < proxy.accepted < STORM / 2


async def test_leases_are_renewed_while_other_alerts_change_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise Alertmanager would take the steady ones for resolved."""
    monkeypatch.setattr("connection_exporter.alerting.sender.RESEND_EVERY", 0.2)
    ledger, clock = Ledger(), SystemClock()
    for name in ("steady", "flapping"):
        ledger.open(name, down(name, clock.wall()))
    renewed = 0

    def accepted(name: str) -> None:
        nonlocal renewed
        renewed += name == "steady"

    async with alertmanagers(1) as ((receiver,), _):
        url = f"http://127.0.0.1:{receiver.port}"
        async with sending(url, ledger, clock, accepted) as sender, asyncio.timeout(10):
            while renewed < 4:
                sender.send("flapping")
                await asyncio.sleep(0.005)


@dataclass(frozen=True, slots=True)
class Shifted:
    """The clocks of the machine, of which one is wrong by some seconds."""

    ahead: float

    def monotonic(self) -> float:
        """Return the right time."""
        return SystemClock().monotonic()

    def wall(self) -> float:
        """Return the wrong time."""
        return SystemClock().wall() + self.ahead


@pytest.mark.parametrize("ahead", [-10 * LEASE, 10 * LEASE], ids=["behind", "ahead"])
async def test_a_wrong_clock_neither_hides_an_incident_nor_its_end(ahead: float) -> None:
    """The times of an alert are those of Alertmanager's clock, which every answer tells."""
    async with alertmanagers(1) as ((receiver,), (inbox,)):
        clock, ledger = Shifted(ahead), Ledger()
        async with sending(receiver.url, ledger, clock) as sender:
            await until(lambda: sender.healthy)
            ledger.open("it", down("it", clock.wall()))
            sender.send("it")
            await until(lambda: inbox.of("firing") == ["it"])
            ledger.close("it", clock.wall())
            sender.send("it")
            await until(lambda: inbox.of("resolved") == ["it"])
