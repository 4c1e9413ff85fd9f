"""Owns what every service's config has in common: the policy, the endpoint, the password, TLS.

The models check one service at a time; `exporter.config.load` puts the mistakes of all together. A
model never imports a driver, so that ``validate`` stays quick.
"""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import parse_qsl, unquote

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    model_validator,
)

from exporter.config.durations import format_duration, parse_duration
from exporter.config.explain import Refusals
from exporter.config.secret import read_secret
from exporter.core.retry import Policy
from exporter.net.tls import TlsOptions


def _canary(value: object) -> float | None:
    if value is False:
        raise ValueError("for no canary write `canary: off`")
    return None if value in ("off", None) else parse_duration(value)


def _path(value: object) -> object:
    return Path(value) if isinstance(value, str) and value else value


def _written(seconds: float | None) -> str:
    return "off" if seconds is None else format_duration(seconds)


Duration = Annotated[
    float, BeforeValidator(parse_duration), PlainSerializer(_written, return_type=str, when_used="json")
]
"""Seconds, written as 500ms, 30s or 5m."""

CanaryPeriod = Annotated[
    float | None, BeforeValidator(_canary), PlainSerializer(_written, return_type=str, when_used="json")
]
"""Seconds, or ``None``, written as off."""

FilePath = Annotated[Path, BeforeValidator(_path)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Strict(BaseModel):
    """A model that takes no unknown key, changes no type silently and cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class PolicyConfig(Strict):
    """How a service is watched: in `defaults` for all, or in a service for that one."""

    interval: Duration = Field(30.0, ge=0.1, description="time between two probes")
    timeout: Duration = Field(5.0, gt=0, description="deadline of an attempt, connecting included")
    retries: int = Field(3, ge=1, description="failed attempts in a row until `disconnected`")
    retry_delay: Duration = Field(5.0, gt=0, description="delay after the first failure, doubled each time")
    max_retry_delay: Duration = Field(30.0, gt=0, description="longest delay between attempts")
    canary: CanaryPeriod = Field(300.0, description="time between two fresh-connection probes, or `off`")
    max_latency: Duration | None = Field(None, gt=0, description="an answer slower than this is bad")
    critical: bool = Field(True, description="whether its loss makes the overall status `partial`")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Check what was written; what was not written follows what was."""
        show = format_duration
        refusals: list[str] = []

        def follow_or_refuse(key: str, value: float, refusal: str) -> None:
            if key in self.model_fields_set:
                refusals.append(refusal)
            else:
                object.__setattr__(self, key, value)  # the model is still being made

        if self.timeout > self.interval:
            follow_or_refuse(
                "timeout",
                self.interval,
                f"timeout {show(self.timeout)} is longer than interval {show(self.interval)}: "
                "lower timeout or raise interval",
            )
        if self.retry_delay > self.max_retry_delay:
            follower = "max_retry_delay" if "retry_delay" in self.model_fields_set else "retry_delay"
            follow_or_refuse(
                follower,
                max(self.retry_delay, self.max_retry_delay)
                if follower.startswith("max")
                else self.max_retry_delay,
                f"retry_delay {show(self.retry_delay)} is longer than max_retry_delay "
                f"{show(self.max_retry_delay)}: lower the one or raise the other",
            )
        if self.canary is not None and self.canary < self.interval:
            follow_or_refuse(
                "canary",
                self.interval,
                f"canary {show(self.canary)} is shorter than interval {show(self.interval)}: "
                "raise it, or write `canary: off`",
            )
        if refusals:
            raise Refusals(refusals)
        return self

    @property
    def policy(self) -> Policy:
        """The same as the core knows it."""
        return Policy(**{name: getattr(self, name) for name in PolicyConfig.model_fields})


class ServiceConfig(PolicyConfig):
    """The base of every kind's config. ``kind`` is its key in the map of kinds."""

    kind: str


class TlsConfig(Strict):
    """TLS towards a service. Files are read again at each connect."""

    verify: bool = Field(True, description="check certificate and host name; `false` accepts anything")
    ca_file: FilePath | None = Field(None, description="authorities to trust, instead of the system's")
    cert_file: FilePath | None = Field(None, description="client certificate, with its chain (PEM)")
    key_file: FilePath | None = Field(None, description="key of cert_file, if in a file of its own")
    server_name: str | None = Field(None, description="name to ask for (SNI) and to check, if not the host")

    @model_validator(mode="after")
    def _key_has_certificate(self) -> Self:
        if self.key_file and not self.cert_file:
            raise ValueError("key_file needs cert_file: give both, or neither")
        return self

    @property
    def options(self) -> TlsOptions:
        """The same as the network layer knows it."""
        return TlsOptions(
            verify=self.verify, ca_file=self.ca_file, cert_file=self.cert_file, key_file=self.key_file
        )


class Login(Strict):
    """A password, as a value or in a file that is read again at each connect, so that it can be rotated."""

    user: str | None = Field(None, description="who to log in as")
    password: SecretStr | None = Field(None, description="password; better in `password_file`")
    password_file: FilePath | None = Field(None, description="file that holds the password")

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file are both given: keep one")
        return self

    def read_password(self) -> str | None:
        """Return the password in force now. Raises OSError when the file cannot be read."""
        if self.password_file is not None:
            return read_secret(self.password_file)
        return self.password.get_secret_value() if self.password else None


def split_url(url: str, schemes: tuple[str, ...], *, key: str) -> dict[str, object]:
    """Take ``scheme://user:password@host:port/path?query`` apart, leniently as to what a password may hold.

    Returns the parts that are there: scheme, user, password, host, port, path, query. The last ``@`` ends
    the login, so a password may hold ``@``, ``:``, ``/``, ``?`` and ``#`` unescaped. Raises ValueError, whose
    text begins with ``key`` and holds no part of the login.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in schemes:
        wanted = " or ".join(f"{s}://" for s in schemes)
        raise ValueError(f"{key}: expected a URL that begins with {wanted}")
    login, at, place = rest.rpartition("@")
    place, _, query = place.partition("?")
    where, _, path = place.partition("/")
    parts: dict[str, object] = {"scheme": scheme, "path": path, "query": dict(parse_qsl(query))}
    if at:
        user, colon, password = login.partition(":")
        if user:
            parts["user"] = unquote(user)
        if colon:
            parts["password"] = unquote(password)
    host, port = _host_and_port(where, key)
    if host:
        parts["host"] = unquote(host)
    if port:
        parts["port"] = parse_port(port, key=key)
    return parts


def _host_and_port(where: str, key: str) -> tuple[str, str]:
    if "," in where:
        raise ValueError(f"{key}: several hosts in one URL: configure a service for each")
    if where.startswith("["):
        host, bracket, rest = where[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{key}: an IPv6 address stands in brackets, as in [::1]:5432")
        return host, rest[1:]
    host, _, port = where.partition(":")
    if ":" in port:
        raise ValueError(f"{key}: an IPv6 address stands in brackets, as in [::1]:5432")
    return host, port


def parse_port(text: str, *, key: str) -> int:
    """Return the port that ``text`` is. Raises ValueError, whose text begins with ``key``."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise ValueError(f"{key}: the port is not a number from 1 to 65535")
    return int(text)


def host_and_port(host: str, port: int) -> str:
    """Return ``host:port`` for a label, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
