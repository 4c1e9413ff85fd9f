"""Clients that request megabytes and read nothing cost little memory, and keep nobody from a response."""

import asyncio
import socket
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import trustme
from connection_exporter.config import EXAMPLE
from connection_exporter.core.health import Event
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import build
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Report
from connection_exporter.net import Network
from connection_exporter.system.clock import SystemClock
from connection_exporter.web import limits, rendering
from connection_exporter.web.limits import LongResponses, Overloaded
from connection_exporter.web.rendering import Shared
from support.web_clients import Program, program, until

SERVICES = 700
"""About 3 MB of metrics."""
GROWTH = 64
"""MiB that an attack may add: measured were 3 to 36, depending on the version of uvloop; 300 copies would be 900."""


@asynccontextmanager
async def large_board(folder: Path, *flags: str) -> AsyncIterator[Program]:
    """Run an exporter of many processes that do not exist."""
    lines = (
        f"  service_{number}: {{kind: process, pidfile: /nonexistent/{number}.pid, interval: 10m, retry_delay: 5m,"
        " max_retry_delay: 10m}"
        for number in range(SERVICES)
    )
    async with program(folder, "services:\n" + "\n".join(lines) + "\n", *flags) as running:
        yield running


async def scraped(port: int, *, tls: ssl.SSLContext | None = None) -> int:
    """Return the size of /metrics, retrying as Prometheus does."""
    url = f"https://localhost:{port}/metrics" if tls else f"http://127.0.0.1:{port}/metrics"
    async with httpx.AsyncClient(timeout=30, verify=tls or False) as client:
        for _ in range(20):
            answer = await client.get(url, headers={"Accept-Encoding": "identity"})
            if answer.status_code == 200:
                return len(answer.content)
            assert answer.status_code == 503
            await asyncio.sleep(float(answer.headers["retry-after"]))
    raise AssertionError("never answered")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("path", ["/metrics", "/health/detailed", "/events", "/config"])
async def test_three_hundred_clients_that_read_nothing_share_their_memory(tmp_path: Path, path: str) -> None:
    """The board is rendered once for all; who comes after them is answered; the memory is released."""
    async with large_board(tmp_path) as running, AsyncExitStack() as stack:
        assert await scraped(running.port) > 1_000_000
        before = await running.settled()
        for _ in range(300):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            stack.callback(writer.close)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await asyncio.sleep(2)
        during = running.resident()
        assert during - before < GROWTH
        assert await scraped(running.port) > 1_000_000
        await stack.aclose()
        assert await running.settled() - before < GROWTH


def tls_client(port: int, trusting: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a client that has made its handshake, and whose calls do not block from then on."""
    client = trusting.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
    client.setblocking(False)
    return client


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        (b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000) * 4,
    ],
    ids=["large responses", "large requests"],
)
async def test_tls_clients_that_read_nothing_cost_little_memory(tmp_path: Path, request_bytes: bytes) -> None:
    """Neither the encrypted copies of a response nor OpenSSL's buffers add up, and the memory is released."""
    authority = trustme.CA()
    made = authority.issue_cert("localhost")
    made.private_key_pem.write_to_path(str(tmp_path / "server.key"))
    made.cert_chain_pems[0].write_to_path(str(tmp_path / "server.pem"))
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: server.pem, key_file: server.key}\n")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with (
        large_board(tmp_path, f"--web.config.file={tmp_path / 'web.yml'}") as running,
        AsyncExitStack() as stack,
    ):
        assert await scraped(running.port, tls=trusting) > 1_000_000
        before = await running.settled()
        for _ in range(200):
            client = await asyncio.to_thread(tls_client, running.port, trusting)
            stack.callback(client.close)
            with suppress(ssl.SSLWantWriteError):
                client.send(request_bytes)
        await asyncio.sleep(2)
        assert running.resident() - before < GROWTH
        assert await scraped(running.port, tls=trusting) > 1_000_000
        await stack.aclose()
        assert await running.settled() - before < GROWTH


async def test_no_more_than_a_few_long_responses_are_sent_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more waits for a second, and takes the place of one that has been taking for too long."""
    monkeypatch.setattr(limits, "LONG_RESPONSES", 2)
    monkeypatch.setattr(limits, "_WAIT", 0.2)

    class Client:
        aborted = False

        def abort(self) -> None:
            self.aborted = True

    long_responses, clients = LongResponses(), [Client() for _ in range(4)]
    async with long_responses.sending(clients[0]), long_responses.sending(clients[1]):
        assert long_responses.active
        with pytest.raises(Overloaded):
            async with long_responses.sending(clients[2]):
                raise AssertionError
        assert not clients[0].aborted
        monkeypatch.setattr(limits, "_SLOW_AFTER", 0.0)
        async with long_responses.sending(clients[3]):
            assert [client.aborted for client in clients] == [True, False, False, False]
    assert not long_responses.active


async def test_different_renderings_that_are_being_sent_are_bounded_in_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same one costs nothing more, and a single one may have any size."""
    monkeypatch.setattr(limits, "RENDERINGS", 10)
    monkeypatch.setattr(limits, "_WAIT", 0.2)

    class Client:
        def abort(self) -> None:
            raise AssertionError

    sending = LongResponses().sending
    small, other, large = [b"12345"], [b"67890"], [b"x" * 20]
    async with sending(Client(), small), sending(Client(), small), sending(Client(), other):
        async with sending(Client(), other):
            pass
        with pytest.raises(Overloaded):
            async with sending(Client(), [b"1"]):
                raise AssertionError
    async with sending(Client(), large), sending(Client(), large):
        pass


async def test_a_client_that_waits_gets_the_place_that_becomes_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of quick clients is served without an error."""
    monkeypatch.setattr(limits, "LONG_RESPONSES", 1)
    long_responses, order = LongResponses(), []

    class Client:
        def abort(self) -> None:
            raise AssertionError

    async def take(number: int) -> None:
        async with long_responses.sending(Client()):
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(take(number) for number in range(20)))
    assert sorted(order) == list(range(20))


async def test_a_response_that_is_not_taken_in_time_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly the client drips."""
    monkeypatch.setattr(limits, "SEND_WITHIN", 0.05)
    aborted = asyncio.Event()

    class Client:
        def abort(self) -> None:
            aborted.set()

    async with LongResponses().sending(Client()):
        async with asyncio.timeout(10):
            await aborted.wait()


class Renderings:
    """Counts renderings of a board with one service."""

    def __init__(self, board: Board) -> None:
        self.made = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self.shared = Shared(board, self._render)

    async def _render(self) -> int:
        self.made += 1
        made = self.made
        await self.hold.wait()
        return made


def one_service() -> Board:
    return Board(build(load_text(EXAMPLE).services, Network())[:1], SystemClock())


async def test_the_board_knows_how_many_responses_are_being_rendered() -> None:
    """Also after one that fails."""
    board = one_service()
    renderings = Renderings(board)
    renderings.hold.clear()
    answer = asyncio.create_task(renderings.shared.get(busy=False))
    await until(lambda: renderings.made == 1)
    assert board.renderings == 1
    renderings.hold.set()
    await answer
    assert board.renderings == 0

    async def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await Shared(board, fail).get(busy=False)
    assert board.renderings == 0


@pytest.mark.parametrize(
    ("others", "fewest", "most"),
    [(0.0, 15, 60), (0.006, 7, 10), (1.0, 1, 2)],
    ids=["an idle loop", "a busy loop", "a loop that is far behind"],
)
async def test_a_slice_is_as_long_as_the_other_work_of_the_loop(
    others: float, fewest: int, most: int
) -> None:
    """A rendering gets half of the CPU, and still leaves the loop after 50 ms."""
    loop = asyncio.get_running_loop()
    now = 0.0
    pauses = 0

    def work() -> None:
        nonlocal now, pauses
        now, pauses = now + others, pauses + 1
        other.append(loop.call_soon(work))

    other = [loop.call_soon(work)]
    slices = rendering.Slices(one_service(), lambda: now)
    for _ in range(60):
        now += 0.001
        await slices.pause_if_due()
    other[-1].cancel()
    assert fewest <= pauses <= most


async def test_a_rendering_lets_services_that_fail_go_first() -> None:
    """The losses of 1,000 sessions come first, but it waits for no more than a tenth of a second."""
    board, loop = one_service(), asyncio.get_running_loop()
    now = 0.0
    losses: list[int] = []

    def lose(left: int) -> None:
        nonlocal now
        now += 0.01
        board.put(board.names[0], Report(Event.ANSWERED_GOOD))
        board.put(board.names[0], Report(Event.LOST))
        losses.append(left)
        if left > 1:
            loop.call_soon(lose, left - 1)

    slices = rendering.Slices(board, lambda: now)
    loop.call_soon(lose, 6)
    await slices.pause()
    assert len(losses) == 6, "all of these came first"
    loop.call_soon(lose, 100)
    await slices.pause()
    assert 9 <= len(losses) <= 12, "it has waited for long enough now"
    await slices.pause()
    assert len(losses) <= 13


async def test_a_rendering_does_not_wait_for_services_that_recover() -> None:
    """Or it would wait for as long while 1,000 reconnect."""
    board = Board(build(load_text(EXAMPLE).services, Network()), SystemClock())
    loop, recovered = asyncio.get_running_loop(), 0

    def recover(names: list[str]) -> None:
        nonlocal recovered
        board.put(names[0], Report(Event.ANSWERED_GOOD))
        recovered += 1
        if len(names) > 1:
            loop.call_soon(recover, names[1:])

    assert len(board.names) > 3
    loop.call_soon(recover, [*board.names])
    slices = rendering.Slices(board)
    for count in (1, 2, 3):
        await slices.pause()
        assert recovered == count


async def test_those_who_ask_together_share_one_rendering() -> None:
    """While it is made, and for a second after it if the server is busy."""
    renderings = Renderings(one_service())
    assert set(await asyncio.gather(*(renderings.shared.get(busy=False) for _ in range(50)))) == {1}
    assert await renderings.shared.get(busy=True) == 1
    assert await renderings.shared.get(busy=False) == 2


async def test_a_scrape_after_a_transition_shows_it_even_while_another_rendering_is_made() -> None:
    """All who ask from then on share the next rendering, however many transitions follow."""
    board = one_service()
    renderings = Renderings(board)
    renderings.hold.clear()
    first = asyncio.create_task(renderings.shared.get(busy=True))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert renderings.made == 1
    later = []
    for event in (Event.BEGUN, Event.ANSWERED_GOOD, Event.STOPPED):
        board.put(board.names[0], Report(event))
        later.append(asyncio.create_task(renderings.shared.get(busy=True)))
        await asyncio.sleep(0)
    renderings.hold.set()
    assert await first == 1
    assert set(await asyncio.gather(*later)) == {2}


async def test_only_a_busy_server_shares_a_rendering_that_lacks_the_last_check() -> None:
    """A check that changes no status can wait for a second then."""
    board = one_service()
    renderings = Renderings(board)
    board.put(board.names[0], Report(Event.ANSWERED_GOOD))
    assert await renderings.shared.get(busy=True) == 1
    board.put(board.names[0], Report(Event.ANSWERED_GOOD))
    assert await renderings.shared.get(busy=True) == 1
    assert await renderings.shared.get(busy=False) == 2


async def test_a_client_that_goes_away_does_not_end_the_rendering_of_the_others() -> None:
    """And a rendering that fails is not kept."""
    renderings = Renderings(one_service())
    renderings.hold.clear()
    gone, stays = (asyncio.create_task(renderings.shared.get(busy=False)) for _ in range(2))
    await asyncio.sleep(0.01)
    gone.cancel()
    renderings.hold.set()
    assert await stays == 1


async def test_a_large_board_is_rendered_a_few_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever changes: the next second has the next renderings, and no old one stays in memory."""
    monkeypatch.setattr(rendering, "_SERVICES_RENDERED", 4)
    monkeypatch.setattr(rendering, "_FRESH", 60.0)
    board = one_service()
    renderings = Renderings(board)
    seen = []
    for event in (Event.BEGUN, Event.ANSWERED_GOOD, Event.STOPPED) * 5:
        board.put(board.names[0], Report(event))
        seen.append(await renderings.shared.get(busy=False))
    assert seen == [1, 2, 3, *[4] * 12]
    monkeypatch.setattr(rendering, "_FRESH", 0.0)
    assert await renderings.shared.get(busy=False) == 5


async def test_a_rendering_that_is_out_of_date_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the next one begins, and a second after the last."""

    class Large:
        pass

    async def render() -> Large:
        return Large()

    board = one_service()
    shared = rendering.Shared(board, render)
    first = weakref.ref(await shared.get(busy=False))
    board.put(board.names[0], Report(Event.BEGUN))
    monkeypatch.setattr(rendering, "_FRESH", 0.01)
    second = weakref.ref(await shared.get(busy=False))
    await until(lambda: first() is None)
    await until(lambda: second() is None)
