"""Owns the config of kind websocket. Must not import websockets, which is loaded only for services in use."""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, SecretStr

from connection_exporter.config.conditions import Conditions
from connection_exporter.config.http_login import CONTROL, HeaderValue
from connection_exporter.config.patterns import CompiledPattern, Pattern
from connection_exporter.config.request import TOKEN, RequestConfig
from connection_exporter.config.secret import IssuedSecrets, SecretFile
from connection_exporter.config.service import (
    CanaryPeriod,
    Duration,
)
from connection_exporter.config.strict import Strict, at_most_one
from connection_exporter.config.tls import TlsConfig

_OURS: Final = ("connection", "upgrade", "origin", "user-agent")


def _header(name: str) -> str:
    if not TOKEN.fullmatch(name):
        raise ValueError("not a valid header name")
    if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
        raise ValueError(f"{name} belongs to the handshake: remove it, or use the key for it")
    return name


def _target(path: str) -> str:
    if not path.startswith("/") or CONTROL.search(path) or " " in path or "#" in path:
        raise ValueError("a path must begin with / and contain no space, # or control character")
    return path


def _subprotocol(name: str) -> str:
    if not TOKEN.fullmatch(name):
        raise ValueError("not a valid subprotocol name")
    return name


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict) else value


HeaderName = Annotated[str, AfterValidator(_header)]
SubprotocolName = Annotated[str, AfterValidator(_subprotocol)]


REFERENCE: Final = r"\{([A-Za-z_][A-Za-z0-9_]*)\}"
"""What a message has in place of a group that an earlier pattern captured. JSON has no such text outside of strings."""


def _expects(step: "Step") -> bool:
    return step.expect is not None or bool(step.expect_json)


def _does_something(step: "Step") -> str | None:
    empty = step.send is None and step.send_file is None and not _expects(step)
    return "a step needs send, send_file or expect" if empty else None


def _within_has_expect(step: "Step") -> str | None:
    alone = step.within is not None and not _expects(step)
    return "within needs expect: add expect, or remove within" if alone else None


class Step(Strict):
    """One step of a dialogue: a message to send, a message to expect, or both in this order."""

    RULES = (at_most_one("send", "send_file"), _does_something, _within_has_expect)

    send: SecretStr | None = Field(None, description="text message to send")
    send_file: SecretFile | None = Field(
        None, description="file that contains the message; read for each connection"
    )
    expect: Pattern | None = Field(
        None,
        description="regular expression (RE2) that a message must match; other messages are skipped. A named group, "
        "`(?P<name>…)`, is what `{name}` means in later messages",
    )
    expect_json: Conditions = Field(
        {}, description="conditions on a JSON message, as `expect.json` of http; other messages are skipped"
    )
    within: Duration | None = Field(
        None, gt=0.0, description="how long to wait for that message; default: four fifths of `timeout`"
    )

    @property
    def groups(self) -> tuple[str, ...]:
        """The names that the pattern captures."""
        return CompiledPattern(self.expect).groups if self.expect is not None else ()

    @property
    def references(self) -> tuple[str, ...]:
        """The names in braces in the message, unless that is in a file."""
        return tuple(re.findall(REFERENCE, self.send.get_secret_value())) if self.send is not None else ()


Dialogue = Annotated[list[Step], BeforeValidator(_listed, json_schema_input_type=list[Step] | Step)]


def _origin_is_a_header_value(config: "WebsocketConfig") -> str | None:
    invalid = config.origin is not None and CONTROL.search(config.origin)
    return "origin must not contain a control character" if invalid else None


def _references_are_captured(config: "WebsocketConfig") -> str | None:
    """Check each ``{name}``, if any group is captured at all: otherwise the braces may mean anything."""
    captured: dict[str, None] = {}
    dialogues = {"on_connect": config.on_connect, "on_probe": config.on_probe}
    steps = [(key, index, step) for key, dialogue in dialogues.items() for index, step in enumerate(dialogue)]
    if not any(step.groups for _, _, step in steps):
        return None
    for key, index, step in steps:
        if any(name not in captured for name in step.references):
            known = ", ".join(captured) or "none"
            return f"{key}: step {index + 1} sends a {{name}} that no earlier expect captures; known: {known}"
        captured |= dict.fromkeys(step.groups)
    return None


def _subprotocols_differ(config: "WebsocketConfig") -> str | None:
    twice = len({*config.subprotocols}) < len(config.subprotocols)
    return (
        "subprotocols: the same one is listed twice: remove one" if twice else None
    )  # RFC 6455, section 4.1


class WebsocketConfig(RequestConfig):
    """A WebSocket server, with one connection that stays open.

    Some servers limit connections per key or address. The session is one connection, and a canary is another while it
    lasts, so canaries are off by default.
    """

    OTHER_NAMES: ClassVar[Mapping[str, str]] = {
        **RequestConfig.OTHER_NAMES,
        **dict.fromkeys(("subscribe", "message", "send"), "on_connect: {send: …}"),
    }
    _SCHEMES: ClassVar = ("ws", "wss")
    RULES = (_origin_is_a_header_value, _subprotocols_differ, _references_are_captured)

    kind: Literal["websocket"]
    canary: CanaryPeriod = Field(
        None, description="off by default, because exchanges limit connections per key"
    )
    url: str | None = Field(None, description="ws:// or wss:// URL; or host, port, path and tls")
    path: Annotated[str, AfterValidator(_target)] = Field(
        "/", max_length=8192, repr=False, description="path, with its ?query"
    )
    tls: TlsConfig | None = Field(None, description="TLS; also turned on by wss://")
    subprotocols: list[SubprotocolName] = Field(
        [],
        repr=False,
        description="subprotocols to offer, in order of preference; the server must choose one",
    )
    origin: str | None = Field(None, description="value of the Origin header")
    headers: dict[HeaderName, HeaderValue] = Field(
        {}, description="additional headers of the upgrade request: text, or `{file: PATH}`"
    )
    compression: bool = Field(
        False, description="offer permessage-deflate, which uses 40 KiB of memory or more"
    )
    max_message_size: int = Field(
        4 * 1024 * 1024,
        ge=1024,
        le=64 * 1024 * 1024,
        description="largest message to accept, in bytes",
    )
    on_connect: Dialogue = Field([], description="dialogue at the start of each session, for example a login")
    on_probe: Dialogue = Field([], description="dialogue at each probe, after the ping")
    max_gap: Duration | None = Field(
        None,
        ge=0.1,
        description="longest time without a message of the stream; answers in a dialogue do not count. Checked at "
        "each probe, so the default of `interval` is not longer",
    )

    _captured: IssuedSecrets = PrivateAttr(default_factory=IssuedSecrets)

    @property
    def behind_proxy(self) -> bool:
        """Whether the session leads through a proxy."""
        return self.proxy is not None

    @classmethod
    def _refuse(cls, url: str) -> None:
        if CONTROL.search(url) or " " in url:
            raise ValueError("url: a space or control character must be escaped")
        if "#" in url:
            raise ValueError("url: a WebSocket URL must not have a #fragment")  # RFC 6455, section 3

    def note_captured(self, name: str, value: str) -> None:
        """Have a captured value hidden like any other secret of the service, if it seems to be one."""
        from connection_exporter.config.secret_parts import looks_secret  # noqa: PLC0415 - 3 ms

        if looks_secret(name, value):
            self._captured.remember(value)

    def adjust_defaults(self) -> None:
        """Let `max_gap` be the default of `interval` if it is shorter: a longer interval would notice a gap late."""
        if not self.is_written("interval") and self.max_gap is not None:
            self.set_default("interval", min(self.interval, self.max_gap))
        super().adjust_defaults()
