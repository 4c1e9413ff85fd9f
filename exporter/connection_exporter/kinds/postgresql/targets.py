"""Owns the hosts of a service: how each one is written, what it is called, and where its connection leads."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from connection_exporter.config.url import parse_host, parse_port
from connection_exporter.net.names import NOT_A_HOST, host_and_port

MOST: Final = 32
"""Hosts of one service: each one gets a part of `timeout`."""

PORT: Final = 5432
_PLACE: Final = r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<name>[^\[\]:]*))(?::(?P<port>[^:]*))?"


class Target(NamedTuple):
    """One host. ``host`` is as configured; ``address``, if given, is where its connection leads (``hostaddr``)."""

    host: str
    port: int
    address: str | None = None

    @property
    def name(self) -> str:
        """The host and port, or the path of the Unix socket: what messages and details call it."""
        return self._socket or host_and_port(self.host, self.port)

    @property
    def dialed(self) -> str:
        """The host or address to connect to, or the path of the Unix socket."""
        return self.address or self._socket or self.host

    @property
    def is_socket(self) -> bool:
        """Whether this is a Unix socket, over which there is no TLS."""
        return self._socket is not None

    @property
    def _socket(self) -> str | None:
        is_folder = self.host.startswith("/") and self.address is None
        return f"{self.host}/.s.PGSQL.{self.port}" if is_folder else None


def parse_place(text: str) -> tuple[str, int | None]:
    """Read an entry of ``hosts``: ``host``, ``host:port``, ``[::1]:port`` or ``/directory``. Raises ValueError."""
    found = re.fullmatch(_PLACE, text)
    if found is None:
        raise ValueError(NOT_A_HOST)
    host = parse_host(found["name"] if found["ipv6"] is None else found["ipv6"])
    if found["port"] is None:
        return host, None
    try:
        return host, parse_port(found["port"], key="")
    except ValueError as error:
        raise ValueError(str(error).removeprefix(": ")) from None


def targets_of(places: Sequence[str], port: int, addresses: str | None) -> tuple[Target, ...]:
    """Return the hosts in ``places``; ``port`` is that of hosts without their own."""
    each = addresses.split(",") if addresses else [""] * len(places)
    read = zip(map(parse_place, places), each, strict=True)
    return tuple(Target(host, own or port, address.strip() or None) for (host, own), address in read)
