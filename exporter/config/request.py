"""Owns what the configs of http and websocket share, since both begin with an HTTP request: its address, its login."""

import re
from typing import Annotated, Any, ClassVar, Final, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from exporter.config.service import FilePath, Login, Port, ServiceConfig, TlsConfig, host_and_port

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

UNREADABLE_URL: Final = (
    "url: the host or the port cannot be read; ports are 1 to 65535, an IPv6 address stands in brackets, "
    "and a password with / ? # in it goes to `user` and `password`"
)

_HOST: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?")


def _host(host: str) -> str:
    if host.startswith("/") or _IPV6.fullmatch(host):
        return host
    try:
        name = host.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name):
        raise ValueError("not a host name, an address or the path of a Unix socket")
    return name


def _header_value(value: SecretStr) -> SecretStr:
    if CONTROL.search(value.get_secret_value()):
        raise ValueError("a header cannot hold a line break or another control character")
    return value


HeaderValue = Annotated[SecretStr, AfterValidator(_header_value)]


class RequestConfig(ServiceConfig, Login):
    """Where a request goes, and with what right. ``_SCHEMES`` are those of its URL: without and with TLS."""

    _SCHEMES: ClassVar[tuple[str, str]]

    url: str | None = None
    host: Annotated[str, AfterValidator(_host)] = Field(
        "localhost", description="host name, address or path of a Unix socket"
    )
    port: Port | None = Field(None, description="port; 80, or 443 with TLS, if absent")
    path: str = "/"
    tls: TlsConfig | None = None
    headers: dict[str, HeaderValue] = Field({})
    bearer_token: SecretStr | None = Field(None, description="bearer token; better in `bearer_token_file`")
    bearer_token_file: FilePath | None = Field(None, description="file that holds the bearer token")

    @classmethod
    def _refuse(cls, url: str) -> None:
        """Raise ValueError for what a URL may not hold in this kind."""
        if CONTROL.search(url):
            raise ValueError("url: a control character has to be escaped")

    @model_validator(mode="before")
    @classmethod
    def _take_url_apart(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(url := given.get("url"), str):
            return given
        parts = cls._url_parts(url)
        _, secure = cls._SCHEMES
        if parts.pop("scheme") == secure:
            if given.get("tls") is None:
                given = {**given, "tls": {}}
        elif given.get("tls") is not None:
            raise ValueError(f"tls goes with {secure}://: change the url or remove tls")
        if both := [key for key in parts if key in given]:
            raise ValueError(f"url and {both[0]} both say {both[0]}: keep one")
        return {**given, **parts, "url": None}

    @classmethod
    def _url_parts(cls, url: str) -> dict[str, object]:
        """Take the URL apart strictly: a path may hold ``@`` here, so a login has to be escaped."""
        try:
            split = urlsplit(url)
            host, port = split.hostname, split.port
        except ValueError:
            raise ValueError(UNREADABLE_URL) from None
        if split.scheme not in cls._SCHEMES:
            plain, secure = cls._SCHEMES
            raise ValueError(f"url: expected a URL that begins with {plain}:// or {secure}://")
        if not host:
            raise ValueError("url: the host is missing")
        cls._refuse(url)
        path = (split.path or "/") + (f"?{split.query}" if split.query else "")
        parts: dict[str, object] = {"scheme": split.scheme, "host": unquote(host), "path": path}
        if port is not None:
            parts["port"] = port
        if split.username:
            parts["user"] = unquote(split.username)
        if split.password is not None:
            parts["password"] = unquote(split.password)
        return parts

    @model_validator(mode="after")
    def _goes_somewhere_with_one_login(self) -> Self:
        ways = ["user"] if self.user is not None else []
        ways += [key for key in ("bearer_token", "bearer_token_file") if getattr(self, key) is not None]
        if any(name.lower() == "authorization" for name in self.headers):
            ways.append("headers.Authorization")
        if len(ways) > 1:
            raise ValueError(f"{ways[0]} and {ways[1]} are both given: keep one")
        if self.user is None and (self.password is not None or self.password_file is not None):
            raise ValueError("a password needs a user: add `user`")
        if self.tls is not None and self.tls.server_name is not None:
            try:
                _host(self.tls.server_name)
            except ValueError:
                raise ValueError("tls.server_name is not a host name") from None
        if "host" not in self.model_fields_set:
            plain, secure = self._SCHEMES
            raise ValueError(f"`url` is missing: write {plain}://… or {secure}://…, or `host`")
        return self

    @property
    def address(self) -> str:
        """The configured host:port, or the path of the Unix socket."""
        return self.host if self.host.startswith("/") else host_and_port(self.host, self.port_in_use)

    @property
    def port_in_use(self) -> int:
        """The port that is connected to."""
        return self.port or (443 if self.tls is not None else 80)
