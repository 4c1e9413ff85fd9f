"""Owns kind redis: one connection held open, and what Redis' answers mean. Valkey speaks the same.

A probe is PING and INFO in one round trip. Only PING decides whether there is an answer: a user who may
not call INFO, or a server that does not have it, leaves the depth out and is none the worse for it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from exporter.check import Failure, Json, Metric, MetricType, Observation, Session, Traits
from exporter.checks.redis_link import RedisLink
from exporter.checks.redis_wire import ERRORS, Refusal
from exporter.config.kinds.redis import RedisConfig
from exporter.core.health import Reason
from exporter.net import Network
from exporter.net.certificate import CERTIFICATE_EXPIRY_METRIC
from exporter.net.failures import REASONS


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
        "Whether writes are refused for want of memory: it is full, and nothing may be evicted.",
    ),
    _gauge("connected_clients", "Client connections to the server."),
    _gauge("max_clients", "Client connections that the server allows."),
    _gauge("rdb_last_save_ok", "Whether the last snapshot (RDB) was written."),
    _gauge("aof_last_write_ok", "Whether the last write to the append-only file (AOF) succeeded."),
    CERTIFICATE_EXPIRY_METRIC,
)

_LONGEST_FACT: Final = 100
"""Characters. They are shown in JSON, and Python refuses to read numbers of thousands of digits."""

_WANTED: Final = tuple(
    (key, f"\n{key}:")
    for key in (
        "redis_version",
        "valkey_version",
        "connected_clients",
        "maxclients",
        "used_memory",
        "maxmemory",
        "maxmemory_policy",
        "mem_not_counted_for_evict",
        "loading",
        "loading_loaded_perc",
        "rdb_last_bgsave_status",
        "aof_last_write_status",
        "role",
        "connected_slaves",
        "master_link_status",
        "master_link_down_since_seconds",
    )
)


class RedisCheck:
    """One Redis or Valkey server."""

    Config = RedisConfig
    traits = Traits(
        reasons=REASONS | ERRORS | {Reason.ROLE, Reason.SLOW, Reason.QUERY},
        metrics=_METRICS,
    )

    def __init__(self, config: RedisConfig, network: Network) -> None:
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
        """Connect, authenticate and select the database. Raises `Failure`."""
        link = RedisLink(self._config, self._network)
        try:
            await link.open()
            self._certificate.update(link.certificate)
            yield _Held(self._config, link, self._certificate)
        finally:
            link.abort()


class _Held:
    """A connection to Redis that is watched while it is idle."""

    def __init__(self, config: RedisConfig, link: RedisLink, certificate: Mapping[str, Json]) -> None:
        self._config = config
        self._link = link
        self._certificate = certificate
        self._question = b"".join(
            link.pack_command("PING") + (link.pack_command("INFO") if config.depth else [])
        )
        # Shows who we are in CLIENT LIST. A server or an ACL that refuses it has said nothing about health.
        self._introduction = b"".join(link.pack_command("CLIENT", "SETNAME", "connection-exporter"))

    @property
    def lost(self) -> "asyncio.Future[Failure]":
        return self._link.lost

    @property
    def peer(self) -> str | None:
        return self._link.peer

    @property
    def addresses(self) -> frozenset[str]:
        return self._link.addresses

    async def probe(self) -> Observation:
        """Send PING and INFO together, and read both answers. Raises `Failure` when the session is gone."""
        link, introduction = self._link, self._introduction
        self._introduction = b""
        pong: object = None
        info: object = None
        try:
            link.ask(introduction + self._question)
            if introduction:
                await link.answer()
            pong = await link.answer()
            if self._config.depth:
                info = await link.answer()
        except asyncio.CancelledError as cancelled:
            command = "PING" if pong is None else "INFO"
            silent = Failure(Reason.TIMEOUT, f"{self._config.address} does not answer {command}")
            raise cancelled from silent
        link.rest()
        return _judge(self._config, pong, info, {**link.phases, **self._certificate})


def _judge(config: RedisConfig, pong: object, info: object, details: dict[str, Json]) -> Observation:
    facts = _facts(info) if isinstance(info, str) else {}
    if config.depth:
        details.update(_depth(facts))
        details["info_error"] = info.line if isinstance(info, Refusal) else None
    if isinstance(pong, Refusal):
        loaded = facts.get("loading_loaded_perc") if facts.get("loading") == "1" else None
        return Observation(pong.reason, f"{pong.line} ({loaded} % loaded)" if loaded else pong.line, details)
    if pong != "PONG":
        raise Failure(Reason.PROTOCOL, f"{config.address} answers PING with {str(pong)[:80]!r}")
    if bad := _unmet(config, facts, details):
        return Observation(bad[0], bad[1], details)
    return Observation(details=details)


def _facts(info: str) -> Mapping[str, str]:
    """Pick what we want from INFO, whose lines are ``key:value`` (https://redis.io/docs/latest/commands/info/)."""
    facts = {}
    for key, beginning in _WANTED:  # a third cheaper than to split all of its 170 lines
        at = info.find(beginning)
        if at >= 0:
            at += len(beginning)
            facts[key] = info[at : info.find("\r", at)][:_LONGEST_FACT]
    return facts


def _depth(facts: Mapping[str, str]) -> dict[str, Json]:
    role = facts.get("role")
    link = facts.get("master_link_status")
    return {
        "server_version": facts.get("valkey_version") or facts.get("redis_version"),
        "role": "replica" if role == "slave" else role,
        "replica": role == "slave" if role else None,
        "master_link_up": link == "up" if link else None,
        "connected_replicas": _number(facts, "connected_slaves"),
        "memory_used_bytes": _number(facts, "used_memory"),
        "memory_max_bytes": _number(facts, "maxmemory") or None,
        "memory_policy": facts.get("maxmemory_policy"),
        "memory_full": _memory_full(facts),
        "connected_clients": _number(facts, "connected_clients"),
        "max_clients": _number(facts, "maxclients"),
        "rdb_last_save_ok": _ok(facts, "rdb_last_bgsave_status"),
        "aof_last_write_ok": _ok(facts, "aof_last_write_status"),
        "loading": facts["loading"] == "1" if "loading" in facts else None,
    }


def _number(facts: Mapping[str, str], key: str) -> int | None:
    value = facts.get(key, "")
    return int(value) if value.isascii() and value.isdigit() else None


def _ok(facts: Mapping[str, str], key: str) -> bool | None:
    return facts[key] == "ok" if key in facts else None


def _memory_full(facts: Mapping[str, str]) -> bool | None:
    """Tell whether Redis refuses writes for want of memory, by its own rule (evict.c, getMaxmemoryState).

    A replica does not count, since it takes what its master sends; nor does a policy that evicts, since
    such a server is always about full.
    """
    used, limit = _number(facts, "used_memory"), _number(facts, "maxmemory")
    if used is None or limit is None:
        return None
    counted = used - (_number(facts, "mem_not_counted_for_evict") or 0)
    return (
        facts.get("role") == "master"
        and facts.get("maxmemory_policy") == "noeviction"
        and 0 < limit < counted
    )


def _unmet(
    config: RedisConfig, facts: Mapping[str, str], details: Mapping[str, Json]
) -> tuple[Reason, str] | None:
    """Return what is wrong with a server that answers PING: the first that matters."""
    expect = config.expect
    if (expect.role or expect.master_link_up) and "role" not in facts:
        return (
            Reason.PERMISSION,
            f"the role cannot be told: {details.get('info_error') or 'INFO does not say it'}",
        )
    if expect.role is not None and details["role"] != expect.role:
        return Reason.ROLE, f"the server is a {details['role']}, not a {expect.role}"
    if expect.master_link_up and details["master_link_up"] is False:
        since = facts.get("master_link_down_since_seconds", "?")
        return Reason.ROLE, f"the replica has lost its master (for {since} s)"
    if details.get("memory_full"):
        used, limit = facts["used_memory"], facts["maxmemory"]
        return Reason.QUERY, f"the memory is full ({used} of {limit} bytes, noeviction): writes are refused"
    return None
