"""Owns requests: from config or redirect to bytes, and the credentials that go with them.

Bytes are made once per service; credentials join them at each request, so that a renewed file counts.
"""

import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_plus

import httpx

from exporter import __version__
from exporter.check import Failure
from exporter.checks.http_connection import Origin
from exporter.config.kinds.http import HttpConfig
from exporter.config.secret import Stamp, read_secret, stamp_of
from exporter.core.health import Reason

_BASE_HEADERS: Final = (
    ("User-Agent", f"connection-exporter/{__version__}"),
    ("Accept", "*/*"),
    ("Accept-Encoding", "identity"),
)
_BREAKS: Final = re.compile(r"[\x00-\x1f\x7f]")
_SHORTEST_SECRET: Final = 4
_SHORTEST_KEY: Final = 8
"""Characters of what is taken for a secret in a query or a body: less would only tear words apart."""


class RedirectRefused(Exception):
    """A redirect that is not followed; its text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """One request: where it goes, and its bytes around the credentials.

    ``trusted`` says that it goes to the configured origin, and so may carry credentials and the
    configured headers.
    """

    origin: Origin
    url: httpx.URL
    method: str
    head: bytes
    body: bytes
    trusted: bool

    @property
    def place(self) -> str:
        """The URL for messages: without its query, which may hold a secret."""
        return str(self.url.copy_with(query=None, userinfo=b""))

    def wire(self, credentials: bytes) -> bytes:
        """Return the bytes to send; ``credentials`` is a header line or nothing."""
        return b"".join((self.head, credentials if self.trusted else b"", b"\r\n", self.body))


class Requests:
    """The requests of one service."""

    def __init__(self, config: HttpConfig) -> None:
        self._config = config
        origin = Origin(config.tls is not None, config.host, config.port_in_use)
        host = origin.name.partition("%")[0]  # an IPv6 scope means nothing to the other end
        scheme = "https" if origin.tls else "http"
        url = httpx.URL(f"{scheme}://{f'[{host}]' if ':' in host else host}:{origin.port}{config.path}")
        body = (config.body or "").encode()
        self.first = Target(
            origin, url, config.method, self._head(url, config.method, True, body), body, True
        )

    def redirected(self, target: Target, *, status: int, location: str) -> Target:
        """Return the request that a redirect asks for. Raises `RedirectRefused`.

        Another origin gets no credentials, no configured header and no body: any may be a secret.
        """
        try:
            url = target.url.join(location).copy_with(fragment=None)
        except (httpx.InvalidURL, ValueError):
            raise RedirectRefused("what is no URL") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise RedirectRefused("what is no http:// or https:// URL")
        origin = _origin(url)
        if not 0 < origin.port < 65536:
            raise RedirectRefused("a port that cannot be")
        first = self.first
        if url.scheme == first.url.scheme and _origin(first.url) == origin:
            origin = first.origin  # a Unix socket stays one
        trusted = target.trusted and (origin == first.origin or _is_upgrade(first.origin, origin))
        method, body = target.method, target.body
        if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
            method, body = "GET", b""  # RFC 9110, section 15.4
        if body and not trusted:
            raise RedirectRefused("another host, which is not to get the body of the request")
        return Target(origin, url, method, self._head(url, method, trusted, body), body, trusted)

    def _head(self, url: httpx.URL, method: str, trusted: bool, body: bytes) -> bytes:
        headers = httpx.Headers(_BASE_HEADERS, encoding="utf-8")
        if trusted:
            for name, value in self._config.headers.items():
                headers[name] = value.get_secret_value()
        request = httpx.Request(method, url, headers=headers, content=body or None)
        lines = [b"%s %s HTTP/1.1" % (method.encode(), url.raw_path)]
        lines += [b"%s: %s" % header for header in request.headers.raw]
        return b"\r\n".join(lines) + b"\r\n"


class Credentials:
    """The ``Authorization`` of one service, read again whenever the file that holds it has changed."""

    def __init__(self, config: HttpConfig) -> None:
        self._config = config
        self._path = config.bearer_token_file or config.password_file
        self._stamp: Stamp | None = None
        self._secret = ""
        self._line = b""
        if self._path is None:
            self._renew()

    def line(self) -> bytes:
        """Return the header line, or nothing where there are no credentials. Raises `Failure` (auth)."""
        if self._path is None:
            return self._line
        try:
            stamp = stamp_of(self._path)
            if stamp != self._stamp:
                self._renew()
                self._stamp = stamp
        except OSError as error:
            raise Failure(Reason.AUTH, f"{self._path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise Failure(Reason.AUTH, f"{self._path} holds no credential") from error
        return self._line

    def redacted(self, message: str) -> str:
        """Return ``message`` without what the service was sent in confidence, should it have sent it back."""
        for secret in self._secrets():
            message = message.replace(secret, "***")
        return message

    def _renew(self) -> None:
        config = self._config
        token = config.bearer_token
        if config.bearer_token_file is not None:
            self._secret = read_secret(config.bearer_token_file).strip()
            value = f"Bearer {self._secret}"
        elif token is not None:
            self._secret = token.get_secret_value()
            value = f"Bearer {self._secret}"
        elif config.user is not None:
            self._secret = config.read_password() or ""
            value = "Basic " + b64encode(f"{config.user}:{self._secret}".encode()).decode()
        else:
            return
        if _BREAKS.search(value) or (self._path is not None and not self._secret):
            raise ValueError("a line break, or nothing")
        self._line = f"Authorization: {value}\r\n".encode()

    def _secrets(self) -> Iterator[str]:
        """Yield all that may be secret, a longer one before what is part of it."""
        _, _, query = self._config.path.partition("?")
        told = [self._secret, self._line.rpartition(b" ")[2].strip().decode()]
        told += [value.get_secret_value() for value in self._config.headers.values()]
        yield from (secret for secret in told if len(secret) >= _SHORTEST_SECRET)
        asked = [self._config.body or "", query, *(pair.partition("=")[2] for pair in query.split("&"))]
        for value in (*asked, *map(unquote_plus, asked[1:])):
            if len(value) >= _SHORTEST_KEY:
                yield value


def _origin(url: httpx.URL) -> Origin:
    tls = url.scheme == "https"
    return Origin(tls, url.raw_host.decode(), url.port or (443 if tls else 80))


def _is_upgrade(first: Origin, second: Origin) -> bool:
    """Tell whether it is the same host, from http to https on their own ports: as much ours as before."""
    return first == Origin(False, second.host, 80) and second == Origin(True, first.host, 443)
