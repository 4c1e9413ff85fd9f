"""Slow and hostile clients: each costs little, is not waited for, and keeps nobody else from an answer."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
from web_clients import get, listening, spoken

from exporter.publish import guard

PLAIN = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with listening() as port:
        yield port


@contextmanager
def lowered(name: str, value: float) -> Iterator[None]:
    """Lower a limit, so that reaching it takes no long time."""
    before = getattr(guard, name)
    setattr(guard, name, value)
    try:
        yield
    finally:
        setattr(guard, name, before)


@pytest.mark.parametrize(
    "said",
    [b"", b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"POST /health/force-check HTTP/1.1\r\n"],
    ids=["silent", "half a head", "without end"],
)
async def test_a_client_that_never_finishes_its_request_is_told_and_let_go(port: int, said: bytes) -> None:
    """With 408, whatever it had said by then."""
    with lowered("REQUEST_WITHIN", 0.5):
        began = time.monotonic()
        answer = await spoken(port, said)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
    assert 0.4 < time.monotonic() - began < 5


async def test_dripping_bytes_buys_no_time(port: int) -> None:
    """The time counts from the first byte to the last, not from one to the next (slowloris)."""
    with lowered("REQUEST_WITHIN", 1.0):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = time.monotonic()
        writer.write(b"GET /health HTTP/1.1\r\n")
        reading = asyncio.create_task(reader.read())
        while not reading.done() and time.monotonic() - began < 8:
            writer.write(b"X: y\r\n")
            await asyncio.sleep(0.1)
        assert (await reading).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_body_that_drips_ends_the_connection(port: int) -> None:
    """The answer has been given by then; the rest of the body is not waited for."""
    with lowered("REQUEST_WITHIN", 0.5):
        head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx"
        began = time.monotonic()
        answer = await spoken(port, head)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert time.monotonic() - began < 5


async def test_a_second_request_has_its_own_time(port: int) -> None:
    """A kept connection may be idle for longer than a request may take."""
    with lowered("REQUEST_WITHIN", 0.3):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(PLAIN)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            await reader.readline()
            await asyncio.sleep(0.5)
        writer.write(b"GET /health HTTP/1.1\r\n")
        assert b"HTTP/1.1 408 Request Timeout" in await asyncio.wait_for(reader.read(), 5)
        writer.close()


@pytest.mark.parametrize(
    "said",
    [
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"POST /health/force-check HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + b"a" * 70_000,
    ],
    ids=["path", "header", "headers", "body"],
)
async def test_too_large_a_request_is_refused(port: int, said: bytes) -> None:
    """Without reading on: what comes back is 413, or nothing where the kernel was quicker with its reset."""
    answer = await spoken(port, said)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 200 "))
    assert (await get(port)).status_code == 503


async def test_a_large_header_within_the_limit_is_taken(port: int) -> None:
    """Cookies of a whole domain can come to many kilobytes."""
    assert (await get(port, headers={"Cookie": "a" * 30_000})).status_code == 503


async def test_idle_connections_make_room_for_new_ones(port: int) -> None:
    """The oldest goes first, so that nobody can keep Prometheus out by connecting and saying nothing."""
    async with AsyncExitStack() as stack:
        with lowered("CONNECTIONS", 20):
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
            for _, writer in held:
                stack.callback(writer.close)
            assert (await get(port)).status_code == 503
            first = await asyncio.wait_for(held[0][0].read(), 5)
            assert first == b""
            held[-1][1].write(PLAIN)
            assert (await asyncio.wait_for(held[-1][0].readline(), 5)).startswith(b"HTTP/1.1 503 ")


async def test_a_thousand_clients_that_come_at_once_are_all_answered(port: int) -> None:
    """Connections first, then requests, as from a script that forces a check from each of its workers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("needs 4,096 open files: raise `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    async with AsyncExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(1000)]
        for _, writer in clients:
            stack.callback(writer.close)
            writer.write(PLAIN)
        first = await asyncio.gather(*(reader.readline() for reader, _ in clients))
        assert {line[:13] for line in first} == {b"HTTP/1.1 503 "}


def test_no_more_than_half_of_the_open_files_go_to_clients() -> None:
    """The services under watch need theirs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
        assert guard.most_connections() == 500
        assert guard.most_handshakes() == 250
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_when_all_are_being_answered_the_next_is_told_so() -> None:
    """Streams of events are never idle: they are not cut for somebody else."""
    async with listening() as port, AsyncExitStack() as stack:
        with lowered("CONNECTIONS", 5):
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                stack.callback(writer.close)
                writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            assert b"5 clients are being answered" in await spoken(port, b"")


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT evil:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%ff%fe%00../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET http://evil.example/../config HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /health/service/%0d%0aX-Injected:%201 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST /health/force-check HTTP/1.1\r\nHost: x\r\nOrigin: a\tb\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n",
    ],
    ids=[
        "TLS", "HTTP/0.9", "folded", "smuggled", "connect", "traversal", "absolute", "injected", "origin", "upgrade",
    ],
)  # fmt: skip
async def test_garbled_and_tricky_requests_get_no_more_than_an_error(port: int, said: bytes) -> None:
    """No header of theirs comes back, no traceback, no file; and the next client is answered."""
    with lowered("REQUEST_WITHIN", 1.0):
        answer = await spoken(port, said)
    head = answer.partition(b"\r\n\r\n")[0]
    assert not answer.startswith(b"HTTP/1.1 400 ") or b"application/problem+json" in head
    assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer
    assert b"\r\nX-Injected" not in head
    assert b"root:" not in answer
    assert b"Traceback" not in answer
    assert (await get(port)).status_code == 503


async def test_requests_that_run_ahead_of_their_answers_are_bounded(port: int) -> None:
    """A few in one go are answered in turn; thousands, each of which waits in memory, end the connection."""
    few = await spoken(port, PLAIN * 9 + PLAIN.replace(b"Host: x", b"Connection: close"))
    assert few.count(b"HTTP/1.1 503 ") == 10
    many = await spoken(port, PLAIN * 1500)
    assert many.count(b"HTTP/1.1 ") <= guard.REQUESTS_AHEAD + 1
    assert (await get(port)).status_code == 503


async def test_slow_clients_by_the_hundred_disturb_nobody(port: int) -> None:
    """While two hundred hold half a request each, /metrics and /health are answered as ever."""
    async with AsyncExitStack() as stack:
        for _ in range(200):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            writer.write(b"GET /metrics HTTP/1.1\r\nX: ")
        began = time.monotonic()
        assert (await get(port, "/metrics")).status_code == 200
        assert time.monotonic() - began < 2
