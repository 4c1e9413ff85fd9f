"""TLS sessions are resumed between connections to one service, but no longer than its certificate may go unverified."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net import Endpoint, Network, TlsOptions
from connection_exporter.net.certificate import CERTIFICATE_EXPIRY
from connection_exporter.net.resumption import Resumption
from support.certificates import presenting

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Inside(asyncio.Protocol):
    """Knows when its connection has ended."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


@asynccontextmanager
async def closing_server(
    context: Callable[[], ssl.SSLContext], port: int = 0
) -> AsyncIterator[tuple[int, list[bool]]]:
    """Send a byte to each client and close; yield the port, and whether each handshake resumed a session."""
    resumed: list[bool] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        resumed.append(writer.get_extra_info("ssl_object").session_reused)
        writer.write(b"x")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context())
    async with server:
        yield server.sockets[0].getsockname()[1], resumed


async def connect(endpoint: Endpoint) -> dict[str, object]:
    """Connect, wait for the end of the connection, and return the details."""
    link, inside = await endpoint.connect(Inside)
    await asyncio.wait_for(inside.ended.wait(), 20)
    return dict(endpoint.details(link))


async def connect_until_refused(endpoint: Endpoint) -> None:
    """Connect again and again. Raises the `Failure` that ends it."""
    while True:
        await connect(endpoint)
        await asyncio.sleep(0.1)


def endpoint_of(port: int, ca_file: Path, canary: float | None = 300.0) -> Endpoint:
    tls = TlsOptions(ca_file=ca_file, server_name="localhost")
    return Endpoint(Network(), "127.0.0.1", port, where="it", tls=tls, canary=canary)


def context_of(authority: trustme.CA, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = presenting(authority.issue_cert("localhost"))
    context.maximum_version = version
    return context


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_next_connection_resumes_the_session_of_the_last(
    version: ssl.TLSVersion, authority: trustme.CA, ca_file: Path
) -> None:
    """The details still show the certificate, which a resumed handshake does not send again."""
    async with closing_server(lambda: context_of(authority, version)) as (port, resumed):
        endpoint = endpoint_of(port, ca_file)
        details = [await connect(endpoint) for _ in range(3)]
    assert resumed == [False, True, True]
    assert len({one[CERTIFICATE_EXPIRY] for one in details} - {None}) == 1


async def test_two_services_on_one_server_share_no_session(authority: trustme.CA, ca_file: Path) -> None:
    """Each verifies the certificate itself."""
    async with closing_server(lambda: context_of(authority)) as (port, resumed):
        for _ in range(2):
            await connect(endpoint_of(port, ca_file))
    assert resumed == [False, False]


async def test_each_canary_verifies_the_certificate(authority: trustme.CA, ca_file: Path) -> None:
    """A session is resumed for half the time between two canaries; here, that is no time."""
    async with closing_server(lambda: context_of(authority)) as (port, resumed):
        endpoint = endpoint_of(port, ca_file, canary=0.0)
        for _ in range(2):
            await connect(endpoint)
    assert resumed == [False, False]


async def test_a_server_that_has_lost_its_sessions_gets_a_full_handshake(
    authority: trustme.CA, ca_file: Path
) -> None:
    """A restarted server refuses the session, and its new certificate is verified."""
    async with closing_server(lambda: context_of(authority)) as (port, _):
        endpoint = endpoint_of(port, ca_file)
        await connect(endpoint)
    async with closing_server(lambda: context_of(authority), port) as (_, resumed):
        await connect(endpoint)
    assert resumed == [False]
    async with closing_server(lambda: context_of(trustme.CA()), port):
        with pytest.raises(Failure) as failed:
            await connect(endpoint)
    assert failed.value.reason is Reason.TLS


async def test_a_session_is_resumed_only_while_its_certificate_was_verified_recently() -> None:
    """A chain of resumptions does not prolong that."""
    now = 1000.0
    resumption = Resumption(300.0, clock=lambda: now)
    authority = trustme.CA()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    server = context_of(authority)

    def handshake() -> bool:
        """Return whether a session was resumed, as a connection does it."""
        session, verified_at = resumption.offer(client)
        ours, theirs = connected_pair(client, server, session)
        resumption.keep(ours, verified_at if ours.session_reused else now)
        assert ours.session_reused == theirs.session_reused
        return bool(ours.session_reused)

    seen = []
    for passed in (0.0, 100.0, 149.0, 151.0, 200.0):
        now = 1000.0 + passed
        seen.append(handshake())
    assert seen == [False, True, True, False, True]


def connected_pair(
    client: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Shake hands in memory, and let the server send something, so that its tickets arrive."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname="localhost", session=session)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    left = [ours, theirs]
    while left:
        for end in list(left):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            left.remove(end)
    theirs.write(b"x")
    ours.read(1)
    return ours, theirs


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_certificate_that_expires_is_noticed_at_once(
    version: ssl.TLSVersion, authority: trustme.CA, ca_file: Path
) -> None:
    """The server would go on resuming its sessions. A client without one would be refused from that second on."""
    ends = datetime.now(UTC) + timedelta(seconds=4)
    context = presenting(authority.issue_cert("localhost", not_after=ends))
    context.maximum_version = version
    async with closing_server(lambda: context) as (port, resumed), asyncio.timeout(30):
        endpoint = endpoint_of(port, ca_file)
        with pytest.raises(Failure) as failed:
            await connect_until_refused(endpoint)
    assert failed.value.reason is Reason.TLS
    assert "expired" in failed.value.message
    assert resumed == [False] + [True] * (len(resumed) - 1)
    assert len(resumed) > 1


async def test_a_session_is_not_resumed_after_a_handshake_that_failed(
    authority: trustme.CA, ca_file: Path
) -> None:
    """It may be what the server objects to."""

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    context = context_of(authority)
    async with closing_server(lambda: context) as (port, resumed):
        endpoint = endpoint_of(port, ca_file)
        await connect(endpoint)
        await connect(endpoint)
        assert resumed == [False, True]
    async with await asyncio.start_server(close, "127.0.0.1", port):
        with pytest.raises(Failure):
            await connect(endpoint)
    async with closing_server(lambda: context, port) as (_, resumed):
        await connect(endpoint)
        assert resumed == [False]
