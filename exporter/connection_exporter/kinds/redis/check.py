"""Owns kind redis: one connection held open. Valkey speaks the same protocol.

A probe is PING and INFO in one round trip. Only PING decides whether there is an answer: for a user who must not
call INFO, and a server that does not have it, the details are missing and nothing else. With Sentinel, ROLE confirms
that the server is the master; for a Cluster, CLUSTER INFO gives its state.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Json, Metric, MetricType, Observation, Session, Traits
from connection_exporter.kinds.redis.answer import commands_of, judge
from connection_exporter.kinds.redis.config import RedisConfig
from connection_exporter.kinds.redis.connection import Request
from connection_exporter.kinds.redis.protocol import REFUSALS, Reply
from connection_exporter.kinds.redis.sentinel import Sentinels
from connection_exporter.kinds.redis.server import Opened, RedisServer
from connection_exporter.net import Network
from connection_exporter.net.certificate import CERTIFICATE_EXPIRY_METRIC
from connection_exporter.net.failures import REASONS
from connection_exporter.net.names import host_and_port


def _gauge(source: str, text: str) -> Metric:
    return Metric(f"connection_redis_{source}", text, MetricType.GAUGE, source)


_METRICS: Final = (
    _gauge("replica", "Whether the server is a replica."),
    _gauge("master_link_up", "Whether a replica is in touch with its master; absent on a master."),
    _gauge("connected_replicas", "Replicas that are connected to the server."),
    _gauge("memory_used_bytes", "Memory that Redis has allocated."),
    _gauge("memory_max_bytes", "Configured limit of memory (maxmemory); absent where there is none."),
    _gauge(
        "memory_full",
        "Whether writes are refused because the memory is full and nothing may be evicted.",
    ),
    _gauge("connected_clients", "Client connections to the server."),
    _gauge("max_clients", "Client connections that the server allows."),
    _gauge("rdb_last_save_ok", "Whether the last snapshot (RDB) was written."),
    _gauge("aof_last_write_ok", "Whether the last write to the append-only file (AOF) succeeded."),
    _gauge("sentinels_known", "Sentinels that are configured; absent without Sentinel."),
    _gauge(
        "sentinels_agreeing", "Sentinels that named the same master when last asked; absent without Sentinel."
    ),
    _gauge("cluster_ok", "Whether the state of the cluster is ok; absent without `cluster: true`."),
    _gauge("cluster_slots_ok", "Hash slots of the cluster that are served."),
    _gauge("cluster_slots_fail", "Hash slots of the cluster whose node has failed."),
    _gauge("cluster_known_nodes", "Nodes of the cluster, failed ones included."),
    _gauge("cluster_size", "Nodes of the cluster that serve at least one hash slot."),
    CERTIFICATE_EXPIRY_METRIC,
)

# The name makes the session visible in CLIENT LIST. Whether it is refused does not matter.
_SET_NAME: Final = ("CLIENT", "SETNAME", "connection-exporter")


class RedisCheck:
    """One Redis or Valkey server: the one that is configured, or the master that the sentinels name."""

    traits = Traits(
        reasons=REASONS | REFUSALS | {Reason.ROLE, Reason.SLOW, Reason.QUERY, Reason.TOO_LARGE},
        metrics=_METRICS,
    )

    def __init__(self, config: RedisConfig, network: Network) -> None:
        self._config = config
        self._network = network
        self._sentinels = (
            Sentinels(config.sentinel, network, timeout=config.timeout, canary=config.canary)
            if config.sentinel is not None
            else None
        )
        self._server = RedisServer(network, config.host, config.port, tls=config.tls, canary=config.canary)

    @property
    def address(self) -> str:
        """The configured host:port or Unix socket, or the sentinels and the name of the master."""
        return self._config.address

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """Find the master if there are sentinels, connect, authenticate and select the database. Raises `Failure`."""
        config = self._config
        server = await self._find_server()
        password = await config.read_password()
        async with server.log_in(config.user, password, database=config.database) as opened:
            yield RedisSession(config, self._sentinels, server, opened)

    async def _find_server(self) -> RedisServer:
        if self._sentinels is not None:
            host, port = await self._sentinels.find_master()
            if self._server.where != host_and_port(host, port):
                tls, canary = self._config.tls, self._config.canary
                self._server = RedisServer(self._network, host, port, tls=tls, canary=canary)
        return self._server


class RedisSession:
    """A session with Redis, whose end is noticed even while it is idle."""

    def __init__(
        self, config: RedisConfig, sentinels: Sentinels | None, server: RedisServer, opened: Opened
    ) -> None:
        link = opened.link
        self.lost: asyncio.Future[Failure] = opened.connection.lost
        self.peer = link.peer
        self.addresses = link.addresses
        if sentinels is not None and link.peer is not None:  # another port is another master
            self.peer = host_and_port(link.peer, server.port)
            self.addresses = frozenset(host_and_port(address, server.port) for address in link.addresses)
        self._config = config
        self._sentinels = sentinels
        self._where = server.where
        self._connection = opened.connection
        self._link = opened.details
        commands = commands_of(config)
        self._names = tuple(commands)
        self._request = Request.of(*commands.values())
        self._next_request = Request.of(_SET_NAME, *commands.values())
        self._seen: tuple[list[Reply], Mapping[str, Json]] | None = None
        self._repeated = Observation()

    async def probe(self) -> Observation:
        """Send the commands of a probe together, and read their replies. Raises `Failure` when the session is gone.

        Without depth, returns the same object as before if nothing has changed: to judge PONG again takes 120 opcodes.
        """
        replies = await self._connection.exchange(self._next_request)
        self._connection.is_idle = True
        if self._next_request is not self._request:
            self._next_request = self._request
            del replies[0]
        link = self._link.current()
        if self._sentinels is not None:
            link = {**link, **self._sentinels.details(self._where)}
        if self._seen is not None and (replies, link) == self._seen:
            return self._repeated
        observation = judge(self._config, self._where, dict(zip(self._names, replies, strict=True)), link)
        if len(replies) == 1:  # any other than PONG is different each time, and takes kilobytes
            self._seen, self._repeated = (replies, link), observation
        return observation
