"""Owns kind websocket: one connection held open, its ping round trip, its dialogue and its stream.

A probe is a ping, and the dialogue that is configured for it. A server that answers pings but whose stream
has run dry, or that does not say what it should, is there and answers badly.
"""

import asyncio
import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from exporter import __version__
from exporter.check import Failure, Json, Metric, MetricType, Observation, Session, Traits
from exporter.checks.secret_file import reading
from exporter.checks.websocket_dialogue import Line, script
from exporter.checks.websocket_link import WebsocketLink
from exporter.config.durations import format_duration
from exporter.config.kinds.websocket import WebsocketConfig
from exporter.config.secret import read_secret
from exporter.core.health import Reason
from exporter.net import Link, Network
from exporter.net.adopt import adopt
from exporter.net.certificate import CERTIFICATE_EXPIRY, CERTIFICATE_EXPIRY_METRIC, certificate_expiry
from exporter.net.failures import REASONS

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
        "Time from the upgrade request to its answer, when the session was made.",
        MetricType.GAUGE,
        "handshake_seconds",
    ),
    Metric(
        "connection_websocket_last_message_timestamp_seconds",
        "Unix time of the last message of the stream; absent until one came.",
        MetricType.GAUGE,
        "last_message_timestamp_seconds",
    ),
    Metric(
        "connection_websocket_messages_total",
        "Messages of the stream, added up at each probe; answers of a dialogue are not among them.",
        MetricType.COUNTER,
        "messages",
    ),
    CERTIFICATE_EXPIRY_METRIC,
)
_USER_AGENT: Final = f"connection-exporter/{__version__}"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class WebsocketCheck:
    """One WebSocket server."""

    Config = WebsocketConfig
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
        self._config = config
        self._network = network
        # of the last certificate met: a held session may be older than a renewed one
        self._certificate: dict[str, Json] = {}

    @property
    def address(self) -> str:
        """The configured host:port or Unix socket."""
        return self._config.address

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """Connect, upgrade, and play the dialogue of the start. Raises `Failure`."""
        config = self._config
        headers = _headers(config)
        greeting, at_probe = script(config, config.on_connect), script(config, config.on_probe)
        context = await self._network.tls_context(config.tls.options) if config.tls else None
        link = await self._network.dial(config.host, config.port_in_use)
        details: dict[str, Json] = {
            "resolve_seconds": link.resolve_seconds,
            "connect_seconds": link.connect_seconds,
        }
        dialled = time.monotonic()
        _, connection = await adopt(
            link,
            lambda: WebsocketLink(config, greeting),
            tls=context,
            server_name=(config.tls.server_name if config.tls else None) or config.host,
            where=config.address,
        )
        try:
            connected = time.monotonic()
            if context is not None:
                details["tls_seconds"] = connected - dialled
                tls = connection.transport.get_extra_info("ssl_object")
                self._certificate[CERTIFICATE_EXPIRY] = certificate_expiry(tls)
            await _open(config, connection, headers, details, connected)
            yield _Held(config, link, connection, at_probe, details, certificate=self._certificate)
        finally:
            connection.leave()


class _Held:
    """A WebSocket that is watched while it is idle."""

    def __init__(
        self,
        config: WebsocketConfig,
        link: Link,
        connection: WebsocketLink,
        at_probe: Sequence[Line],
        details: dict[str, Json],
        *,
        certificate: Mapping[str, Json],
    ) -> None:
        self._config = config
        self._link = link
        self._connection = connection
        self._at_probe = at_probe
        self._details = details
        self._certificate = certificate
        self._told = 0

    @property
    def lost(self) -> "asyncio.Future[Failure]":
        return self._connection.lost

    @property
    def peer(self) -> str | None:
        return self._link.peer

    @property
    def addresses(self) -> frozenset[str]:
        return self._link.addresses

    async def probe(self) -> Observation:
        """Send a ping, then play the dialogue, then look at the stream. Raises `Failure`."""
        connection, config = self._connection, self._config
        details = {**self._details, **self._certificate}
        amiss: Failure | None = None
        connection.probing = True
        try:
            details["ping_seconds"] = await connection.round_trip()
            if self._at_probe:
                began = time.monotonic()
                amiss = await connection.talk(self._at_probe)
                details["dialogue_seconds"] = time.monotonic() - began
        except asyncio.CancelledError as cancelled:
            if "ping_seconds" not in details:
                raise cancelled from Failure(Reason.TIMEOUT, f"{config.address} answers no ping")
            raise cancelled from Failure(Reason.EXPECT, f"{connection.dialogue.waiting_for} came in time")
        finally:
            connection.probing = False
        details["last_message_timestamp_seconds"] = connection.last_message
        counts = {"messages": connection.messages - self._told}
        self._told = connection.messages
        amiss = amiss or _gap(config, time.monotonic() - connection.quiet_since)
        if amiss is not None:
            return Observation(amiss.reason, amiss.message, details, counts)
        return Observation(details=details, counts=counts)


def _gap(config: WebsocketConfig, quiet: float) -> Failure | None:
    limit = config.max_gap
    if limit is None or quiet <= limit:
        return None
    return Failure(Reason.GAP, f"no message for {quiet:.1f} s, more than max_gap {format_duration(limit)}")


def _headers(config: WebsocketConfig) -> list[tuple[str, str]]:
    headers = [(name, value.get_secret_value()) for name, value in config.headers.items()]
    with reading("bearer_token_file" if config.bearer_token_file is not None else "password_file"):
        if config.bearer_token_file is not None:
            headers.append(("Authorization", f"Bearer {read_secret(config.bearer_token_file).strip()}"))
        elif config.bearer_token is not None:
            headers.append(("Authorization", f"Bearer {config.bearer_token.get_secret_value()}"))
        elif config.user is not None:
            login = f"{config.user}:{config.read_password() or ''}".encode()
            headers.append(("Authorization", f"Basic {b64encode(login).decode()}"))
    if any(_CONTROL.search(value) for _, value in headers):
        raise Failure(Reason.AUTH, "the bearer token holds a line break or another control character")
    return headers


async def _open(
    config: WebsocketConfig,
    connection: WebsocketLink,
    headers: list[tuple[str, str]],
    details: dict[str, Json],
    connected: float,
) -> None:
    """Upgrade, and play the dialogue of the start. Raises `Failure`."""
    try:
        await connection.upgrade(headers, _USER_AGENT)
    except asyncio.CancelledError as cancelled:
        raise cancelled from Failure(Reason.TIMEOUT, f"{config.address} does not answer the upgrade")
    upgraded = time.monotonic()
    details["handshake_seconds"] = upgraded - connected
    details["subprotocol"] = connection.subprotocol
    details["compression"] = bool(connection.protocol.extensions)
    if config.subprotocols and connection.subprotocol is None:
        wanted = ", ".join(config.subprotocols)
        raise Failure(Reason.PROTOCOL, f"{config.address} speaks none of the subprotocols {wanted}")
    try:
        amiss = await connection.finish()
    except asyncio.CancelledError as cancelled:
        raise cancelled from Failure(Reason.EXPECT, f"{connection.dialogue.waiting_for} came in time")
    if amiss is not None:
        raise amiss
    if config.on_connect:
        details["greeting_seconds"] = time.monotonic() - upgraded
