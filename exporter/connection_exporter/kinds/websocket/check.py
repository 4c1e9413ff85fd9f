"""Owns kind websocket: a session with its ping, its dialogues and its stream of messages.

A probe is a ping, then the dialogue that is configured for it, then a look at when the last message arrived. A server
that answers pings, but whose stream has stopped or whose dialogue fails, has answered, and the answer is bad.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from connection_exporter import __version__
from connection_exporter.config.durations import format_duration
from connection_exporter.config.http_login import read_header
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Json, Metric, MetricType, Observation, Session, Traits
from connection_exporter.kinds.tokens import token_source
from connection_exporter.kinds.websocket.config import WebsocketConfig
from connection_exporter.kinds.websocket.connection import WebsocketConnection
from connection_exporter.kinds.websocket.dialogue import Line, script
from connection_exporter.kinds.websocket.handshake import UpgradeRefused
from connection_exporter.kinds.websocket.stream import Stream
from connection_exporter.net import Endpoint, Link, LinkDetails, Network
from connection_exporter.net.certificate import CERTIFICATE_EXPIRY_METRIC
from connection_exporter.net.failures import REASONS

_METRICS: Final = (
    Metric(
        "connection_websocket_ping_duration_seconds",
        "Round trip of a WebSocket ping.",
        MetricType.HISTOGRAM,
        "ping_seconds",
        (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
    ),
    Metric(
        "connection_websocket_handshake_duration_seconds",
        "Time from the upgrade request to its response, at the start of the session.",
        MetricType.GAUGE,
        "handshake_seconds",
    ),
    Metric(
        "connection_websocket_last_message_timestamp_seconds",
        "Unix time of the last message of the stream; absent until one has arrived.",
        MetricType.GAUGE,
        "last_message_timestamp_seconds",
    ),
    Metric(
        "connection_websocket_messages_total",
        "Messages of the stream, without the answers in a dialogue. Updated at each probe.",
        MetricType.COUNTER,
        "messages",
    ),
    CERTIFICATE_EXPIRY_METRIC,
)


class WebsocketCheck:
    """One WebSocket server."""

    traits = Traits(
        reasons=REASONS
        | {
            Reason.AUTH,
            Reason.MISSING,
            Reason.REDIRECT,
            Reason.SLOTS_FULL,
            Reason.EXPECT,
            Reason.GAP,
            Reason.CLOSED,
            Reason.TOO_LARGE,
            Reason.SLOW,
        },
        metrics=_METRICS,
    )

    def __init__(self, config: WebsocketConfig, network: Network) -> None:
        if config.behind_proxy:
            self.traits = replace(type(self).traits, behind_proxy=True)
        self._config = config
        self._network = network
        self._tokens = token_source(config, network)
        self._endpoint = Endpoint(
            network,
            config.host,
            config.port_in_use,
            where=config.address,
            tls=config.tls.options if config.tls else None,
            proxy=config.proxy.proxy if config.proxy else None,
            canary=config.canary,
        )

    @property
    def address(self) -> str:
        """The configured host:port or Unix socket."""
        return self._config.address

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """Connect, upgrade, and run the dialogue of `on_connect`. Raises `Failure`."""
        headers = await self._headers()
        try:
            session = await self._connect(headers)
        except UpgradeRefused as refused:
            if refused.status != 401 or self._tokens is None:
                raise
            if not self._tokens.refused(dict(headers)["Authorization"]):
                raise
            session = await self._connect(await self._headers())  # with another token
        try:
            yield session
        finally:
            session.leave()

    async def _connect(self, headers: list[tuple[str, str]]) -> "_WebsocketSession":
        config = self._config
        greeting = await script(config, config.on_connect)
        on_probe = await script(config, config.on_probe)
        link, connection = await self._endpoint.connect(
            lambda: WebsocketConnection(config, greeting, self._network.pacer)
        )
        try:
            details = await _open(config, connection, headers)
        except BaseException:
            connection.leave()
            raise
        shown = LinkDetails(self._endpoint, link, **details)
        return _WebsocketSession(config, link, connection, on_probe=on_probe, details=shown)

    async def _headers(self) -> list[tuple[str, str]]:
        config, tokens = self._config, self._tokens
        headers = [("User-Agent", f"connection-exporter/{__version__}")]
        if config.origin is not None:
            headers.append(("Origin", config.origin))
        headers += [(name, await read_header(name, value)) for name, value in config.headers.items()]
        authorization = await (tokens.authorization() if tokens is not None else config.authorization())
        if authorization is not None:
            headers.append(("Authorization", authorization))
        return headers


class _WebsocketSession:
    """A connection that has been upgraded. ``details`` are those of its start."""

    def __init__(
        self,
        config: WebsocketConfig,
        link: Link,
        connection: WebsocketConnection,
        *,
        on_probe: Sequence[Line],
        details: LinkDetails,
    ) -> None:
        self.lost = connection.lost
        self.peer = link.peer
        self.addresses = link.addresses
        self._config = config
        self._connection = connection
        self._on_probe = on_probe
        self._details = details
        self._counted = 0

    def leave(self) -> None:
        """Close the connection without waiting."""
        self._connection.leave()

    async def probe(self) -> Observation:
        """Send a ping, run the dialogue, and check the stream for a gap. Raises `Failure`."""
        connection, stream = self._connection, self._connection.stream
        details = dict(self._details.current())
        problem: Failure | None = None
        connection.probing = True
        try:
            details["ping_seconds"] = await connection.round_trip()
            if self._on_probe:
                began = time.monotonic()
                problem = await connection.talk(self._on_probe)
                details["dialogue_seconds"] = time.monotonic() - began
        except asyncio.CancelledError as cancelled:
            if "ping_seconds" not in details:
                raise cancelled from _no_pong(self._config, connection)
            raise cancelled from Failure(Reason.EXPECT, f"{stream.dialogue.missing} in time")
        finally:
            connection.probing = False
        details["last_message_timestamp_seconds"] = stream.last_message
        arrived = stream.messages - self._counted
        self._counted = stream.messages
        counts = {"messages": arrived} if arrived else {}
        problem = problem or _gap(self._config, stream)
        if problem is not None:
            return Observation(problem.reason, problem.message, details, counts)
        return Observation(details=details, counts=counts)


async def _open(
    config: WebsocketConfig, connection: WebsocketConnection, headers: list[tuple[str, str]]
) -> dict[str, Json]:
    """Upgrade, run the dialogue of `on_connect`, and return the details of both. Raises `Failure`."""
    connected = time.monotonic()
    try:
        upgrade = await connection.open(headers)
    except asyncio.CancelledError as cancelled:
        raise cancelled from Failure(Reason.TIMEOUT, f"{config.address} does not answer the upgrade request")
    upgraded = time.monotonic()
    details: dict[str, Json] = {
        "handshake_seconds": upgraded - connected,
        "subprotocol": upgrade.subprotocol,
        "compression": upgrade.compression,
    }
    if config.subprotocols and upgrade.subprotocol is None:
        offered = ", ".join(config.subprotocols)
        raise Failure(Reason.PROTOCOL, f"{config.address} chose none of the subprotocols {offered}")
    try:
        problem = await connection.dialogue_over()
    except asyncio.CancelledError as cancelled:
        raise cancelled from Failure(Reason.EXPECT, f"{connection.stream.dialogue.missing} in time")
    if problem is not None:
        raise problem
    if config.on_connect:
        details["greeting_seconds"] = time.monotonic() - upgraded
    return details


def _no_pong(config: WebsocketConfig, connection: WebsocketConnection) -> Failure:
    if connection.is_behind:
        return Failure(
            Reason.PROTOCOL, f"{config.address} sends more than the exporter can read, and no pong in time"
        )
    return Failure(Reason.TIMEOUT, f"{config.address} does not answer a ping")


def _gap(config: WebsocketConfig, stream: Stream) -> Failure | None:
    limit = config.max_gap
    if limit is None:
        return None
    quiet = time.monotonic() - stream.quiet_since
    if quiet <= limit:
        return None
    return Failure(Reason.GAP, f"no message for {quiet:.1f} s, more than max_gap {format_duration(limit)}")
