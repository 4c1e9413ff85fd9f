"""Owns taking a URL apart, for every kind: where the credentials end, what the host is, and what follows.

No error contains any part of the URL, because a part that cannot be read may be a piece of a password.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote

from connection_exporter.net.names import NOT_A_HOST, host_and_port, is_ipv6, to_ascii

URL_KEYS: Final = ("url", "dsn", "address")
"""The keys of a service that hold a URL or a place, which its config replaces by their parts."""

_PORTS: Final = {"http": 80, "https": 443}
_PLACE: Final = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<name>[^\[\]:]*))(?::(?P<port>[^:\[\]]*))?")
_SOCKET: Final = r"/[^\x00-\x1f\x7f]*"


class Url(NamedTuple):
    """The parts of a URL. Credentials and host are unescaped, path and query are as written.

    A part that is not in the URL is ``None`` or empty. ``path`` begins with a slash if there is one.
    """

    scheme: str
    user: str | None
    password: str | None
    host: str
    port: int | None
    path: str
    query: str


def parse_url(
    url: str, schemes: tuple[str, ...], *, key: str, tolerant: re.Pattern[str] | None = None
) -> Url:
    """Take ``scheme://user:password@host:port/path?query#fragment`` apart, RFC 3986.

    The authority ends at the first ``/``, ``?`` or ``#``, so an ``@`` in the path or query is not the end of the
    credentials. With ``tolerant``, a password may contain these characters and ``@`` unescaped, as psql and redis-cli
    allow: the credentials then end at the first ``@`` that is followed by a host, a port and a path that matches
    ``tolerant``. A host is not checked here but by the type of the field, `parse_host`.

    Raises ValueError, whose text begins with ``key``.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in schemes:
        wanted = " or ".join(f"{s}://" for s in schemes)
        raise ValueError(f"{key}: expected a URL that begins with {wanted}")
    login, place, rest = _split(rest, tolerant=tolerant)
    host, port = _host_and_port(place, key)
    path, _, query = rest.partition("#")[0].partition("?")
    user, colon, password = (login or "").partition(":")
    return Url(
        scheme.lower(),
        unquote(user) or None,
        unquote(password) if colon else None,
        host,
        port,
        path,
        query,
    )


def parse_host(host: str) -> str:
    """Return ``host`` if it is a host name, an IP address or the path of a Unix socket. Raises ValueError.

    A name may have any characters that browsers accept (`to_ascii`).
    """
    if host.startswith("/") and not re.fullmatch(_SOCKET, host):
        raise ValueError(NOT_A_HOST)
    to_ascii(host)
    return host


def parse_port(text: str, *, key: str) -> int:
    """Return the port that ``text`` is. Raises ValueError, whose text begins with ``key``."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise ValueError(f"{key}: the port is not a number from 1 to 65535")
    return int(text)


def place_of(url: str) -> str:
    """Return ``host:port`` of a valid URL, for a label."""
    read = parse_url(url, ("http", "https"), key="url")
    return host_and_port(read.host, read.port or _PORTS[read.scheme])


def _split(rest: str, *, tolerant: re.Pattern[str] | None) -> tuple[str | None, str, str]:
    """Return the credentials, the host with its port, and what follows."""
    authority = _authority(rest)
    if tolerant is not None and ("@" in authority or (":" in authority and not _is_place(authority))):
        for at in _positions(rest, "@"):
            place = _authority(rest[at + 1 :])
            after = rest[at + 1 + len(place) :]
            if _is_place(place) and tolerant.fullmatch(re.split(r"[?#]", after, maxsplit=1)[0]):
                return rest[:at], place, after
    login, at_sign, place = authority.rpartition("@")
    return login if at_sign else None, place, rest[len(authority) :]


def _authority(text: str) -> str:
    return re.split(r"[/?#]", text, maxsplit=1)[0]


def _positions(text: str, character: str) -> Iterator[int]:
    at = text.find(character)
    while at >= 0:
        yield at
        at = text.find(character, at + 1)


def _is_place(place: str) -> bool:
    try:
        host, _ = _host_and_port(place, "")
        return not host or bool(parse_host(host))
    except ValueError:
        return False


def _host_and_port(place: str, key: str) -> tuple[str, int | None]:
    found = _PLACE.fullmatch(place)
    if found is None:
        if "[" in place or (place.count(":") > 1 and "@" not in place):
            raise ValueError(f"{key}: write an IPv6 address in brackets, as in [::1]:5432")
        raise ValueError(f"{key}: the host or the port cannot be read")
    host = unquote(found["name"]) if found["ipv6"] is None else _address(found["ipv6"])
    if found["ipv6"] is not None and not is_ipv6(host):
        raise ValueError(f"{key}: write an IPv6 address in brackets, as in [::1]:5432")
    if "," in host:
        raise ValueError(f"{key}: several hosts in one URL: configure a service for each")
    return host, parse_port(found["port"], key=key) if found["port"] else None


def _address(text: str) -> str:
    """Return what is in brackets: the percent sign of a scope may be escaped (RFC 6874) or not, as in curl."""
    address, percent, scope = text.partition("%")
    return address + percent + (scope[2:] if scope.startswith("25") and len(scope) > 2 else scope)
