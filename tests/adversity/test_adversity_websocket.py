"""WebSocket servers and the whole exporter: silent, flooding, closing with every code, and streams that stop."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from connection_exporter.core.health import Reason, Status
from connection_exporter.demo.servers import WebSocket
from support.watched import SLACK, on_uvloop, watching
from support.websocket_servers import deflated, flooding, frame
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

QUICK = """\
defaults: {interval: 500ms, timeout: 500ms, retry_delay: 200ms, max_retry_delay: 500ms}
services:
"""


class Feed:
    """A server that sends a message every 50 ms while `streaming` is set."""

    def __init__(self) -> None:
        self.streaming = True
        self.connections: list[ServerConnection] = []
        self.port = 0

    async def _talk(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        with suppress(ConnectionClosed):
            while True:
                if self.streaming:
                    await connection.send("price")
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running() -> AsyncIterator[Feed]:
    feed = Feed()
    async with serve(feed._talk, "127.0.0.1", 0, close_timeout=0.2) as server:
        feed.port = server.sockets[0].getsockname()[1]
        yield feed
        for connection in feed.connections:
            await connection.close()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1000, Reason.IDLE_CLOSED),
        (1001, Reason.IDLE_CLOSED),
        (1008, Reason.CLOSED),
        (1011, Reason.CLOSED),
    ],
)
@on_uvloop
async def test_a_close_frame_is_reported_immediately_with_its_code(code: int, reason: Reason) -> None:
    """The code decides the reason, the transition contains it, and a new session follows immediately."""
    async with running() as feed:
        config = QUICK.replace("interval: 500ms", "interval: 30s")
        config += f'  feed: {{kind: websocket, url: "ws://127.0.0.1:{feed.port}"}}\n'
        async with watching(config) as watched:
            await watched.healthy()
            await asyncio.sleep(0.3)
            began = time.monotonic()
            await feed.connections[-1].close(code, "because")
            lost = await watched.until("feed", Status.CONNECTING, reason, since=began, within=5)
            back = await watched.until("feed", Status.HEALTHY, since=lost, within=5)
            assert lost - began < SLACK
            assert back - lost < SLACK
            assert f"code {code}" in watched.record("feed").transitions[1].message
            assert watched.record("feed").outages == 0
            assert watched.record("feed").sessions_lost == 1


@on_uvloop
async def test_a_stream_that_stops_is_a_gap_although_pings_are_answered() -> None:
    """`gap` within `max_gap` and an interval; healthy with the first probe after it sends again."""
    async with running() as feed:
        config = QUICK
        config += f'  feed: {{kind: websocket, url: "ws://127.0.0.1:{feed.port}", max_gap: 300ms}}\n'
        config += f'  ping: {{kind: websocket, url: "ws://127.0.0.1:{feed.port}"}}\n'
        async with watching(config) as watched:
            await watched.healthy()
            feed.streaming = False
            began = time.monotonic()
            at = await watched.until("feed", Status.UNHEALTHY, Reason.GAP, since=began, within=5)
            assert at - began < 0.3 + 0.5 + SLACK
            assert watched.record("feed").health.session_up
            feed.streaming = True
            await watched.healthy()
            watched.undisturbed("ping")
            assert watched.record("feed").sessions_lost == 0


@on_uvloop
async def test_a_server_that_freezes_after_the_upgrade_is_lost_by_its_ping() -> None:
    """No pong within `timeout`; later attempts time out in the upgrade; then the server resumes."""
    async with WebSocket() as feed, WebSocket() as other:
        config = QUICK + f'  feed: {{kind: websocket, url: "{feed.url}"}}\n'
        config += f'  other: {{kind: websocket, url: "{other.url}"}}\n'
        async with watching(config) as watched:
            await watched.healthy()
            await feed.pause()
            began = time.monotonic()
            at = await watched.until("feed", Status.CONNECTING, Reason.TIMEOUT, since=began, within=5)
            assert at - began < 0.5 + 0.5 + SLACK
            await watched.until("feed", Status.DISCONNECTED, Reason.TIMEOUT, within=10)
            assert "upgrade" in watched.record("feed").trouble.message
            await feed.resume()
            await watched.healthy()
            watched.undisturbed("other")


@on_uvloop
async def test_a_flood_does_not_disturb_other_services() -> None:
    """Three servers that send without end; other services stay healthy, and the routes answer from memory."""
    bombs = frame(0xC1, deflated(bytes(60_000))) * 1024
    deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    with (
        flooding(frame(0x81) * 32768) as messages,
        flooding(frame(0x89) * 32768) as pings,
        flooding(bombs, headers=deflate) as compressed,
    ):
        async with WebSocket() as other:
            config = QUICK.replace("retry_delay: 200ms", "retry_delay: 500ms")
            for name, port in (("messages", messages), ("pings", pings), ("compressed", compressed)):
                config += f"  {name}: {{kind: websocket, host: 127.0.0.1, port: {port}, compression: true}}\n"
            config = config.replace("compression: true", "compression: false", 2)
            config += f'  other: {{kind: websocket, url: "{other.url}"}}\n'
            async with watching(config) as watched:
                await watched.healthy("other")
                for name in ("messages", "pings", "compressed"):
                    await watched.until(name, Status.DISCONNECTED, Reason.PROTOCOL, within=20)
                watched.undisturbed("other")
