"""The config of an HTTP proxy, as a URL or as a mapping. Proxies in environment variables are never used."""

from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BeforeValidator, Field

from connection_exporter.config.http_login import basic_authorization, password_has_a_user, user_has_no_colon
from connection_exporter.config.service import Login
from connection_exporter.config.tls import TlsConfig
from connection_exporter.config.url import parse_host, parse_url
from connection_exporter.net.names import NOT_A_HOST, host_and_port

if TYPE_CHECKING:
    from connection_exporter.net import Proxy

_EXAMPLE: Final = "http://proxy.example.com:3128"
_SCHEMES: Final = ("http", "https")
_SOCKS: Final = ("socks", "socks4", "socks4a", "socks5", "socks5h")


def _tls_fits(proxy: "ProxyConfig") -> str | None:
    if proxy.tls is not None and proxy.url.startswith("http:"):
        return "tls needs https://: change the url or remove tls"
    return None


class ProxyConfig(Login):
    """An HTTP proxy. A password in a file is read again for each connection."""

    SHAPE = f"{{url: {_EXAMPLE}, user: …, password_file: …}}"
    RULES = (password_has_a_user, user_has_no_colon, _tls_fits)

    url: str = Field(description=f"the proxy, as in {_EXAMPLE}, or with https://")
    tls: TlsConfig | None = Field(None, description="TLS to a proxy with an https URL")

    @classmethod
    def parse_given(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Take the credentials out of the URL. Raises ValueError."""
        if not isinstance(url := given.get("url"), str):
            return given
        parts = _parse(url.strip())
        if both := [key for key in parts if key in given and key != "url"]:
            raise ValueError(f"url and {both[0]} both set {both[0]}: keep one")
        return {**given, **parts}

    @property
    def proxy(self) -> "Proxy":
        """The proxy as a value of the network layer."""
        from connection_exporter.net import Proxy  # noqa: PLC0415 - 20 ms, for sockets and TLS

        read = parse_url(self.url, _SCHEMES, key="url")
        assert read.port is not None, "checked by `parse_given`"
        tls = (self.tls or TlsConfig()).options if read.scheme == "https" else None
        return Proxy(read.host, read.port, lambda: basic_authorization(self), tls)


def _parse(url: str) -> dict[str, str]:
    """Return the URL without credentials, and these. Raises ValueError, whose text contains no part of the URL."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme.lower() in _SOCKS:
        raise ValueError(
            "SOCKS proxies are not supported: use the HTTP port of this proxy, or put an HTTP proxy in front of it"
        )
    read = parse_url(url if separator else f"http://{url}", _SCHEMES, key="url")
    if not read.host or read.host.startswith("/"):
        raise ValueError("url: " + ("the host is missing" if not read.host else NOT_A_HOST))
    if read.port is None:
        raise ValueError(f"url: the port is missing: write it, as in {_EXAMPLE}")
    if read.path.strip("/") or read.query:
        raise ValueError(f"url: expected only a host and a port, as in {_EXAMPLE}")
    parts = {"url": f"{read.scheme}://{host_and_port(parse_host(read.host.lower()), read.port)}"}
    if read.user is not None:
        parts["user"] = read.user
    if read.password is not None:
        parts["password"] = read.password
    return parts


def _as_mapping(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


ProxyField = Annotated[
    ProxyConfig | None, BeforeValidator(_as_mapping, json_schema_input_type=str | ProxyConfig | None)
]
"""A proxy, written as a URL or as a mapping."""
