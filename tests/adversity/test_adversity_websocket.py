"""WebSockets under the whole exporter: silent, closed with every code, and streams that run dry."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from watched import on_uvloop, watching
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from exporter.core.health import Reason, Status
from exporter.demo.servers import WebSocket

QUICK = """\
defaults: {interval: 500ms, timeout: 500ms, retry_delay: 200ms, max_retry_delay: 500ms}
services:
"""


class Feed:
    """A server that sends each 50 ms while `streaming`, and can close with a code."""

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
async def test_a_close_in_mid_session_is_told_at_once_with_its_code(code: int, reason: Reason) -> None:
    """The code decides the reason, the transition says it, and the session is replaced at once."""
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
            assert lost - began < 0.25
            assert back - lost < 0.25
            assert f"code {code}" in watched.record("feed").transitions[1].message
            assert watched.record("feed").outages == 0
            assert watched.record("feed").sessions_lost == 1


@on_uvloop
async def test_a_stream_that_runs_dry_is_a_gap_though_pings_are_answered() -> None:
    """`gap` within `max_gap` and an interval; healthy with the first probe after it flows again."""
    async with running() as feed:
        config = QUICK
        config += f'  feed: {{kind: websocket, url: "ws://127.0.0.1:{feed.port}", max_gap: 300ms}}\n'
        config += f'  ping: {{kind: websocket, url: "ws://127.0.0.1:{feed.port}"}}\n'
        async with watching(config) as watched:
            await watched.healthy()
            feed.streaming = False
            began = time.monotonic()
            at = await watched.until("feed", Status.UNHEALTHY, Reason.GAP, since=began, within=5)
            assert at - began < 0.3 + 0.5 + 1.0
            assert watched.record("feed").health.session_up
            feed.streaming = True
            await watched.healthy()
            watched.undisturbed("ping")
            assert watched.record("feed").sessions_lost == 0


@on_uvloop
async def test_a_server_that_upgrades_and_falls_silent_is_lost_by_its_ping() -> None:
    """Frozen after the upgrade: no pong within `timeout`, `timeout`; attempts end there too; then it is back."""
    async with WebSocket() as feed, WebSocket() as other:
        config = QUICK + f'  feed: {{kind: websocket, url: "{feed.url}"}}\n'
        config += f'  other: {{kind: websocket, url: "{other.url}"}}\n'
        async with watching(config) as watched:
            await watched.healthy()
            await feed.pause()
            began = time.monotonic()
            at = await watched.until("feed", Status.CONNECTING, Reason.TIMEOUT, since=began, within=5)
            assert at - began < 0.5 + 0.5 + 1.0
            await watched.until("feed", Status.DISCONNECTED, Reason.TIMEOUT, within=10)
            assert "upgrade" in watched.record("feed").trouble.message
            await feed.resume()
            await watched.healthy()
            watched.undisturbed("other")
