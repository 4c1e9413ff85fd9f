"""Kind redis: how a link ends, what is no Redis, and TLS."""

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from connection_exporter.core.health import Reason
from connection_exporter.demo.ports import free_port
from connection_exporter.kind import Failure
from connection_exporter.monitor.attempt import waited_for
from connection_exporter.net.certificate import CERTIFICATE_EXPIRY
from support import streams
from support.attempts import attempt, held
from support.certificates import presenting
from support.redis_servers import (
    HEALTHY,
    Server,
    StartRedis,
    answering,
    check_of,
    open_files,
    reset,
    run_redis,
)
from support.streams import Handler, serving

start = pytest.fixture(run_redis)


async def test_a_kill_is_noticed_at_once(start: StartRedis) -> None:
    """The end of the server completes `lost` by itself, without a probe."""
    server = start()
    async with held(check_of(server.port)) as (session, _):
        os.kill(server.process.pid, signal.SIGKILL)
        failure = await asyncio.wait_for(session.lost, 30)
        assert failure.reason is Reason.IDLE_CLOSED
        with pytest.raises(Failure) as raised:
            await session.probe()
        assert raised.value.reason is Reason.IDLE_CLOSED


async def test_client_kill_is_an_end_of_the_session(start: StartRedis) -> None:
    """An administrator's CLIENT KILL closes with no words."""
    server = start()
    async with held(check_of(server.port)) as (session, _):
        server.admin("CLIENT", "KILL", "TYPE", "normal")
        assert (await asyncio.wait_for(session.lost, 5)).reason is Reason.IDLE_CLOSED


async def test_a_reset_is_distinguished_from_an_end() -> None:
    """RST and FIN are two reasons."""
    writers: list[asyncio.StreamWriter] = []

    async def _handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await answering(HEALTHY)(reader, writer)

    async with serving(_handle) as port, held(check_of(port)) as (session, _):
        reset(writers[0])
        assert (await asyncio.wait_for(session.lost, 5)).reason is Reason.RESET


async def test_an_end_in_mid_probe_is_raised() -> None:
    """A server that dies between question and answer ends the probe."""

    async def _handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(HEALTHY)
        await reader.read(65536)
        writer.write(b"+PONG\r\n$100\r\nrole")
        await writer.drain()
        writer.transport.abort()

    async with serving(_handle) as port, held(check_of(port)) as (session, _):
        with pytest.raises(Failure) as raised:
            await session.probe()
        assert raised.value.reason is Reason.EOF


async def test_a_stopped_server_is_waited_for_until_the_deadline(start: StartRedis) -> None:
    """The kernel accepts for a stopped server; the message names what was waited for."""
    server = start()
    check = check_of(server.port)
    async with held(check) as (session, _):
        os.kill(server.process.pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError) as raised:
            async with asyncio.timeout(0.2):
                await session.probe()
        assert waited_for(raised.value) is not None
    failure = await attempt(check, timeout=0.2)
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.TIMEOUT
    assert "PING" in failure.message
    failure = await attempt(check_of(server.port, password="x"), timeout=0.2)
    assert isinstance(failure, Failure)
    assert "AUTH" in failure.message


async def test_nobody_listening_is_refused() -> None:
    """No server, no session."""
    failure = await attempt(check_of(free_port()))
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.REFUSED


async def test_a_name_that_does_not_resolve_is_dns() -> None:
    """The Failure of the network is reported as it is."""
    failure = await attempt(check_of(1, host="no-such-name.invalid"))
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.DNS


async def test_cancelled_attempts_leave_nothing_open(start: StartRedis) -> None:
    """Fifty attempts that ran into their deadline, and no file descriptor more than before."""
    server = start()
    check = check_of(server.port, password="x")
    os.kill(server.process.pid, signal.SIGSTOP)
    await attempt(check, timeout=0.3)
    await asyncio.sleep(0.05)
    before = open_files()
    await asyncio.gather(*(attempt(check, timeout=0.5) for _ in range(50)))
    await asyncio.sleep(0.05)
    assert open_files() <= before
    assert len(asyncio.all_tasks()) == 1


async def _closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(65536)  # closed with something unread, it would be a reset
    writer.transport.abort()


async def _says_protected_mode(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"-DENIED Redis is running in protected mode because protected mode is enabled\r\n")
    writer.close()


async def _never_ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"+PONG" * 10_000)
        await writer.drain()


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (_closes, Reason.EOF),
        (_says_protected_mode, Reason.PERMISSION),
        (_never_ends, Reason.PROTOCOL),
        (answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Reason.PROTOCOL),
        (answering(b"\x00\xff\r\n" * 10), Reason.PROTOCOL),
        (answering(b"+OK\r\n+WHAT\r\n$0\r\n\r\n"), Reason.PROTOCOL),
        (answering(b"+OK\r\n$9999999999\r\n"), Reason.TOO_LARGE),
        (answering(b"+OK\r\n$x\r\n"), Reason.PROTOCOL),
        (answering(b"*1\r\n" * 10_000), Reason.PROTOCOL),
        (answering(b"-ERR Protocol error: unbalanced quotes\r\n"), Reason.PROTOCOL),
    ],
)
async def test_another_protocol_than_redis_is_recognized(handler: Handler, reason: Reason) -> None:
    """Closing, garbage, lists without end and answers without bound end the attempt, and nothing grows."""
    async with serving(handler) as port:
        failure = await attempt(check_of(port))
        assert isinstance(failure, Failure)
        assert failure.reason is reason


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\xff\r\n" * 10, b"$x\r\n", b"*1\r\n" * 100]
)
async def test_another_protocol_than_redis_is_recognized_with_a_password(said: bytes) -> None:
    """redis-py hangs up on what it cannot read; that we did so is not the reason."""
    async with serving(answering(said)) as port:
        failure = await attempt(check_of(port, user="me", password="secret"))
        assert isinstance(failure, Failure)
        assert failure.reason is Reason.PROTOCOL
        assert "does not speak Redis' protocol" in failure.message
        assert "secret" not in failure.message


async def test_facts_without_bound_are_cut() -> None:
    """A number of 5,000 digits is no crash, and a version of a megabyte does not go into every answer."""
    info = (
        b"# Server\r\nredis_version:"
        + b"7" * 100_000
        + b"\r\nrole:master\r\nused_memory:"
        + b"9" * 5000
        + b"\r\n"
    )
    said = b"+OK\r\n+PONG\r\n$%d\r\n%b\r\n" % (len(info), info)
    async with serving(answering(said)) as port, held(check_of(port)) as (_, seen):
        assert seen.reason is None
        assert seen.details["server_version"] == "7" * 100


async def test_a_byte_a_second_is_no_answer() -> None:
    """A trickle runs into the deadline."""

    async def _trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in b"+OK\r\n+PONG\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(_trickle) as port:
        assert (await attempt(check_of(port), timeout=0.2)).reason is Reason.TIMEOUT


async def test_words_out_of_turn_end_the_session() -> None:
    """Data that nobody asked for means that question and answer no longer fit together."""

    async def _chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(HEALTHY)(reader, writer)

    writers: list[asyncio.StreamWriter] = []

    async def _handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await _chatter(reader, writer)

    async with serving(_handle) as port, held(check_of(port)) as (session, _):
        writers[0].write(b"+PONG\r\n")
        failure = await asyncio.wait_for(session.lost, 5)
        assert failure.reason is Reason.PROTOCOL


@asynccontextmanager
async def tls_in_front_of(server: Server, context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[str]]]:
    names: list[str] = []
    context.sni_callback = lambda sock, name, _: names.append(str(name))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await streams.join(reader, writer, *await asyncio.open_connection("127.0.0.1", server.port))

    async with serving(handle, tls=context) as port:
        yield port, names


async def test_tls_is_checked_and_asks_by_name(
    start: StartRedis, authority: trustme.CA, ca_file: Path
) -> None:
    """SNI carries the host or `server_name`, the certificate is checked for it, and its expiry is reported."""
    server = start()
    context = presenting(authority.issue_cert("cache.example"))
    async with tls_in_front_of(server, context) as (port, names):
        named = check_of(port, tls={"ca_file": str(ca_file), "server_name": "cache.example"})
        async with held(named) as (session, first):
            assert first.reason is None
            assert float(str(first.details["certificate_expiry_timestamp_seconds"])) > time.time()
            assert float(str(first.details["tls_seconds"])) > 0
            assert first.details["tls_version"] == "TLSv1.3"
            assert names == ["cache.example"]
            os.kill(server.process.pid, signal.SIGKILL)
            assert (await asyncio.wait_for(session.lost, 5)).reason is Reason.IDLE_CLOSED
        wrong_name = await attempt(
            check_of(port, tls={"ca_file": str(ca_file), "server_name": "other.example"})
        )
        assert wrong_name.reason is Reason.TLS
        unknown_authority = await attempt(check_of(port, tls={"server_name": "cache.example"}))
        assert unknown_authority.reason is Reason.TLS


async def test_a_renewed_certificate_is_reported_after_the_next_canary(
    start: StartRedis, authority: trustme.CA, ca_file: Path
) -> None:
    """A session may be held for longer than its certificate is valid, and the renewed one is what counts."""
    renewed = datetime.now(UTC).replace(microsecond=0) + timedelta(days=90)
    context = presenting(authority.issue_cert("localhost"))
    async with tls_in_front_of(start(), context) as (port, _):
        cache = check_of(port, tls={"ca_file": str(ca_file), "server_name": "localhost"})
        async with held(cache) as (session, _):
            authority.issue_cert("localhost", not_after=renewed).configure_cert(context)
            await attempt(cache)
            assert (await session.probe()).details[CERTIFICATE_EXPIRY] == renewed.timestamp()


async def test_tls_towards_a_server_without_it_does_not_pass(start: StartRedis) -> None:
    """Redis waits for the end of what it takes for a command: the handshake is not answered, and that is reported."""
    server = start()
    failure = await attempt(check_of(server.port, tls={}), timeout=2)
    assert isinstance(failure, Failure)
    assert failure.reason in (Reason.TIMEOUT, Reason.TLS, Reason.EOF, Reason.RESET)
