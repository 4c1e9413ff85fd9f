"""Owns the schema of the web config file: exporter-toolkit's, every key of it.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

import re
import ssl
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from connection_exporter.config.go import Boolean, Integer, Pause, Section
from connection_exporter.config.web_tls import TlsServer

_BCRYPT: Final = re.compile(r"\$2[abxy]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SLOW_COST: Final = 15
_HOW_TO_HASH: Final = "not a bcrypt hash: make one by `htpasswd -nBC 10 '' | tr -d ':\\n'`"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket of ``burst`` requests, into which one more falls every ``interval`` seconds."""

    interval: float
    burst: int


def _hash(value: object) -> object:
    if not isinstance(value, str) or not _BCRYPT.fullmatch(value):
        raise ValueError(_HOW_TO_HASH)
    return value


def _header_value(value: str) -> str:
    one_line = " ".join(value.split("\n")).strip()  # as Go's net/http
    if _CONTROL.search(one_line):
        raise ValueError("a header must not contain a control character")
    return one_line


Hash = Annotated[SecretStr, BeforeValidator(_hash)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]


class _Headers(Section):
    content_security_policy: HeaderValue = Field("", alias="Content-Security-Policy")
    frame_options: Literal["", "deny", "sameorigin"] = Field("", alias="X-Frame-Options")
    content_type_options: Literal["", "nosniff"] = Field("", alias="X-Content-Type-Options")
    xss_protection: HeaderValue = Field("", alias="X-XSS-Protection")
    strict_transport_security: HeaderValue = Field("", alias="Strict-Transport-Security")

    @property
    def in_force(self) -> dict[str, str]:
        """The headers that are set."""
        return {name: value for name, value in self.model_dump(by_alias=True).items() if value}


class _HttpServer(Section):
    http2: Boolean | None = None
    headers: _Headers = _Headers()


class _RateLimit(Section):
    interval: Pause = 0.0
    burst: Integer = 0

    @property
    def in_force(self) -> RateLimit | None:
        """The limit; ``None`` where an interval of 0 turns it off."""
        return RateLimit(self.interval, self.burst) if self.interval > 0 else None


class WebFile(Section):
    """The whole file."""

    tls_server_config: TlsServer | None = None
    http_server_config: _HttpServer = _HttpServer()
    basic_auth_users: dict[str, Hash] = Field({})
    rate_limit: _RateLimit = _RateLimit()
    auth_excluded_paths: list[str] = Field([])

    @property
    def tls(self) -> TlsServer | None:
        """The TLS section, if it turns TLS on."""
        tls = self.tls_server_config
        return tls if tls is not None and tls.is_enabled else None

    @property
    def notes(self) -> list[str]:
        """What the file asks for and will not get, each with what happens instead."""
        notes = []
        if self.http_server_config.http2:
            notes.append("http_server_config.http2: HTTP/1.1 is served, to every client")
        if self.tls is not None:
            notes += [f"tls_server_config.{note}" for note in self.tls.notes]
        elif self.tls_server_config is not None:
            notes.append("tls_server_config: has neither cert_file nor key_file, so there is no TLS")
        if not self.tls and self.basic_auth_users:
            notes.append(
                "basic_auth_users: without tls_server_config passwords cross the network in the clear"
            )
        if unusable := [user for user in self.basic_auth_users if ":" in user]:
            notes.append(f"basic_auth_users: {unusable[0]!r} cannot log in: a name has no colon (RFC 7617)")
        slow = [u for u, h in self.basic_auth_users.items() if int(h.get_secret_value()[4:6]) >= _SLOW_COST]
        if slow:
            notes.append(
                f"basic_auth_users: the hash of {slow[0]} takes seconds to check: a cost of 10 to 12 is usual"
            )
        limit = self.rate_limit.in_force
        if limit is not None and limit.burst < 1:
            notes.append("rate_limit.burst: 0 lets nobody pass, as in the toolkit: write 1 or more")
        if self.auth_excluded_paths and self.tls and self.tls.verify_mode is ssl.CERT_REQUIRED:
            notes.append("auth_excluded_paths: they need no password, but a client certificate")
        return notes
