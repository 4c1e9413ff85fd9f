"""Owns the forms of a host name: as people write it, and as the resolver, TLS and HTTP need it.

The configured form is what messages and labels show. Everything that leaves this machine has the ASCII form, which is
that of browsers and curl: UTS 46, non-transitional, so that ``straße.test`` is not ``strasse.test``. Python's own codec
"idna" has the rules of 2003, which lead to other hosts.
"""

import re
import socket
from functools import lru_cache
from typing import Final, Literal

IpVersion = Literal["any", 4, 6]
"""Which addresses of a name are used."""

NOT_A_HOST: Final = "not a host name, an address or the path of a Unix socket"

_NAME: Final = re.compile(r"[-!$()*+.0-9A-Z_a-z~]+")
"""Without a negated class of all Unicode, whose compilation took 3 ms of each start."""
_IPV6: Final = re.compile(r"([0-9A-Fa-f:.]+)(?:%[\w.-]{1,63})?")
"""Its scope has a limit because a server may choose one, in a redirect, and `to_ascii` keeps what it is given."""
_NUMERIC: Final = re.compile(r"(?:[0-9a-fx]+\.){0,3}[0-9][0-9a-fx]*")
_LONGEST_LABEL: Final = 63
_MOST_KEPT: Final = 4096
"""Names whose ASCII form is kept, each in 0.2 KiB. This saves 110 of the 1,100 opcodes of making a connection."""
_LONGEST_NAME: Final = 253  # RFC 1035, section 2.3.4, as text and without the dot at its end


@lru_cache(_MOST_KEPT)
def to_ascii(host: str) -> str:
    """Return a host name in ASCII and lower case, an IPv4 address with four decimal numbers; the rest as it is.

    The rest are IPv6 addresses, with or without a scope, and the paths of Unix sockets. A dot at the end of a name
    stays: the resolver then appends no domain. Raises ValueError, whose text does not contain ``host``.
    """
    if host.startswith("/") or is_ipv6(host):
        return host
    if host.isascii():
        name = host.lower()
    else:
        from connection_exporter.net.idn import mapped  # noqa: PLC0415 - 1 ms, and most names are ASCII

        try:
            name = mapped(host)
        except (UnicodeError, IndexError) as error:
            raise ValueError(NOT_A_HOST) from error
    labels = name.removesuffix(".").split(".")
    if not _NAME.fullmatch(name) or len(name.removesuffix(".")) > _LONGEST_NAME or not all(labels):
        raise ValueError(NOT_A_HOST)
    if max(map(len, labels)) > _LONGEST_LABEL:
        raise ValueError(NOT_A_HOST)
    return _canonical_ipv4(name)


def is_ipv6(host: str) -> bool:
    """Return whether ``host`` is an IPv6 address, with or without a scope such as ``%eth0``."""
    found = _IPV6.fullmatch(host)
    return found is not None and _is_number(found[1], socket.AF_INET6)


def is_ip(host: str) -> bool:
    """Return whether ``host`` is already an IP address, with or without an IPv6 scope such as ``%eth0``."""
    return _is_number(host, socket.AF_INET) or is_ipv6(host)


def wrong_version(host: str, ip_version: IpVersion) -> str | None:
    """Return a text if ``host`` is an IP address that ``ip_version`` excludes. Raises ValueError if it is no host."""
    name = to_ascii(host)
    if ip_version == "any" or not is_ip(name):
        return None
    version = 6 if ":" in name else 4
    return (
        f"{host} is an IPv{version} address, but ip_version is {ip_version}"
        if version != ip_version
        else None
    )


def certificate_name(host: str) -> str:
    """Return ``host`` as certificates and SNI write it (RFC 6066, section 3). Raises ValueError.

    It has no dot after the last label, and an IPv6 address no scope.
    """
    return to_ascii(host).partition("%")[0].removesuffix(".") if not host.startswith("/") else "localhost"


def header_host(host: str) -> str:
    """Return ``host`` as the header Host and CONNECT write it, without the brackets of IPv6. Raises ValueError.

    A dot at the end stays, as in curl. The scope of an IPv6 address has no meaning for the other end.
    """
    return "localhost" if host.startswith("/") else to_ascii(host).partition("%")[0]


def host_and_port(host: str, port: int | None) -> str:
    """Return ``host:port``, or the host alone, with an IPv6 address in brackets."""
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


def with_ascii(host: str) -> str:
    """Return ``host`` for a message, with its ASCII form beside it if this is another name."""
    name = to_ascii(host)
    return host if host.isascii() else f"{host} ({name})"


def _is_number(address: str, family: socket.AddressFamily) -> bool:
    try:
        socket.inet_pton(family, address)
    except (OSError, ValueError):
        return False
    return True


def _canonical_ipv4(name: str) -> str:
    """Return an IPv4 address in its usual form: resolvers, browsers and curl take ``127.1`` and ``0x7f000001`` too."""
    if not _NUMERIC.fullmatch(name):
        return name
    try:
        return socket.inet_ntoa(socket.inet_aton(name))
    except OSError:
        return name
