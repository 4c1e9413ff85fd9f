"""Owns the config of kind websocket. Must not import the driver."""

import re
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from exporter.config.durations import parse_duration
from exporter.config.patterns import Pattern
from exporter.config.service import (
    UNREADABLE_URL,
    CanaryPeriod,
    Duration,
    FilePath,
    Login,
    PolicyConfig,
    Port,
    ServiceConfig,
    Strict,
    TlsConfig,
    host_and_port,
)

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_OURS: Final = ("host", "connection", "upgrade", "origin", "user-agent")


def _header(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError("not the name of a header")
    if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
        raise ValueError(f"{name} is the handshake's own: remove it, or use the key for it")
    return name


def _header_value(value: SecretStr) -> SecretStr:
    if _CONTROL.search(value.get_secret_value()):
        raise ValueError("a header cannot hold a line break or another control character")
    return value


def _target(path: str) -> str:
    if not path.startswith("/") or _CONTROL.search(path) or " " in path or "#" in path:
        raise ValueError("a path begins with / and has no space, # or control character")
    return path


def _subprotocol(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError("not the name of a subprotocol")
    return name


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict) else value


HeaderName = Annotated[str, AfterValidator(_header)]
HeaderValue = Annotated[SecretStr, AfterValidator(_header_value)]
SubprotocolName = Annotated[str, AfterValidator(_subprotocol)]


class Step(Strict):
    """One step of a dialogue: a message that is sent, one that has to come, or both in this order."""

    send: SecretStr | None = Field(None, description="text message to send")
    send_file: FilePath | None = Field(None, description="file that holds the message, read at each connect")
    expect: Pattern | None = Field(
        None, description="regular expression (RE2) that a message has to match; others are passed over"
    )
    within: Duration | None = Field(
        None, gt=0, description="how long that message may take; four fifths of `timeout` if absent"
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.send is not None and self.send_file is not None:
            raise ValueError("send and send_file are both given: keep one")
        if self.send is None and self.send_file is None and self.expect is None:
            raise ValueError("a step needs send, send_file or expect")
        if self.within is not None and self.expect is None:
            raise ValueError("within goes with expect: add it, or remove within")
        return self


Dialogue = Annotated[list[Step], BeforeValidator(_listed)]


class WebsocketConfig(ServiceConfig, Login):
    """A WebSocket server, held by one connection.

    Some servers allow one connection, or few, for each key or address; the exporter's counts as one, and a
    canary as another while it lasts, which is why it is off unless asked for.
    """

    kind: Literal["websocket"]
    canary: CanaryPeriod = Field(None, description="off by default: exchanges cap connections per key")
    url: str | None = Field(None, description="ws:// or wss:// URL; or host, port, path and tls")
    host: str = Field("localhost", min_length=1, description="host name, address or path of a Unix socket")
    port: Port | None = Field(None, description="port; 80, or 443 with TLS, if absent")
    path: Annotated[str, AfterValidator(_target)] = Field(
        "/", max_length=8192, repr=False, description="path, with its ?query"
    )
    tls: TlsConfig | None = Field(None, description="TLS; also turned on by wss://")
    subprotocols: list[SubprotocolName] = Field(
        [], description="subprotocols to offer, the best first; the server has to choose one of them"
    )
    origin: str | None = Field(None, description="value of the Origin header")
    headers: dict[HeaderName, HeaderValue] = Field({}, description="further headers of the upgrade request")
    bearer_token: SecretStr | None = Field(None, description="bearer token; better in `bearer_token_file`")
    bearer_token_file: FilePath | None = Field(None, description="file that holds the bearer token")
    compression: bool = Field(False, description="offer permessage-deflate, at 40 KiB of memory or more")
    max_message_size: int = Field(
        4 * 1024 * 1024,
        ge=1024,
        le=64 * 1024 * 1024,
        description="bytes of the largest message that may come",
    )
    on_connect: Dialogue = Field([], description="dialogue at the start of each session, as for a login")
    on_probe: Dialogue = Field([], description="dialogue at each probe, after the ping")
    max_gap: Duration | None = Field(
        None,
        ge=0.1,
        description="longest time with no message, answers of a dialogue apart; seen when a probe runs, so "
        "`interval` is no longer than this unless it is written",
    )

    @model_validator(mode="before")
    @classmethod
    def _take_url_apart(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        given = _with_fitting_interval(given)
        if not isinstance(url := given.get("url"), str):
            return given
        parts = _url_parts(url)
        if parts.pop("scheme") == "wss":
            if given.get("tls") is None:
                given = {**given, "tls": {}}
        elif given.get("tls") is not None:
            raise ValueError("tls goes with wss://: change the url or remove tls")
        if both := [key for key in parts if key in given]:
            raise ValueError(f"url and {both[0]} both say {both[0]}: keep one")
        return {**given, **parts, "url": None}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        bearer = [key for key in ("bearer_token", "bearer_token_file") if getattr(self, key) is not None]
        ways = [*(["user"] if self.user is not None else []), *bearer]
        if any(name.lower() == "authorization" for name in self.headers):
            ways.append("headers.Authorization")
        if len(ways) > 1:
            raise ValueError(f"{ways[0]} and {ways[1]} are both given: keep one")
        if self.user is None and (self.password is not None or self.password_file is not None):
            raise ValueError("a password needs a user: add `user`")
        if self.origin is not None and _CONTROL.search(self.origin):
            raise ValueError("origin cannot hold a control character")
        if "host" not in self.model_fields_set:
            raise ValueError("`url` is missing: write ws://… or wss://…, or `host`")
        return self

    @property
    def address(self) -> str:
        """The configured host:port, or the path of the Unix socket."""
        return self.host if self.host.startswith("/") else host_and_port(self.host, self.port_in_use)

    @property
    def port_in_use(self) -> int:
        """The port that is connected to."""
        return self.port or (443 if self.tls is not None else 80)


def _with_fitting_interval(given: dict[str, Any]) -> dict[str, Any]:
    """Let an interval that is not written follow `max_gap`, which a longer one could not see in time."""
    if "interval" in given or given.get("max_gap") is None:
        return given
    try:
        gap = parse_duration(given["max_gap"])
    except ValueError:
        return given  # the field itself will say so
    default = PolicyConfig.model_fields["interval"].default
    return {**given, "interval": given["max_gap"]} if 0.1 <= gap < default else given


def _url_parts(url: str) -> dict[str, object]:
    """Take the URL apart strictly: a path may hold ``@`` here, so a login has to be escaped."""
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:
        raise ValueError(UNREADABLE_URL) from None
    if split.scheme not in ("ws", "wss"):
        raise ValueError("url: expected a URL that begins with ws:// or wss://")
    if not host:
        raise ValueError("url: the host is missing")
    if _CONTROL.search(url) or " " in url:
        raise ValueError("url: a space or control character has to be escaped")
    if split.fragment:
        raise ValueError("url: a WebSocket's URL has no #fragment")  # RFC 6455, section 3
    try:
        host = host if ":" in host else host.encode("idna").decode()
    except UnicodeError:
        raise ValueError("url: the host name is not valid") from None
    path = (split.path or "/") + (f"?{split.query}" if split.query else "")
    parts: dict[str, object] = {"scheme": split.scheme, "host": host, "path": path}
    if port is not None:
        parts["port"] = port
    if split.username:
        parts["user"] = unquote(split.username)
    if split.password is not None:
        parts["password"] = unquote(split.password)
    return parts
