"""Owns a server to connect to, a Redis or a sentinel: its name in messages, its TLS, and the login."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from connection_exporter.config.tls import TlsConfig
from connection_exporter.kinds.redis.connection import RedisConnection
from connection_exporter.net import Endpoint, Link, LinkDetails, Network
from connection_exporter.net.names import host_and_port


class Opened(NamedTuple):
    """A connection that is logged in. ``details`` are those of its link, and how long the login took."""

    link: Link
    connection: RedisConnection
    details: LinkDetails


class RedisServer:
    """A host and a port, or the path of a Unix socket, with TLS if ``tls`` is given.

    ``canary`` is the time between two canaries, in seconds, each of which verifies the certificate.
    """

    def __init__(
        self, network: Network, host: str, port: int, *, tls: TlsConfig | None, canary: float | None
    ) -> None:
        self.where = host if host.startswith("/") else host_and_port(host, port)
        self.port = port
        self._pacer = network.pacer
        self._endpoint = Endpoint(
            network,
            host,
            port,
            where=self.where,
            tls=tls.options if tls is not None else None,
            canary=canary,
        )

    @asynccontextmanager
    async def log_in(
        self, user: str | None, password: str | None, *, database: int = 0
    ) -> AsyncIterator[Opened]:
        """Connect, authenticate and select the database; the connection is closed when the block ends.

        Raises `Failure`.
        """
        link, connection = await self._endpoint.connect(lambda: RedisConnection(self.where, self._pacer))
        try:
            connected = time.perf_counter()
            await connection.log_in(user, password, database)
            auth_seconds = time.perf_counter() - connected
            yield Opened(link, connection, LinkDetails(self._endpoint, link, auth_seconds=auth_seconds))
        finally:
            connection.abort()
