"""Kind websocket through a proxy: always a tunnel, which is held like any other connection."""

import asyncio
from pathlib import Path

import pytest
import trustme
from connection_exporter.core.health import Reason
from connection_exporter.core.retry import Fault, Policy
from connection_exporter.kind import Failure, Service
from connection_exporter.kinds.websocket.check import WebsocketCheck
from connection_exporter.net import Network
from support.attempts import attempt, held
from support.certificates import presenting
from support.http_proxy import http_proxy
from support.websocket_servers import check_of, config_of, serving
from websockets.asyncio.server import ServerConnection


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("secure", [False, True])
async def test_a_session_is_held_through_a_tunnel_and_its_end_is_noticed(
    secure: bool, scheme: str, authority: trustme.CA, ca_file: Path
) -> None:
    """RFC 6455, section 4.1: a tunnel for ws:// too. When the proxy closes, the session is lost at once."""
    context = presenting(authority.issue_cert("localhost", "127.0.0.1"))
    outside, tls = (context if scheme == "https" else None), (context if secure else None)
    async with http_proxy("me:word", tls=outside) as proxy, serving(tls=tls) as port:
        config = config_of(
            url=f"{'wss' if secure else 'ws'}://localhost:{port}/",
            proxy={
                "url": f"{scheme}://me:word@{proxy.address}",
                **({"tls": {"ca_file": str(ca_file)}} if outside else {}),
            },
            **({"tls": {"ca_file": str(ca_file)}} if secure else {}),
        )
        async with held(WebsocketCheck(config, Network())) as (session, first):
            assert first.reason is None
            assert first.details["proxy"] == proxy.address
            assert (await session.probe()).reason is None
            assert proxy.heads == [
                head for head in proxy.heads if head.startswith(f"CONNECT localhost:{port} ")
            ]
            proxy.cut()
            async with asyncio.timeout(5):
                assert (await session.lost).reason in (Reason.EOF, Reason.RESET)


async def test_the_end_of_the_service_is_noticed_through_the_tunnel() -> None:
    """The proxy passes it on, together with the close frame."""
    served: list[ServerConnection] = []

    async def note(connection: ServerConnection) -> None:
        served.append(connection)
        await connection.wait_closed()

    async with (
        http_proxy() as proxy,
        serving(note) as port,
        held(check_of(port, proxy=proxy.url)) as (session, _),
    ):
        await served[0].close(1001, "restart")
        async with asyncio.timeout(5):
            assert (await session.lost).reason is Reason.IDLE_CLOSED


async def test_a_proxy_that_wants_a_login_is_named() -> None:
    """As for http."""
    async with http_proxy("me:word") as proxy, serving() as port:
        failure = await attempt(check_of(port, proxy=proxy.url))
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.AUTH
    assert failure.message.startswith(
        f"proxy {proxy.address} does not connect to 127.0.0.1:{port}: status 407"
    )


def test_behind_a_proxy_only_a_probe_notices_that_the_service_has_vanished() -> None:
    """The kernel notices that the proxy has."""
    policy = Policy(interval=30, timeout=5, retries=3, retry_delay=5, max_retry_delay=30, canary=None)

    def bound(check: WebsocketCheck) -> float:
        return Service("feed", "websocket", check, policy).detection_bounds[Fault.VANISHED]

    assert (bound(check_of(1)), bound(check_of(1, proxy="http://proxy:3128"))) == (11, 35)
