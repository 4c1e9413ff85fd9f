"""Owns the config of kind http. Must not import the driver."""

import re
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from exporter.config.conditions import Conditions
from exporter.config.patterns import Pattern
from exporter.config.service import (
    UNREADABLE_URL,
    FilePath,
    Login,
    Port,
    ServiceConfig,
    Strict,
    TlsConfig,
    host_and_port,
)

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_HOST: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?")
_SIZE: Final = re.compile(r"(\d+)\s*(B|KiB|MiB)")
_UNITS: Final = {"B": 1, "KiB": 1024, "MiB": 1024 * 1024}
_OURS: Final = ("connection", "content-length", "transfer-encoding", "expect", "upgrade", "accept-encoding")


def _size(value: object) -> object:
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if found is None:
            raise ValueError("expected a size such as 64KiB, 1MiB or a number of bytes")
        return int(found[1]) * _UNITS[found[2]]
    return value


def _statuses(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _status(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
        return value
    if isinstance(value, str) and re.fullmatch(r"[1-5]xx", value):
        return value
    raise ValueError("expected a status such as 200, or a class of them such as 2xx")


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


def _header(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError("not the name of a header")
    if name.lower() in _OURS:
        raise ValueError(f"{name} is the exporter's own to send: remove it")
    return name


def _header_value(value: SecretStr) -> SecretStr:
    if _CONTROL.search(value.get_secret_value()):
        raise ValueError("a header cannot hold a line break or another control character")
    return value


def _target(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("a path begins with /")
    if _CONTROL.search(path):
        raise ValueError("a path cannot hold a control character")
    return path


HeaderName = Annotated[str, AfterValidator(_header)]
HeaderValue = Annotated[SecretStr, AfterValidator(_header_value)]
Size = Annotated[int, BeforeValidator(_size)]
StatusPattern = Annotated[int | str, BeforeValidator(_status)]


class HttpExpect(Strict):
    """What has to be true of an answer. Several conditions must all hold."""

    status: Annotated[list[StatusPattern], BeforeValidator(_statuses)] = Field(
        ["2xx"], min_length=1, description="statuses that are good: 200, or a class such as 2xx"
    )
    headers: dict[str, Pattern] = Field(
        {}, description="name of a header to a regular expression for its value"
    )
    body: Pattern | None = Field(
        None, description="regular expression (RE2) that the body, as UTF-8, has to match"
    )
    json_: Conditions = Field(
        {},
        alias="json",
        description="path in the body to a value or comparison, as in data.items[0].state: {'>=': 5}",
    )

    @property
    def reads_body(self) -> bool:
        """Whether a condition is about the body."""
        return self.body is not None or bool(self.json_)


class HttpConfig(ServiceConfig, Login):
    """An HTTP or HTTPS API, asked over a kept connection.

    Every probe, canary and force-check is a real request: at an interval of 30s that is 120 an hour, and 12
    canaries, which count against the rate limit of the API's key and may cost something. The request is
    repeated once when a kept connection turns out to be closed, so ``method`` should change nothing.
    """

    kind: Literal["http"]
    url: str | None = Field(None, description="http:// or https:// URL; or host, port, path and tls")
    host: Annotated[str, AfterValidator(_host)] = Field(
        "localhost", description="host name, address or path of a Unix socket"
    )
    port: Port | None = Field(None, description="port; 80, or 443 with TLS, if absent")
    path: Annotated[str, AfterValidator(_target)] = Field(
        "/", max_length=8192, repr=False, description="path, with its ?query"
    )
    tls: TlsConfig | None = Field(None, description="TLS; also turned on by https://")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = Field(
        "GET", description="method of the request"
    )
    headers: dict[HeaderName, HeaderValue] = Field({}, description="further headers of the request")
    body: str | None = Field(None, repr=False, description="body of the request")
    bearer_token: SecretStr | None = Field(None, description="bearer token; better in `bearer_token_file`")
    bearer_token_file: FilePath | None = Field(None, description="file that holds the bearer token")
    follow_redirects: bool = Field(
        False, description="whether to go where a 3xx points; off, as a login page would look healthy"
    )
    max_redirects: int = Field(5, ge=1, le=20, description="longest chain of redirects that is followed")
    body_limit: Size = Field(
        64 * 1024, ge=1, le=16 * 1024 * 1024, description="bytes of a body that are read; a longer one is bad"
    )
    expect: HttpExpect = Field(HttpExpect(), description="what has to be true of the answer")

    @model_validator(mode="before")
    @classmethod
    def _take_url_apart(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(url := given.get("url"), str):
            return given
        parts = _url_parts(url)
        if parts.pop("scheme") == "https":
            if given.get("tls") is None:
                parts["tls"] = {}
                given = {key: value for key, value in given.items() if key != "tls"}
        elif given.get("tls") is not None:
            raise ValueError("tls goes with https://: change the url or remove tls")
        if both := [key for key in parts if key in given]:
            raise ValueError(f"url and {both[0]} both say {both[0]}: keep one")
        return {**given, **parts, "url": None}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        basic = self.user is not None
        bearer = [key for key in ("bearer_token", "bearer_token_file") if getattr(self, key) is not None]
        if len(bearer) > 1:
            raise ValueError("bearer_token and bearer_token_file are both given: keep one")
        if not basic and (self.password is not None or self.password_file is not None):
            raise ValueError("a password needs a user: add `user`")
        if basic and bearer:
            raise ValueError(f"user and {bearer[0]} are both given: an API takes one of them")
        if (basic or bearer) and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError(
                f"headers.Authorization and {'user' if basic else bearer[0]} are both given: keep one"
            )
        if self.tls is not None and self.tls.server_name is not None:
            try:
                _host(self.tls.server_name)
            except ValueError:
                raise ValueError("tls.server_name is not a host name") from None
        if self.method == "HEAD" and self.expect.reads_body:
            raise ValueError("an answer to HEAD has no body: expect body and json go with GET")
        if "host" not in self.model_fields_set:
            raise ValueError("`url` is missing: write http://… or https://…, or `host`")
        return self

    @property
    def address(self) -> str:
        """The configured host:port, or the path of the Unix socket."""
        return self.host if self.host.startswith("/") else host_and_port(self.host, self.port_in_use)

    @property
    def port_in_use(self) -> int:
        """The port that is connected to."""
        return self.port or (443 if self.tls is not None else 80)


def _url_parts(url: str) -> dict[str, object]:
    """Take the URL apart strictly: a path may hold ``@`` here, so a login has to be escaped."""
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:
        raise ValueError(UNREADABLE_URL) from None
    if split.scheme not in ("http", "https"):
        raise ValueError("url: expected a URL that begins with http:// or https://")
    if not host:
        raise ValueError("url: the host is missing")
    if _CONTROL.search(url):
        raise ValueError("url: a control character has to be escaped")
    path = (split.path or "/") + (f"?{split.query}" if split.query else "")
    parts: dict[str, object] = {"scheme": split.scheme, "host": unquote(host), "path": path}
    if port is not None:
        parts["port"] = port
    if split.username:
        parts["user"] = unquote(split.username)
    if split.password is not None:
        parts["password"] = unquote(split.password)
    return parts
