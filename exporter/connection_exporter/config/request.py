"""What the configs of http and websocket share, because both begin with an HTTP request: address and login."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from pydantic import Field

from connection_exporter.config.http_login import CONTROL, HeaderValue, HttpLogin
from connection_exporter.config.oauth2 import OAuth2Config
from connection_exporter.config.proxy import ProxyField
from connection_exporter.config.service import Host, Port, ServiceConfig
from connection_exporter.config.strict import Rule
from connection_exporter.config.tls import INSECURE, TlsConfig
from connection_exporter.config.url import parse_url
from connection_exporter.net.names import host_and_port

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2

UNREADABLE_URL: Final = (
    "url: the host or the port cannot be read; ports are 1 to 65535, an IPv6 address is written "
    "in brackets, and a password with / ? # in it belongs in `user` and `password`"
)


def _has_a_host(config: "RequestConfig") -> str | None:
    if config.is_written("host"):
        return None
    plain, secure = config._SCHEMES  # noqa: SLF001 - a rule belongs to the class
    return f"`url` is missing: write {plain}://… or {secure}://…, or `host`"


def _proxy_fits(config: "RequestConfig") -> str | None:
    if config.proxy is not None and config.host.startswith("/"):
        return "proxy: a Unix socket cannot be reached through a proxy: remove one of them"
    return None


class RequestConfig(ServiceConfig, HttpLogin):
    """Where a request goes, and its credentials. ``_SCHEMES`` are the schemes of the URL: without and with TLS."""

    _SCHEMES: ClassVar[tuple[str, str]]
    RULES: ClassVar[tuple[Rule, ...]] = (_has_a_host, _proxy_fits)

    OTHER_NAMES: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("address", "addr", "endpoint", "target", "uri"), "url"),
        "username": "user",
        "basic_auth": "user: …, password_file: …",
        "authorization": "bearer_token_file",
        "proxy_url": "proxy",
        "tls_config": "tls",
        **dict.fromkeys(INSECURE, "tls: {verify: false}"),
    }

    url: str | None = None
    host: Host = Field("localhost", description="host name, address or path of a Unix socket")
    port: Port | None = Field(None, description="port; by default 80, or 443 with TLS")
    path: str = "/"
    tls: TlsConfig | None = None
    proxy: ProxyField = Field(None, description="HTTP proxy: a URL, or a mapping with the password in a file")
    headers: dict[str, HeaderValue] = Field({})
    oauth2: OAuth2Config | None = Field(None, description="OAuth 2.0 with client credentials")

    @classmethod
    def _refuse(cls, url: str) -> None:
        """Raise ValueError for a character that a URL of this kind must not contain."""
        if CONTROL.search(url):
            raise ValueError("url: a control character must be escaped")

    @classmethod
    def parse_given(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Replace the URL by its parts. Raises ValueError."""
        if not isinstance(url := given.get("url"), str):
            return given
        parts = cls._url_parts(url)
        _, secure = cls._SCHEMES
        if parts.pop("scheme") == secure:
            if given.get("tls") is None:
                given = {**given, "tls": {}}
        elif given.get("tls") is not None:
            raise ValueError(f"tls needs {secure}://: change the url or remove tls")
        if both := [key for key in parts if key in given]:
            raise ValueError(f"url and {both[0]} both set {both[0]}: keep one")
        return {**given, **parts, "url": None}

    @classmethod
    def _url_parts(cls, url: str) -> dict[str, object]:
        """Parse the URL strictly: a path may contain ``@``, so a login must be escaped."""
        try:
            read = parse_url(url.strip(), cls._SCHEMES, key="url")
        except ValueError as error:
            if "expected a URL" in str(error):
                raise
            raise ValueError(UNREADABLE_URL) from None
        if not read.host:
            raise ValueError("url: the host is missing")
        cls._refuse(url)
        path = (read.path or "/") + (f"?{read.query}" if read.query else "")
        parts: dict[str, object] = {"scheme": read.scheme, "host": read.host.lower(), "path": path}
        if read.port is not None:
            parts["port"] = read.port
        if read.user:
            parts["user"] = read.user
        if read.password is not None:
            parts["password"] = read.password
        return parts

    @property
    def address(self) -> str:
        """The configured host:port, or the path of the Unix socket."""
        return self.host if self.host.startswith("/") else host_and_port(self.host, self.port_in_use)

    @property
    def port_in_use(self) -> int:
        """The port to connect to."""
        return self.port or (443 if self.tls is not None else 80)
