"""Builds requests from the config and from redirects.

What comes from files (credentials, headers, a body) is read again for each request, because a file may have changed.
Without files and access tokens, the first request of a probe is always the same, and is built once.
"""

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from connection_exporter import __version__
from connection_exporter.config.http_login import read_header
from connection_exporter.config.secret import SecretFile, leaves
from connection_exporter.config.url import parse_host
from connection_exporter.kinds.http.config import HttpConfig
from connection_exporter.kinds.http.origin import Origin
from connection_exporter.net.names import header_host, host_and_port

if TYPE_CHECKING:
    from connection_exporter.kinds.oauth2 import TokenSource

LOCATION_LIMIT: Final = 8192
"""Bytes of a Location header, as many as a configured path may have."""

_BASE_HEADERS: Final = {
    "User-Agent": f"connection-exporter/{__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
}
_WITH_BODY: Final = ("POST", "PUT", "PATCH")
"""Methods whose requests state the length of their body even if there is none (RFC 9110, section 8.6)."""

_PATH_SAFE: Final = "%!$&'()*+,-./:;=@[]\\_|~"
_QUERY_SAFE: Final = _PATH_SAFE + "?^`{}"
"""Characters that are sent as they are. The others, and all bytes above 127, are percent-encoded as in browsers."""


_RAW: Final = "surrogateescape"
"""Keeps bytes that are not UTF-8, so that they are sent as they were received."""

_COOKIE: Final = re.compile(rb"^cookie:[^\r\n]*", re.IGNORECASE | re.MULTILINE)


class RedirectRefused(Exception):
    """A redirect that is not followed; the text says why."""


class Content(NamedTuple):
    """What may differ in each request: headers from files, those that hold credentials, and the body.

    ``for_proxy`` are the headers of a request that a proxy reads.
    """

    headers: tuple[tuple[str, str], ...]
    body: bytes
    for_proxy: tuple[tuple[str, str], ...] = ()


class Target(NamedTuple):
    """One request: its destination, and the beginning of its bytes.

    ``path`` includes the query. ``cookies`` were set by earlier responses of the chain. ``sends_body`` is false where
    a redirect has dropped the body. ``trusted`` means that the destination is the configured origin, which alone gets
    credentials, configured headers and the body.
    """

    origin: Origin
    method: str
    path: str
    head: bytes
    sends_body: bool
    trusted: bool
    cookies: bytes = b""

    @property
    def url(self) -> str:
        """The URL of the request."""
        scheme = "https" if self.origin.tls else "http"
        return f"{scheme}://{_authority(self.origin)}{self.path}"

    @property
    def place(self) -> str:
        """The URL for messages, without its query, which may contain a secret."""
        return self.url.partition("?")[0]

    def repeats(self, other: "Target") -> bool:
        """Return whether this is the same request as ``other``."""
        return (self.method, self.origin, self.path, self.cookies) == (
            other.method,
            other.origin,
            other.path,
            other.cookies,
        )

    def wire(self, content: Content) -> bytes:
        """Return the bytes to send."""
        headers = content.headers if self.trusted else ()
        if not self.origin.tls:  # otherwise the proxy, if any, reads only the request for a tunnel
            headers += content.for_proxy
        body = content.body if self.sends_body else b""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        if body or self.method in _WITH_BODY:
            lines += f"Content-Length: {len(body)}\r\n"
        head = self.head + lines.encode()
        if self.cookies:
            head = _with_cookies(head, self.cookies)
        return b"".join((head, b"\r\n", body))


class Requests:
    """The requests of one service."""

    def __init__(self, config: HttpConfig, tokens: "TokenSource | None") -> None:
        self._config = config
        self._tokens = tokens
        self._body = (config.body or "").encode()
        self._from_files = [item for item in config.headers.items() if isinstance(item[1], SecretFile)]
        self._changes = tokens is not None or any(
            isinstance(value, SecretFile) for _, value in leaves(config)
        )
        origin = Origin(config.tls is not None, config.host, config.port_in_use)
        path, mark, query = config.path.partition("#")[0].partition("?")
        sends_body = bool(config.body) or config.body_file is not None
        self.first = self._target(
            origin,
            config.method,
            _target(path, query if mark else None),
            sends_body=sends_body,
            trusted=True,
        )
        self.unchanging: bytes | None = None
        """The bytes of the first request once they have been built, in 440 opcodes, if they are always the same."""

    async def content(self) -> Content:
        """Return what goes into the next request; files are read again. Raises `Failure` (auth)."""
        config, body = self._config, self._body
        headers = [(name, await read_header(name, value)) for name, value in self._from_files]
        tokens = self._tokens
        authorization = await (tokens.authorization() if tokens is not None else config.authorization())
        if authorization is not None:
            headers.append(("Authorization", authorization))
        if config.body_file is not None:
            body = (await config.body_file.read("body_file")).encode()
        proxy = await config.proxy.proxy.authorization() if config.proxy is not None else None
        for_proxy = (("Proxy-Authorization", proxy),) if proxy is not None else ()
        content = Content(tuple(headers), body, for_proxy)
        if not self._changes:
            self.unchanging = self.first.wire(content)
        return content

    def may_repeat(self, target: Target, content: Content, status: int) -> bool:
        """Return whether a request that got ``status`` may be accepted with another access token."""
        if self._tokens is None or status != 401 or not target.trusted:
            return False
        return self._tokens.refused(dict(content.headers)["Authorization"])

    def redirected(self, target: Target, *, status: int, location: str) -> Target:
        """Return the request that a redirect asks for. Raises `RedirectRefused`.

        ``location`` is the header's value, decoded as Latin-1. Another origin gets no credentials, no configured
        header and no body, because any of them may be a secret.
        """
        if len(location) > LOCATION_LIMIT:
            raise RedirectRefused(f"a Location of more than {LOCATION_LIMIT} bytes")
        try:
            reference, _, _ = location.encode("latin-1").decode(errors=_RAW).strip().partition("#")
            url = urlsplit(reference)
            origin = _origin(url, target.origin)
        except ValueError:
            raise RedirectRefused("something that is not a URL") from None
        first = self.first.origin
        if (first.tls, first.name.lower(), first.port) == (origin.tls, origin.host, origin.port):
            origin = first  # which may be a Unix socket
        trusted = target.trusted and (origin == first or _is_upgrade(first, origin))
        method, sends_body = target.method, target.sends_body
        if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
            method, sends_body = "GET", False  # RFC 9110, section 15.4
        if sends_body and not trusted:
            raise RedirectRefused("another host, which must not get the body of the request")
        path = _resolved(url, target.path, has_query="?" in reference)
        return self._target(origin, method, path, sends_body=sends_body, trusted=trusted)

    def _target(self, origin: Origin, method: str, path: str, *, sends_body: bool, trusted: bool) -> Target:
        headers = {"Host": _authority(origin), **_BASE_HEADERS}
        if trusted:
            for name, value in self._config.headers.items():
                ours = next((known for known in headers if known.lower() == name.lower()), name)
                if isinstance(value, SecretFile):
                    headers.pop(ours, None)
                else:
                    headers[ours] = value.get_secret_value()
        whole = self._config.proxy is not None and not origin.tls  # RFC 9112, section 3.2.2
        place = f"http://{_authority(origin)}{path}" if whole else path
        lines = [f"{method} {place} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), ""]
        return Target(origin, method, path, "\r\n".join(lines).encode(), sends_body, trusted)


def _with_cookies(head: bytes, cookies: bytes) -> bytes:
    """Add cookies to those that are configured: a request has one Cookie header (RFC 6265, section 5.4)."""
    joined, found = _COOKIE.subn(lambda line: line[0] + b"; " + cookies, head, count=1)
    return joined if found else head + b"Cookie: " + cookies + b"\r\n"


def _origin(url: SplitResult, base: Origin) -> Origin:
    """Return the origin of a reference found at ``base``. Raises ValueError and `RedirectRefused`."""
    if not url.scheme and not url.netloc:
        return base
    scheme = url.scheme or ("https" if base.tls else "http")
    if scheme not in ("http", "https") or not url.hostname:
        raise RedirectRefused("something that is not an http:// or https:// URL")
    tls = scheme == "https"
    port = url.port
    if port == 0:
        raise ValueError("port 0")
    host = unquote(url.hostname)
    if host.startswith("/"):
        # Only the config may name a socket: behind one may be Docker, or the own machine. And `parse_host` would keep
        # each of up to 8 KB, thousands of them.
        raise RedirectRefused("a Unix socket, which no server may choose")
    return Origin(tls, parse_host(host), port or (443 if tls else 80))


def _resolved(url: SplitResult, base: str, *, has_query: bool) -> str:
    """Return the path and query of a reference found at path ``base`` (RFC 3986, section 5.2.2)."""
    base_path, mark, base_query = base.partition("?")
    query = url.query if has_query else None
    if url.netloc or url.path.startswith("/"):
        return _target(_without_dots(url.path), query)
    if url.path:
        return _target(_without_dots(f"{base_path.rpartition('/')[0]}/{url.path}"), query)
    if not has_query and mark:
        query = base_query
    return _target(base_path, query)


def _without_dots(path: str) -> str:
    """Remove ``.`` and ``..`` (RFC 3986, section 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _target(path: str, query: str | None) -> str:
    """Return the target of a request line: everything percent-encoded that has to be, byte by byte."""
    quoted = quote(path or "/", safe=_PATH_SAFE, errors=_RAW)
    return quoted if query is None else f"{quoted}?{quote(query, safe=_QUERY_SAFE, errors=_RAW)}"


def _authority(origin: Origin) -> str:
    """Return the value of the Host header. An IPv6 scope has no meaning for the other end."""
    usual = 443 if origin.tls else 80
    return host_and_port(header_host(origin.host), origin.port if origin.port != usual else None)


def _is_upgrade(first: Origin, second: Origin) -> bool:
    """Return whether this is the same host, from http to https on the default ports: just as trusted as before."""
    return first == Origin(False, second.host, 80) and second == Origin(True, first.host, 443)
