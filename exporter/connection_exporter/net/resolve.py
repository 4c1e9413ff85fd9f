"""Resolves names, each in a thread of its own, with one look-up in flight per name.

``getaddrinfo`` cannot be cancelled, and asyncio runs it in a small shared pool: twenty names whose resolver is silent
would stop every other look-up, and the pool would hold up the exit.
"""

import socket
from typing import Any, Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net.failures import NO_THREADS
from connection_exporter.net.names import IpVersion, is_ip, to_ascii, with_ascii, wrong_version
from connection_exporter.system.threads import NoThread, SharedWork, WorkDied

_FAMILIES: Final = {"any": socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}
_LOOPBACK: Final[dict[IpVersion, tuple[str, ...]]] = {
    "any": ("127.0.0.1", "::1"),
    4: ("127.0.0.1",),
    6: ("::1",),
}


def literal(host: str, ip_version: IpVersion = "any") -> tuple[str, ...]:
    """Return ``host`` itself if it is an IP address, and nothing if it is a name.

    The resolver would return the same, but in a thread, with 0.1 ms of CPU.

    ``host`` may have any characters (`to_ascii`). Raises `Failure`: dns if it is not valid, or unreachable for an
    address of the other version.
    """
    try:
        name = to_ascii(host)
    except ValueError as error:
        raise Failure(Reason.DNS, f"{host} does not resolve: {error}") from error
    if not is_ip(name):
        return ()
    if (problem := wrong_version(host, ip_version)) is not None:
        raise Failure(Reason.UNREACHABLE, problem)
    return (name,)


class Resolver:
    """Look-ups that callers share while they are in flight. Belongs to one event loop."""

    def __init__(self) -> None:
        self._lookups: SharedWork[tuple[str, IpVersion], tuple[str, ...]] = SharedWork()

    async def resolve(self, host: str, ip_version: IpVersion = "any") -> tuple[str, ...]:
        """Return the IP addresses of the name ``host``, in the system's order of preference.

        The resolver gets its ASCII form (`to_ascii`). Raises `Failure`: dns, or internal where no thread can be
        started.
        """
        key = (host, ip_version)
        name = f"resolve {to_ascii(host)}"
        try:
            return await self._lookups.run(key, lambda: _look_up(host, ip_version), name=name)
        except NoThread as error:
            raise Failure(Reason.INTERNAL, NO_THREADS) from error
        except WorkDied as error:
            raise Failure(Reason.INTERNAL, f"{host}: the resolver failed: {error}") from error


def with_scope(sockaddr: tuple[Any, ...]) -> str:
    """Return the address of ``sockaddr``, with the IPv6 scope that Python keeps beside it (``fe80::1%2``)."""
    host, scope = str(sockaddr[0]), sockaddr[3] if len(sockaddr) == 4 else 0
    return f"{host}%{scope}" if scope and "%" not in host else host


def _look_up(host: str, ip_version: IpVersion) -> tuple[str, ...]:
    shown = with_ascii(host)
    wanted = "" if ip_version == "any" else f" to an IPv{ip_version} address"
    try:
        found = socket.getaddrinfo(
            to_ascii(host).encode(), None, family=_FAMILIES[ip_version], type=socket.SOCK_STREAM
        )
        addresses = tuple(dict.fromkeys(with_scope(address) for *_, address in found))
    except Exception as error:
        # As in browsers and curl (RFC 6761, 6.3). Few resolvers know the names below localhost.
        if f".{to_ascii(host)}".removesuffix(".").endswith(".localhost"):
            return _LOOPBACK[ip_version]
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        problem = f"{shown} does not resolve{wanted}: {text or type(error).__name__}"
        raise Failure(Reason.DNS, problem) from error
    if not addresses:
        raise Failure(Reason.DNS, f"{shown} does not resolve{wanted}: the resolver returns no address")
    return addresses
