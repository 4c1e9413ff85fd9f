"""Slow and hostile clients: each costs little, is not waited for, and keeps nobody else from an answer."""

import asyncio
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress

import pytest
from connection_exporter.web import connection, limits
from support.hostile import ITERATION_LIMIT, assert_iterations_are_short
from support.web_clients import get, listening, spoken

PLAIN = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
HEALTHY = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with listening() as port:
        yield port


@contextmanager
def lowered(name: str, value: float) -> Iterator[None]:
    """Lower a limit, so that reaching it takes no long time."""
    module = connection if hasattr(connection, name) else limits
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@pytest.mark.parametrize(
    "said",
    [b"", b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"POST /health/force-check HTTP/1.1\r\n"],
    ids=["silent", "half a head", "without end"],
)
async def test_a_client_that_never_finishes_its_request_is_answered_and_closed(
    port: int, said: bytes
) -> None:
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
        assert limits.most_connections() == 500
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_streams_of_events_leave_half_of_the_connections_to_others() -> None:
    """They are never idle, so they are not aborted for another client; there are only so many of them."""
    async with listening() as port, AsyncExitStack() as stack:
        with lowered("CONNECTIONS", 8):
            first: list[bytes] = []
            for _ in range(8):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                stack.callback(writer.close)
                writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
                first.append((await reader.readline())[9:12])
            assert first == [b"200"] * 4 + [b"503"] * 4
            for path in ("/metrics", "/-/healthy"):
                assert (await get(port, path)).status_code == 200


async def test_health_routes_have_connections_that_no_other_request_can_take() -> None:
    """A quarter, at most 32. Here, six of eight connections wait for a forced check that a server does not answer."""
    silent = socket.create_server(("127.0.0.1", 0))  # the kernel accepts, nobody answers
    address = silent.getsockname()[1]
    config = f"services:\n  it: {{kind: redis, port: {address}, timeout: 8s, interval: 10m}}\n"
    async with listening(config=config) as port, AsyncExitStack() as stack:
        stack.callback(silent.close)
        with lowered("CONNECTIONS", 8):
            for _ in range(6):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                stack.callback(writer.close)
                writer.write(b"POST /health/force-check HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.sleep(0.3)
            refused = await get(port, "/metrics")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            for path in ("/-/healthy", "/-/ready", "/health"):
                answer = await get(port, path)
                assert "as the limits allow" not in answer.text, path


async def test_half_a_pipelined_request_has_ten_seconds_like_any_other(port: int) -> None:
    """It begins in the same packet as the end of the request before it."""
    with lowered("REQUEST_WITHIN", 0.5):
        answer = await spoken(port, PLAIN + b"GET /health HTTP/1.1\r\nHost:")
    assert answer.count(b"HTTP/1.1 503 ") == 1
    assert b"HTTP/1.1 408 " in answer


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        (HEALTHY, 1),
        (HEALTHY * 5, 5),
        (HEALTHY.replace(b"/-/healthy", b"/metrics"), 1),
        (HEALTHY + b"GET /-/heal", 1),
        (HEALTHY + b"BAD\r\n\r\n", 1),
        (b"", 0),
        (b"GET /-/heal", 0),
    ],
    ids=["one", "five", "long", "one and a half", "one and nonsense", "none", "half"],
)
async def test_a_client_that_sends_nothing_more_is_answered_and_closed(
    port: int, said: bytes, answers: int
) -> None:
    """As `nc -N` does, and busybox's nc."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    writer.write_eof()
    async with asyncio.timeout(5):
        got = await reader.read()
    writer.close()
    assert got.count(b"HTTP/1.1 200 OK\r\n") == answers


async def test_half_a_request_ends_no_response_that_is_in_progress() -> None:
    """The request before it waits for a forced check for longer than a request may take to arrive."""
    silent = socket.create_server(("127.0.0.1", 0))  # the kernel accepts, nobody answers
    keys = f"kind: redis, port: {silent.getsockname()[1]}, timeout: 2s, interval: 10m"
    async with listening(config=f"services:\n  it: {{{keys}}}\n") as port:
        with lowered("REQUEST_WITHIN", 0.3):
            said = b"POST /health/force-check HTTP/1.1\r\nHost: x\r\n\r\nGET /"
            answer = await spoken(port, said)
    silent.close()
    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 429 ")), answer[:100]


def head(*lines: str, version: str = "1.1", path: str = "/-/healthy", method: str = "GET") -> bytes:
    """Return a request with these header lines."""
    return "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/{version}", *lines, "")).encode(
        "latin-1"
    )


CHUNKED = ("Host: x", "Transfer-Encoding: chunked")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (head(), 400),
        (head("Host: x", "Host: x"), 400),
        (head("Host: a b"), 400),
        (head("Host: a@b"), 400),
        (head("Host:", "Connection: close"), 200),
        (head("Host: [::1]:8000", "Connection: close"), 200),
        (head("Host: x", *(f"X-{number}: y" for number in range(300))), 400),
        (head(version="1.0"), 200),
        (head("Host: x", "Host: y", version="1.0"), 400),
        (head("Host: x", path="http://evil.example/-/healthy"), 200),
        (head("Host: x", path="http://evil.example/../config"), 404),
        (head("Host: x", "X: a", " b"), 400),
        (head("Host: x", "X : a"), 400),
        (head("Host: x", "X\x00: a"), 400),
        (head("Host: x", "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
        (head("Host: x", "Content-Length: 5", "Content-Length: 6") + b"abcdef", 400),
        (head("Host: x", "Content-Length: -1"), 400),
        (head("Host: x", "Content-Length: +5") + b"abcde", 400),
        (head("Host: x", "Transfer-Encoding: gzip"), 400),
        (head(*CHUNKED, method="POST", path="/nowhere") + b"zz\r\n", (400, 404)),
        (head(*CHUNKED, method="POST", path="/nowhere") + b"5\r\nabcdefgh\r\n0\r\n\r\n", (400, 404)),
        (head("Host: x", method="BREW"), 400),
        (head("Host: x", method="DELETE"), 405),
        (head("Host: x", method="TRACE"), 405),
        (head("Host: x", method="CONNECT", path="evil:443"), 400),
        (head("Host: x", method="OPTIONS", path="*"), (400, 404, 405)),
        (head("Host: x", version="3.0"), 400),
        (b"GET /-/healthy\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (head("Host: x", path="/%ff%fe%00../../etc/passwd"), 404),
        (head("Host: x", path="/health/service/%0d%0aX-Injected:%201"), 404),
        (head("Host: x", "Origin: a\tb", method="POST", path="/health/force-check"), 403),
        (head("Host: x", "Upgrade: websocket", "Connection: Upgrade, close"), 200),
        (head("Host: x", "Expect: 100-continue"), 200),
        (head("Host: x", path="/health/service/" + "a" * 60_000), 404),
        (head("Host: x", path="/-/healthy?" + "a=b&" * 15_000), 200),
    ],
)
async def test_odd_requests_get_a_sane_status(port: int, said: bytes, status: int | tuple[int, ...]) -> None:
    """As RFC 9112 says. No header of theirs comes back, no traceback, no file; and the next client is served."""
    with lowered("REQUEST_WITHIN", 1.0):
        answer = await spoken(port, said.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n", 1))
    start, _, _ = answer.partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 "), answer
    assert int(answer[9:12]) in (status if isinstance(status, tuple) else (status,)), answer[:300]
    assert not answer.startswith(b"HTTP/1.1 4") or b"application/problem+json" in start
    assert b"\r\nX-Injected" not in start
    assert b"root:" not in answer
    assert b"Traceback" not in answer
    assert (await get(port)).status_code == 503


async def test_a_refused_client_can_read_why_while_it_still_sends(port: int) -> None:
    """A socket closed with unread data sends a reset, which would discard our response on its way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
    for _ in range(40):
        writer.write(b"a" * 4096)
        await asyncio.sleep(0)
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_the_event_loop_stays_responsive_under_every_attack(port: int) -> None:
    """Nothing that a client sends takes more than 10 ms of the loop's CPU at once."""
    await asyncio.to_thread(_attack, port, rounds=1)  # what is imported at the first request
    await assert_iterations_are_short(lambda: asyncio.to_thread(_attack, port))
    assert (await get(port, "/-/healthy")).status_code == 200


async def test_what_many_clients_send_at_once_does_not_add_up(port: int) -> None:
    """All clients share one turn of the event loop, as all services do. Parsed as it comes, this takes 40 ms."""
    chunks = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 10_000

    def attack() -> None:
        with ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
                for _ in range(200)
            ]
            for client in clients:
                with suppress(OSError):
                    client.sendall(chunks)
            for client in clients:
                with suppress(OSError):
                    client.recv(1)

    await asyncio.to_thread(attack)  # what is imported at the first request
    # The machine is busy with the clients: on two cores with a load of 5, ten milliseconds became 16.
    await assert_iterations_are_short(lambda: asyncio.to_thread(attack), limit=2 * ITERATION_LIMIT)


def _attack(port: int, rounds: int = 10) -> None:
    """Send all at once: pipelined requests, bytes one by one, reconnecting streams, odd methods."""
    pieces = [
        PLAIN * 1500,
        head("Host: x", method="HEAD", path="/metrics") * 100,
        head("Host: x", path="/events") * 3,
        head("Host: x", path="/?" + "a" * 60_000),
        head("Host: x", method="BREW"),
        b"\r\n" * 30_000,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 10_000,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 12_000,
    ]
    for _ in range(rounds):
        for piece in pieces:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                sock.sendall(piece)
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head("Host: x", path="/" + "a" * 10_000):
            sock.send(bytes((byte,)))


async def test_requests_that_run_ahead_of_their_answers_are_bounded(port: int) -> None:
    """A few in one go are answered in turn; thousands, each of which waits in memory, end the connection."""
    few = await spoken(port, PLAIN * 9 + PLAIN.replace(b"Host: x", b"Host: x\r\nConnection: close"))
    assert few.count(b"HTTP/1.1 503 ") == 10
    many = await spoken(port, PLAIN * 1500)
    assert many.count(b"HTTP/1.1 ") <= connection.REQUESTS_AHEAD + 1
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
        assert time.monotonic() - began < 9, "it waited for the slow requests, which take 10 s"
