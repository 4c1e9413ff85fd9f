"""The way through an HTTP proxy: what becomes of a proxy that is absent, silent, hostile, or wants a login."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net import Network, Proxy, TlsOptions
from connection_exporter.net.dial import Link
from connection_exporter.net.proxy import _Opening
from support import streams
from support.attempts import outcome
from support.hostile import assert_iterations_are_short, flooding
from support.http_proxy import http_proxy


def proxy(port: int, authorization: str | None = None, host: str = "127.0.0.1") -> Proxy:
    async def login() -> str | None:
        return authorization

    return Proxy(host, port, login)


class Collector(asyncio.Protocol):
    """What is at the end of the tunnel: collects what arrives."""

    def __init__(self) -> None:
        self.received = b""
        self.arrived = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.arrived.set()


@dataclass(frozen=True)
class Tunnel:
    link: Link
    transport: asyncio.Transport
    inside: Collector


async def tunnel(
    port: int, *, host: str = "127.0.0.1", seconds: float = 5, to: int = 1, tls: TlsOptions | None = None
) -> Tunnel | Failure:
    """Return the tunnel, or why there is none, as an attempt would report it."""
    server = proxy(port, host=host)._replace(tls=tls)
    opened = await outcome(server.tunnel(Network(), "127.0.0.1", to, Collector, None), timeout=seconds)
    return opened if isinstance(opened, Failure) else Tunnel(*opened)


async def test_a_tunnel_leads_to_the_service() -> None:
    """The peer and the addresses are those of the proxy, and the first bytes of the service are not lost."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(2) + b"!")
        await reader.read()

    async with streams.serving(greet) as port, http_proxy() as server:
        made = await tunnel(server.port, to=port)
        assert isinstance(made, Tunnel)
        made.transport.write(b"hi")
        async with asyncio.timeout(5):
            while made.inside.received != b"hi!":
                made.inside.arrived.clear()
                await made.inside.arrived.wait()
        made.transport.abort()
        assert (made.link.peer, set(made.link.addresses)) == ("127.0.0.1", {"127.0.0.1"})
        assert server.heads == [f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"]


async def test_an_address_of_version_6_is_in_brackets() -> None:
    """Without its scope, which has no meaning for the proxy."""
    async with http_proxy("u:p") as server:
        with pytest.raises(Failure):
            await proxy(server.port).tunnel(Network(), "fe80::1%lo", 443, Collector, None)
        assert server.heads[0].startswith("CONNECT [fe80::1]:443 HTTP/1.1\r\nHost: [fe80::1]:443\r\n")


Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def responds(data: bytes, *, byte_by_byte: bool = False) -> Respond:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for index in range(0, len(data), step := 1 if byte_by_byte else max(len(data), 1)):
            writer.write(data[index : index + step])
            await asyncio.sleep(0)
        with suppress(OSError):
            await reader.read()

    return respond


@pytest.mark.parametrize(
    ("response", "reason", "message"),
    [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            Reason.AUTH,
            "add `user` and `password_file`",
        ),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", Reason.REFUSED, "status 403 Forbidden"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", Reason.REFUSED, "status 502 Bad Gateway"),
        (b"HTTP/1.0 503\r\nX: y\r\n\r\n<html>", Reason.REFUSED, "status 503"),
        (b"HTTP/1.1 504 Gateway Timeout\n\n", Reason.TIMEOUT, "status 504 Gateway Timeout"),
        (b"HTTP/1.1 405 Method Not Allowed\r\n\r\n", Reason.PROTOCOL, "status 405 Method Not Allowed"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n", Reason.PROTOCOL, "status 302 Found"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Reason.PROTOCOL, "does not speak HTTP: it sent b'SSH-2.0"),
        (b"HTTP/1.1 yes\r\n\r\n", Reason.PROTOCOL, "violates HTTP: the status line is"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", Reason.PROTOCOL, "sent data before the service could"),
        (b"HTTP/1.1 200 OK\r\n no name\r\n\r\n", Reason.PROTOCOL, "the first header begins with white space"),
        (b"\x15\x03\x03\x00\x02\x02\x32", Reason.PROTOCOL, "it speaks TLS, so the url must begin with https"),
        (b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000, Reason.TOO_LARGE, "longer than 64 KiB"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, Reason.TOO_LARGE, "more than 1000 headers"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 3_000, Reason.TOO_LARGE, "more than 1000 headers"),
    ],
)
async def test_a_response_without_a_tunnel_is_a_failure_that_names_the_proxy(
    response: bytes, reason: Reason, message: str
) -> None:
    """The reason distinguishes a login, a service that cannot be reached, and what is no proxy."""
    async with streams.serving(responds(response)) as port:
        failure = await tunnel(port)
    assert isinstance(failure, Failure)
    assert failure.reason is reason
    assert failure.message.startswith(f"proxy 127.0.0.1:{port}")
    assert message in failure.message


async def test_a_response_may_come_byte_by_byte_after_an_interim_one() -> None:
    """As HTTP allows, with a folded header and bare line feeds."""
    response = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Connection established\nVia: x,\n y\n\n"
    async with streams.serving(responds(response, byte_by_byte=True)) as port:
        made = await tunnel(port)
        assert isinstance(made, Tunnel)
        made.transport.abort()


async def test_a_proxy_that_closes_resets_or_is_silent_is_named() -> None:
    """While it should connect."""

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    found = {}
    for name, serve in {"close": close, "reset": reset, "silent": be_silent}.items():
        async with streams.serving(serve) as port:
            failure = await tunnel(port, seconds=0.5 if name == "silent" else 5)
            assert isinstance(failure, Failure)
            found[name] = failure.reason, failure.message.replace(str(port), "PORT")
    assert found["close"] == (
        Reason.EOF,
        "proxy 127.0.0.1:PORT closed the connection instead of connecting to 127.0.0.1:1",
    )
    assert found["reset"] == (Reason.RESET, "proxy 127.0.0.1:PORT: connection reset by peer")
    assert found["silent"] == (
        Reason.TIMEOUT,
        "proxy 127.0.0.1:PORT has not connected to 127.0.0.1:1 in time",
    )


async def test_a_proxy_that_closes_before_it_is_asked_leaves_no_gap_in_the_message() -> None:
    """Its end arrives before the request is sent."""

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader, writer

    async with streams.serving(close) as port:
        server, network = proxy(port), Network()
        _, transport, opening = await server.connect(
            network, lambda: _Opening(server.address, "127.0.0.1:1", network.pacer)
        )
        async with asyncio.timeout(5):
            while not transport.is_closing():  # noqa: ASYNC110 - a transport has no event
                await asyncio.sleep(0.01)
        failure = await outcome(opening.open_tunnel(None))
    assert isinstance(failure, Failure)
    assert (
        failure.message
        == f"proxy 127.0.0.1:{port} closed the connection instead of connecting to 127.0.0.1:1"
    )


async def test_a_proxy_that_cannot_be_reached_is_named() -> None:
    """Refused, and a name that does not resolve."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        refused = await tunnel(port)
    assert isinstance(refused, Failure)
    assert (refused.reason, refused.message) == (
        Reason.REFUSED,
        f"proxy 127.0.0.1:{port}: connection refused",
    )
    unknown = await tunnel(3128, host="proxy.invalid")
    assert isinstance(unknown, Failure)
    assert unknown.reason is Reason.DNS
    assert unknown.message.startswith("proxy proxy.invalid does not resolve")


@pytest.mark.parametrize(
    ("head", "piece"),
    [(b"HTTP/1.1 200 \r\n", b"a:\r\n" * 60_000), (b"", b"HTTP/1.1 100 \r\n\r\n" * 15_000)],
)
async def test_a_flood_costs_no_iteration_more_than_10_ms(head: bytes, piece: bytes) -> None:
    """And ends at the limit."""
    with flooding(head, piece) as port:

        async def attack() -> None:
            failure = await tunnel(port)
            assert isinstance(failure, Failure)
            assert failure.reason is Reason.TOO_LARGE

        await assert_iterations_are_short(attack)
