"""Owns kind tcp: a connection that is held, with a dialogue at its start and another at each probe.

Without a dialogue at the probe, the answer is that the kernel still holds the connection: keep-alive packets show that
the host is there, and not that the server works.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Json, Metric, MetricType, Observation, Session, Traits
from connection_exporter.kinds.tcp.config import TcpConfig
from connection_exporter.kinds.tcp.connection import NoMatch, TcpConnection
from connection_exporter.kinds.tcp.dialogue import Exchange, script, text_of
from connection_exporter.kinds.tcp.starttls import request_tls
from connection_exporter.net import Endpoint, Link, LinkDetails, Network
from connection_exporter.net.certificate import CERTIFICATE_EXPIRY_METRIC
from connection_exporter.net.failures import REASONS

_METRICS: Final = (
    Metric(
        "connection_tcp_round_trip_seconds",
        "Round trip to the host, smoothed, as the kernel measures it; absent for a Unix socket.",
        MetricType.GAUGE,
        "round_trip_seconds",
    ),
    Metric(
        "connection_tcp_dialogue_duration_seconds",
        "Time for the dialogue of the last probe.",
        MetricType.GAUGE,
        "dialogue_seconds",
    ),
    CERTIFICATE_EXPIRY_METRIC,
)


class TcpCheck:
    """One server."""

    traits = Traits(
        reasons=REASONS | {Reason.AUTH, Reason.EXPECT, Reason.TOO_LARGE, Reason.SLOW}, metrics=_METRICS
    )

    def __init__(self, config: TcpConfig, network: Network) -> None:
        assert config.host is not None, "a rule of the config"
        if not config.is_answered:
            self.traits = replace(type(self).traits, is_answered=False)
        self._config = config
        self._network = network
        self._tls = config.tls.options if config.tls else None
        self._endpoint = Endpoint(
            network,
            config.host,
            config.port or 0,
            where=config.where,
            tls=self._tls,
            tls_later=config.starttls is not None,
            canary=config.canary,
        )

    @property
    def address(self) -> str:
        """The configured host:port or Unix socket."""
        return self._config.where

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """Connect, set up TLS, and run the dialogue of `on_connect`. Raises `Failure`."""
        config = self._config
        greeting = await script(config, config.on_connect)
        on_probe = await script(config, config.on_probe)
        link, connection = await self._endpoint.connect(
            lambda: TcpConnection(config.where, self._network.pacer)
        )
        try:
            if config.starttls is not None:
                link = await self._start_tls(config.starttls, link, connection)
            began = time.perf_counter()
            for step in greeting:
                await connection.exchange(step)
            details: dict[str, Json] = {}
            if greeting:
                details["greeting_seconds"] = time.perf_counter() - began
            connection.mark_idle()
            yield _TcpSession(LinkDetails(self._endpoint, link, **details), link, connection, on_probe)
        finally:
            connection.abort()

    async def _start_tls(self, protocol: str, link: Link, connection: TcpConnection) -> Link:
        assert self._tls is not None, "starttls turns it on"
        await request_tls(protocol, connection, self._config.where, within=self._config.timeout)
        context = await self._network.tls_context(self._tls)
        return await self._endpoint.start_tls(link, connection, context)


class _TcpSession:
    """A connection whose greeting is over. ``details`` are those of its link and of the greeting."""

    def __init__(
        self,
        details: LinkDetails,
        link: Link,
        connection: TcpConnection,
        on_probe: Sequence[Exchange],
    ) -> None:
        self.lost: asyncio.Future[Failure] = connection.lost
        self.peer = link.peer
        self.addresses = link.addresses
        self._connection = connection
        self._on_probe = on_probe
        self._details = details

    async def probe(self) -> Observation:
        """Run the dialogue, and read the round trip from the kernel. Raises `Failure` when the session is gone."""
        connection = self._connection
        problem: NoMatch | None = None
        details = dict(self._details.current())
        connection.begin()
        began = time.perf_counter()
        try:
            for step in self._on_probe:
                if answer := await connection.exchange(step):
                    details["answer"] = text_of(answer)
        except NoMatch as error:
            problem = error
        finally:
            connection.mark_idle()
        if self._on_probe:
            details["dialogue_seconds"] = time.perf_counter() - began
        details["banner"] = connection.banner
        details["round_trip_seconds"] = connection.round_trip()
        if problem is not None:
            return Observation(problem.reason, problem.message, details)
        return Observation(details=details)
