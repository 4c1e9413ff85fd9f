"""Owns kind smtp: a connection to a mail server, which is asked NOOP at each probe (RFC 5321)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Metric, MetricType, Observation, Session, Traits
from connection_exporter.net import Endpoint, Link, Network
from connection_exporter.net.failures import REASONS

from connection_exporter_smtp import SmtpConfig
from connection_exporter_smtp.connection import Connection


class SmtpCheck:
    """One mail server."""

    traits = Traits(
        reasons=REASONS | {Reason.QUERY, Reason.TOO_LARGE},
        metrics=(
            Metric(
                "connection_smtp_reply_code",
                "Code of the server's last reply.",
                MetricType.GAUGE,
                "reply_code",
            ),
        ),
    )

    def __init__(self, config: SmtpConfig, network: Network) -> None:
        self._where = config.where
        self._network = network
        self._endpoint = Endpoint(network, config.host, config.port, where=config.where)

    @property
    def address(self) -> str:
        """The configured host:port."""
        return self._where

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """Connect and read the greeting. Raises `Failure`."""
        link, connection = await self._endpoint.connect(lambda: Connection(self._where, self._network.pacer))
        try:
            code = await connection.reply()
            if code != 220:
                raise Failure(Reason.PROTOCOL, f"{self._where} greeted with {code}, not 220")
            yield _SmtpSession(self._endpoint, link, connection)
        finally:
            connection.abort()


class _SmtpSession:
    """A greeted connection."""

    def __init__(self, endpoint: Endpoint, link: Link, connection: Connection) -> None:
        self.lost = connection.lost
        self.peer = link.peer
        self.addresses = link.addresses
        self._endpoint = endpoint
        self._link = link
        self._connection = connection

    async def probe(self) -> Observation:
        """Send NOOP and judge the reply. Raises `Failure` when the link is gone."""
        code = await self._connection.command(b"NOOP\r\n")
        details = {**self._endpoint.details(self._link), "reply_code": code}
        if code == 250:
            return Observation(details=details)
        return Observation(Reason.QUERY, f"answered NOOP with {code}, not 250", details)
