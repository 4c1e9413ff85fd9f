"""GET /events reports each change immediately, over a real server, and no client can disturb another."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from connection_exporter.core.health import Event
from connection_exporter.demo.ports import free_port
from connection_exporter.kind import Service
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import build
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Report
from connection_exporter.net import Network
from connection_exporter.system.clock import SystemClock
from connection_exporter.web.events import TRANSITIONS_KEPT, Events
from connection_exporter.web.server import WebServer, bind
from starlette.applications import Starlette
from starlette.routing import Route
from support.live import QUICK, Web, exporter, web


@dataclass(frozen=True, slots=True)
class Notice:
    """An event as a client has it; a comment is an event of no name."""

    event: str
    id: str
    data: Any


class Reader:
    """A client of /events."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def next(self) -> Notice:
        """Return the next event. Raises StopAsyncIteration at the end of the stream."""
        fields: dict[str, str] = {}
        while line := await asyncio.wait_for(anext(self._lines), 10):
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        if "data" not in fields:
            return await self.next() if "retry" in fields else Notice("", "", fields[""])
        return Notice(fields["event"], fields["id"], json.loads(fields["data"]))

    async def until(self, event: str, **values: object) -> Notice:
        """Return the next event of a kind whose data has these values."""
        while True:
            reported = await self.next()
            if reported.event == event and values.items() <= reported.data.items():
                return reported

    async def end(self) -> None:
        """Read until the server ends the stream, or, if we are too slow for it, the connection."""
        with suppress(StopAsyncIteration, httpx.ReadError, httpx.RemoteProtocolError):
            while True:
                await self.next()


@asynccontextmanager
async def follow(url: str, last_id: str | None = None) -> AsyncIterator[Reader]:
    """Open a stream, as a browser does that reconnects with the id it saw last."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("GET", f"{url}/events", headers=headers) as answer,
    ):
        yield Reader(answer)


async def ask(method: str, url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        return await client.request(method, url)


class Served:
    """A board that nothing but the test writes on, and its events on a real server."""

    def __init__(self, count: int = 1, **options: Any) -> None:
        self.services: list[Service] = services(count)
        self.board = Board(self.services, SystemClock())
        self.events = Events(self.board, **options)
        self.sockets = bind(["127.0.0.1:0"])
        self.server = WebServer(Starlette(routes=[Route("/events", self.events.stream)]), self.sockets)
        self.url = f"http://127.0.0.1:{self.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self.events.run()), asyncio.create_task(self.server.serve())]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.events.close()
        self.server.stop()
        self._tasks[0].cancel()
        await asyncio.wait(self._tasks)

    def flap(self, name: str = "s0") -> None:
        """Make two transitions."""
        self.board.put(name, Report(Event.ANSWERED_GOOD))
        self.board.put(name, Report(Event.ANSWERED_BAD))


def services(count: int) -> list[Service]:
    lines = "".join(f"  s{number}: {{kind: http, url: 'http://127.0.0.1:1/'}}\n" for number in range(count))
    return build(load_text(f"services:\n{lines}", source="test").services, Network())


def number_of(reported: Notice) -> int:
    return int(reported.id.rpartition("-")[2])


def api(service: Web) -> str:
    return f"api: {{kind: http, url: 'http://127.0.0.1:{service.port}/', {QUICK}}}"


async def test_the_board_comes_first_and_then_each_transition_of_a_real_fault() -> None:
    """A fault is sent with its reason, and so is the recovery; ids ascend."""
    async with web() as service, exporter(api(service)) as (url, _), follow(url) as reader:
        assert reader.answer.headers["content-type"].startswith("text/event-stream")
        assert reader.answer.headers["cache-control"] == "no-store"
        board = await reader.next()
        assert board.event == "board"
        assert board.data.keys() == (await ask("GET", f"{url}/health/detailed")).json().keys()
        await reader.until("service", status="healthy")
        await service.stop()
        lost = await reader.until("transition", to="disconnected")
        assert list(lost.data) == ["name", "kind", "at", "from", "to", "reason", "message"]
        assert (lost.data["name"], lost.data["kind"], lost.data["reason"]) == ("api", "http", "refused")
        overall = await reader.until("overall", status="partial")
        await service.start()
        back = await reader.until("transition", to="healthy")
        assert number_of(board) < number_of(lost) < number_of(overall) < number_of(back)


async def test_a_cause_that_comes_and_goes_is_sent_without_a_transition_of_the_service() -> None:
    """The service stays unhealthy: first on its own account, then because of the database, then on its own again."""
    async with web() as database, web() as service:
        service.status = "500 No"
        lines = f"database: {{kind: http, url: 'http://127.0.0.1:{database.port}/', {QUICK}}}\n"
        depends = (
            f"api: {{kind: http, url: 'http://127.0.0.1:{service.port}/', depends_on: [database], {QUICK}}}"
        )
        async with exporter(lines + depends) as (url, monitor), follow(url) as reader:
            await until(lambda: monitor.status()["services"]["database"]["status"] == "healthy")
            await reader.until("service", name="api", status="unhealthy", causes=[])
            since = monitor.status()["services"]["api"]["status_since"]
            await database.stop()
            await reader.until("service", name="api", status="unhealthy", causes=["database"])
            await database.start()
            alone = await reader.until("service", name="api", status="unhealthy", causes=[])
            assert alone.data["status_since"] == since


async def test_a_client_that_reconnects_receives_the_events_it_missed() -> None:
    """With the id it saw last it gets the transitions since then, and the states, but no board."""
    async with web() as service, exporter(api(service)) as (url, monitor):
        async with follow(url) as reader:
            seen = await reader.until("service", status="healthy")
        await service.stop()
        await until(lambda: monitor.status()["services"]["api"]["status"] == "disconnected")
        async with follow(url, seen.id) as reader:
            missed = [await reader.next() for _ in range(2)]
            assert "board" not in {reported.event for reported in missed}
            assert await reader.until("service", status="disconnected")


@pytest.mark.parametrize("last_id", ["1-1", "nonsense", "-", "9" * 400, "1-²", "{run}-999999"])
async def test_an_id_of_another_process_begins_anew(last_id: str) -> None:
    """Whatever it is that a client sends: if it is not ours, it gets the board."""
    async with Served() as served:
        async with follow(served.url) as reader:
            run = (await reader.next()).id.partition("-")[0]
        async with follow(served.url, last_id.replace("{run}", run).replace("²", "2")) as reader:
            assert (await reader.next()).event == "board"


async def test_an_id_that_is_too_old_begins_anew() -> None:
    """Transitions are kept up to a number; who has missed more gets the board."""
    async with Served() as served:
        async with follow(served.url) as reader:
            first = await reader.next()
            served.flap()
            second = await reader.until("transition", to="unhealthy")
        for _ in range(TRANSITIONS_KEPT // 2):
            served.flap()
        async with follow(served.url, first.id) as reader:
            assert (await reader.next()).event == "board"
        async with follow(served.url, second.id) as reader:
            replayed = [await reader.until("transition") for _ in range(TRANSITIONS_KEPT)]
            numbers = [number_of(reported) for reported in replayed]
            assert numbers == sorted(set(numbers))


async def test_states_are_sent_once_a_second_and_transitions_each_time() -> None:
    """A service that flaps a hundred times a second does not flood the page with its state."""
    async with Served() as served, follow(served.url) as reader:
        await reader.next()
        seen: list[Notice] = []

        async def read() -> None:
            while True:
                seen.append(await reader.next())

        reading = asyncio.create_task(read())
        for _ in range(200):
            served.flap()
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        reading.cancel()
        await asyncio.wait({reading})
        assert sum(reported.event == "transition" for reported in seen) == 400
        assert 2 <= sum(reported.event == "service" for reported in seen) <= 4


async def test_a_client_that_stops_reading_is_dropped_and_disturbs_nobody() -> None:
    """The kernel gives it up; until then it costs a position. Another client sees every transition meanwhile."""
    async with Served(count=400) as served:
        # Connections inherit these: a second instead of thirty, and small buffers so that they are full at once.
        served.sockets[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)
        served.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect(served.sockets[0].getsockname())
            stuck.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            async with follow(served.url) as reader:
                await reader.next()
                await until(lambda: served.events.clients == 2)
                for _ in range(50):
                    served.flap()
                    await reader.until("transition")
                    await reader.until("transition")
                await until(lambda: served.events.clients == 1)
                served.flap()
                assert await reader.until("transition")


async def test_a_client_that_is_far_behind_gets_the_board_again() -> None:
    """Nothing is queued for it: when it reads on, what it has is true."""
    async with Served() as served:
        stream = served.events.follow(None)
        async with asyncio.timeout(10):
            assert (await anext(stream)).startswith(b"retry: ")
            assert (await anext(stream)).startswith(b"event: board")
            for _ in range(TRANSITIONS_KEPT):
                served.flap()
            while not (piece := await anext(stream)).startswith(b"event: "):
                pass
            assert piece.startswith(b"event: board")
        await stream.aclose()


async def test_there_is_a_limit_to_clients() -> None:
    """One too many gets 503 and Retry-After; when another has left, there is room."""
    async with Served(clients=1) as served:
        async with follow(served.url) as reader:
            await reader.next()
            answer = await ask("GET", f"{served.url}/events")
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
        await until(lambda: served.events.clients == 0)
        async with follow(served.url) as reader:
            assert (await reader.next()).event == "board"


async def test_silence_is_broken_by_a_comment() -> None:
    """So that a client notices a link that died without a word."""
    async with Served(beat=0.05) as served, follow(served.url) as reader:
        while (reported := await reader.next()).event:
            pass
        assert reported.data == "beat"


async def test_services_that_come_and_go_bring_a_new_board() -> None:
    """After a reload every client knows which services there are."""
    async with Served() as served, follow(served.url) as reader:
        assert list((await reader.next()).data["services"]) == ["s0"]
        served.board.add(services(2)[1])
        assert list((await reader.until("board")).data["services"]) == ["s0", "s1"]
        served.board.remove("s0")
        assert list((await reader.until("board")).data["services"]) == ["s1"]


async def test_head_ends() -> None:
    """A question about the headers does not hold a place."""
    async with Served() as served:
        answer = await ask("HEAD", f"{served.url}/events")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert served.events.clients == 0


async def test_what_happens_while_the_board_is_sent_is_sent_after_it() -> None:
    """The board is sent in pieces, each as the board is by then, so a slow client keeps none of it in memory."""
    served = Served(3000)
    stream = served.events.follow(None)
    assert await anext(stream) == b"retry: 2000\n\n"
    pieces = [await anext(stream) for _ in range(3)]
    served.flap()
    while b"event: transition" not in pieces[-1]:
        pieces.append(await anext(stream))
    await stream.aclose()
    assert max(map(len, pieces)) < 100_000
    board, _, later = b"".join(pieces).decode().partition("\n\n")
    assert len(json.loads(board.partition("data: ")[2])["services"]) == 3000
    assert later.count("event: transition") == 2
    served.events.close()
    for sock in served.sockets:
        sock.close()


async def test_sigterm_ends_every_stream_at_once(tmp_path: Path) -> None:
    """The process exits with 0 within two seconds, though one client reads and another has stopped reading."""
    config = tmp_path / "config.yml"
    lines = "".join(f"  s{number}: {{kind: http, url: 'http://127.0.0.1:1/'}}\n" for number in range(400))
    config.write_text(f"services:\n{lines}")
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "connection_exporter",
        f"--config.file={config}",
        f"--web.listen-address=127.0.0.1:{port}",
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        await until(lambda: listens(port))
        async with follow(f"http://127.0.0.1:{port}") as reader:
            await reader.until("board")
            with socket.socket() as stuck:
                stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                stuck.connect(("127.0.0.1", port))
                stuck.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
                await asyncio.sleep(0.5)
                process.send_signal(signal.SIGTERM)
                await reader.end()
                assert await asyncio.wait_for(process.wait(), 2) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


async def until(condition: Any) -> None:
    deadline = asyncio.get_running_loop().time() + 15
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)
