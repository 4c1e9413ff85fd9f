"""Owns the config of kind redis. Must not import the driver."""

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from connection_exporter.config.service import Host, Login, Port, ServiceConfig
from connection_exporter.config.strict import Strict
from connection_exporter.config.tls import TlsConfig
from connection_exporter.config.url import parse_host, parse_url
from connection_exporter.kinds.redis.url import read_url
from connection_exporter.net.names import host_and_port, to_ascii

Address = tuple[str, int]
"""A host and a port."""

_NOT_WITH_SENTINEL: Final = {
    "url": "remove `url`, and write `user`, `password_file`, `database` and `tls` as keys",
    "host": "remove `host`, and list the sentinels as `sentinel.nodes`",
    "port": "remove `port`, and write the port of a sentinel after its host",
}
_SENTINEL_PORT: Final = 26379
_MOST_NODES: Final = 32


def _node(text: object) -> Address | None:
    """Return the address of a sentinel that is written ``host`` or ``host:port``."""
    if not isinstance(text, str) or re.search(r"[/?#@\s]", text):
        return None
    try:
        read = parse_url(f"redis://{text}", ("redis",), key="")
        host = parse_host(read.host)
    except ValueError:
        return None
    return None if host.startswith("/") else (host, read.port or _SENTINEL_PORT)


def _same(address: tuple[str, int] | None) -> tuple[str, int] | None:
    """Return an address in a form that is equal for all ways to write it."""
    if address is None:
        return None
    host, port = address
    try:
        return str(ip_address(host)), port
    except ValueError:
        return to_ascii(host).lower(), port


def _nodes(given: object) -> object:
    if not isinstance(given, list) or not 0 < len(given) <= _MOST_NODES:
        raise ValueError(f"expected a list of 1 to {_MOST_NODES} sentinels, as in [sentinel-1:26379]")
    addresses = [_node(text) for text in given]
    if wrong := [str(number) for number, address in enumerate(addresses, 1) if address is None]:
        which = f"entry {wrong[0]} is" if len(wrong) == 1 else f"entries {', '.join(wrong)} are"
        raise ValueError(f"{which} not host:port, as in sentinel-1:26379 or [::1]:26379")
    if len({_same(address) for address in addresses}) < len(addresses):
        raise ValueError("a sentinel is listed twice: remove one, because each has one vote")
    return given


def _master(name: str) -> str:
    if not re.fullmatch(r"[^\s\x00-\x20\x7f,/@]{1,100}", name):
        raise ValueError("expected the name of the master in sentinel.conf, as in `sentinel monitor NAME …`")
    return name


class SentinelConfig(Login):
    """The sentinels, and the name under which they know the master."""

    SHAPE = "{master: mymaster, nodes: [sentinel-1:26379]}"

    master: Annotated[str, AfterValidator(_master)] = Field(description="name of the master in sentinel.conf")
    nodes: Annotated[list[str], BeforeValidator(_nodes)] = Field(
        description="the sentinels, as host:port; the default port is 26379"
    )
    tls: TlsConfig | None = Field(None, description="TLS towards the sentinels")

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The sentinels, each as a host and a port."""
        return tuple(address for node in self.nodes if (address := _node(node)) is not None)


class RedisExpect(Strict):
    """What has to be true beyond an answer to PING."""

    role: Literal["master", "replica"] | None = Field(None, description="role that the server must have")
    master_link_up: Literal[True] | None = Field(
        None, description="a replica must be connected to its master"
    )


def _expect_needs_depth(config: "RedisConfig") -> str | None:
    wanted = [key for key in ("role", "master_link_up") if getattr(config.expect, key) is not None]
    if not wanted or config.depth:
        return None
    return f"expect.{wanted[0]} needs INFO, which depth: false turns off: remove one of them"


def _sentinel_alone(config: "RedisConfig") -> str | None:
    if config.sentinel is None:
        return None
    if config.cluster:
        return "cluster: Sentinel does not manage a Redis Cluster: keep `sentinel` or `cluster`"
    if config.expect.role == "replica" or config.expect.master_link_up is not None:
        return "expect: Sentinel always leads to the master: remove the conditions on a replica"
    return None


class RedisConfig(ServiceConfig, Login):
    """A Redis or Valkey server, held by one connection."""

    RULES = (_expect_needs_depth, _sentinel_alone)

    OTHER_NAMES: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("address", "addr", "dsn", "uri"), "url"),
        "db": "database",
        "username": "user",
    }

    kind: Literal["redis"]
    url: str | None = Field(
        None,
        description="redis://user:password@host:port/database, rediss:// for TLS, unix:///path, or host:port",
    )
    host: Host = Field("localhost", description="host name, address or path of the Unix socket")
    port: Port = Field(6379, description="port")
    database: int = Field(0, ge=0, description="number of the database")
    tls: TlsConfig | None = Field(None, description="TLS; also turned on by rediss://")
    sentinel: SentinelConfig | None = Field(
        None, description="connect to the master that a quorum of the sentinels names, instead of `host`"
    )
    cluster: bool = Field(
        False, description="a node of a Redis Cluster: also ask for its state (CLUSTER INFO)"
    )
    expect: RedisExpect = Field(RedisExpect(), description="conditions on the server")
    depth: bool = Field(True, description="also ask for role, memory, clients, persistence (INFO)")

    @classmethod
    def parse_given(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Replace the URL by its parts. Raises ValueError."""
        if given.get("sentinel") is not None:
            for key, instead in _NOT_WITH_SENTINEL.items():
                if given.get(key) is not None:
                    raise ValueError(f"{key}: the sentinels name the server: {instead}")
        if not isinstance(url := given.get("url"), str):
            return given
        read = read_url(url)
        if both := [key for key in read.given if given.get(key) is not None]:
            raise ValueError(f"url and {both[0]} both set {both[0]}: keep one")
        tls: dict[str, Any] = {"tls": {}} if read.tls and given.get("tls") is None else {}
        return {**given, **tls, **read.given, "url": None}

    @classmethod
    def warn_about(cls, given: dict[str, Any]) -> Iterator[str]:
        """Yield a warning for parameters of the URL that have no effect."""
        if isinstance(url := given.get("url"), str):
            yield from read_url(url).warnings

    @property
    def address(self) -> str:
        """The configured host:port or path of the Unix socket; with Sentinel, ``node,node/master``."""
        if self.sentinel is not None:
            nodes = ",".join(host_and_port(*address) for address in self.sentinel.addresses)
            return f"{nodes}/{self.sentinel.master}"
        return self.host if self.host.startswith("/") else host_and_port(self.host, self.port)
