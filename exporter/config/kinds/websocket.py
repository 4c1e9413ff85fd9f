"""Owns the config of kind websocket. Must not import the driver."""

from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from exporter.config.durations import parse_duration
from exporter.config.patterns import Pattern
from exporter.config.request import CONTROL, TOKEN, HeaderValue, RequestConfig
from exporter.config.service import CanaryPeriod, Duration, FilePath, PolicyConfig, Strict, TlsConfig

_OURS: Final = ("host", "connection", "upgrade", "origin", "user-agent")


def _header(name: str) -> str:
    if not TOKEN.fullmatch(name):
        raise ValueError("not the name of a header")
    if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
        raise ValueError(f"{name} is the handshake's own: remove it, or use the key for it")
    return name


def _target(path: str) -> str:
    if not path.startswith("/") or CONTROL.search(path) or " " in path or "#" in path:
        raise ValueError("a path begins with / and has no space, # or control character")
    return path


def _subprotocol(name: str) -> str:
    if not TOKEN.fullmatch(name):
        raise ValueError("not the name of a subprotocol")
    return name


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict) else value


HeaderName = Annotated[str, AfterValidator(_header)]
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


class WebsocketConfig(RequestConfig):
    """A WebSocket server, held by one connection.

    Some servers allow one connection, or few, for each key or address; the exporter's counts as one, and a
    canary as another while it lasts, which is why it is off unless asked for.
    """

    _SCHEMES: ClassVar = ("ws", "wss")

    kind: Literal["websocket"]
    canary: CanaryPeriod = Field(None, description="off by default: exchanges cap connections per key")
    url: str | None = Field(None, description="ws:// or wss:// URL; or host, port, path and tls")
    path: Annotated[str, AfterValidator(_target)] = Field(
        "/", max_length=8192, repr=False, description="path, with its ?query"
    )
    tls: TlsConfig | None = Field(None, description="TLS; also turned on by wss://")
    subprotocols: list[SubprotocolName] = Field(
        [], description="subprotocols to offer, the best first; the server has to choose one of them"
    )
    origin: str | None = Field(None, description="value of the Origin header")
    headers: dict[HeaderName, HeaderValue] = Field({}, description="further headers of the upgrade request")
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

    @classmethod
    def _refuse(cls, url: str) -> None:
        if CONTROL.search(url) or " " in url:
            raise ValueError("url: a space or control character has to be escaped")
        if "#" in url:
            raise ValueError("url: a WebSocket's URL has no #fragment")  # RFC 6455, section 3

    @model_validator(mode="before")
    @classmethod
    def _interval_follows_the_gap(cls, given: Any) -> Any:
        return _with_fitting_interval(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _origin_fits_in_a_header(self) -> Self:
        if self.origin is not None and CONTROL.search(self.origin):
            raise ValueError("origin cannot hold a control character")
        return self


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
