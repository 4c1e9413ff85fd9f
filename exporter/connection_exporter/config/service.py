"""The config that all kinds of services share: policy, host and port, login, TLS.

The models check one service at a time; `connection_exporter.config.reader` collects the errors of all. A model never
imports a driver, so ``validate`` stays fast.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    SecretStr,
    StringConstraints,
)
from pydantic_core import CoreSchema, core_schema

from connection_exporter.config.durations import DURATION_PATTERN, format_duration, parse_duration
from connection_exporter.config.secret import SecretFile
from connection_exporter.config.strict import Rule, Strict, at_most_one
from connection_exporter.config.url import parse_host
from connection_exporter.core.retry import Fault, Policy, detection_bounds, is_local
from connection_exporter.net.names import IpVersion, wrong_version

if TYPE_CHECKING:
    from connection_exporter.kind import About


def _canary(value: object) -> float | None:
    if value is False:
        raise ValueError("to turn the canary off, write `canary: off`")
    return None if value in ("off", None) else parse_duration(value)


def _written(seconds: float | None) -> str:
    return "off" if seconds is None else format_duration(seconds)


class _AsText:
    """Has pydantic read a value with ``parse`` from a text that matches ``pattern``, and write it so in JSON.

    Each service has five durations. `BeforeValidator` and `PlainSerializer` inspect the signature of both functions for
    each one, which takes a fifth of the time in which a model is built.
    """

    def __init__(self, parse: Callable[[object], float | None], pattern: str) -> None:
        self._parse = parse
        self._pattern = pattern

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            self._parse,
            handler(source),
            json_schema_input_schema=core_schema.str_schema(pattern=self._pattern),
            serialization=core_schema.plain_serializer_function_ser_schema(
                _written, return_schema=core_schema.str_schema(), when_used="json"
            ),
        )


Duration = Annotated[float, _AsText(parse_duration, DURATION_PATTERN)]
"""Seconds, written as 500ms, 30s or 5m."""

CanaryPeriod = Annotated[float | None, _AsText(_canary, f"{DURATION_PATTERN}|^off$")]
"""Seconds, or ``None``, written as off."""


def _host(text: str) -> str:
    try:
        return parse_host(text)
    except ValueError:
        if re.fullmatch(_HOST_AND_PORT, text):
            raise ValueError("only the host is expected: write its port as `port`") from None
        raise


_HOST_AND_PORT: Final = r"(?a)(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}"

Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=1, le=65535)]


def _ip_version(value: object) -> object:
    return int(value) if value in ("4", "6") else value


def _timeout_fits(policy: "PolicyConfig") -> str | None:
    if policy.timeout <= policy.interval:
        return None
    timeout, interval = format_duration(policy.timeout), format_duration(policy.interval)
    return f"timeout {timeout} is longer than interval {interval}: lower timeout or raise interval"


def _retry_delays_fit(policy: "PolicyConfig") -> str | None:
    if policy.retry_delay <= policy.max_retry_delay:
        return None
    first, longest = format_duration(policy.retry_delay), format_duration(policy.max_retry_delay)
    return f"retry_delay {first} is longer than max_retry_delay {longest}: lower one or raise the other"


def _canary_fits(policy: "PolicyConfig") -> str | None:
    if policy.canary is None or policy.canary >= policy.interval:
        return None
    canary, interval = format_duration(policy.canary), format_duration(policy.interval)
    return f"canary {canary} is shorter than interval {interval}: raise it, or write `canary: off`"


class PolicyConfig(Strict):
    """How a service is monitored: in `defaults` for all services, or in one service."""

    RULES: ClassVar[tuple[Rule, ...]] = (_timeout_fits, _retry_delays_fit, _canary_fits)

    interval: Duration = Field(30.0, ge=0.1, description="time between two probes")
    timeout: Duration = Field(5.0, gt=0, description="deadline of an attempt, connecting included")
    retries: int = Field(3, ge=1, description="failed attempts in a row until `disconnected`")
    retry_delay: Duration = Field(
        5.0, gt=0, description="delay after the first failed attempt, doubled after each further one"
    )
    max_retry_delay: Duration = Field(
        30.0,
        gt=0,
        description="longest delay between attempts, to which up to 20 % is added or taken off at random",
    )
    canary: CanaryPeriod = Field(300.0, description="time between two probes over new connections, or `off`")
    max_latency: Duration | None = Field(
        None, gt=0.0, description="an answer that takes longer is bad: the service is `unhealthy`"
    )
    critical: bool = Field(
        True, description="whether the loss of the service makes the overall status `partial`"
    )
    ip_version: Annotated[IpVersion, BeforeValidator(_ip_version)] = Field(
        "any", description="which addresses of a name are used, and which may be configured"
    )
    redact: list[SecretStr] = Field(
        [],
        repr=False,
        description="further texts to hide in messages, details and paths",
    )

    def adjust_defaults(self) -> None:
        """Let defaults follow the values that are written: `interval: 1s` lowers the timeout too."""
        if not self.is_written("timeout"):
            self.set_default("timeout", min(self.timeout, self.interval))
        if not self.is_written("max_retry_delay") and self.is_written("retry_delay"):
            self.set_default("max_retry_delay", max(self.retry_delay, self.max_retry_delay))
        if not self.is_written("retry_delay"):
            self.set_default("retry_delay", min(self.retry_delay, self.max_retry_delay))
        if not self.is_written("canary") and self.canary is not None:
            self.set_default("canary", max(self.canary, self.interval))

    @property
    def policy(self) -> Policy:
        """The policy as a value of the core."""
        keys = PolicyConfig.model_fields.keys() - {"redact", "ip_version"}
        return _shared(Policy(**{key: getattr(self, key) for key in keys}))


@lru_cache(maxsize=256)
def _shared(policy: Policy) -> Policy:
    """Return the same value for all services with equal policies."""
    return policy


_TEXT: Final = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]+"
_LINK: Final = r"(?i)https?://[^\s\x00-\x1f\x7f/?#@]+(?:[/?#][^\s\x00-\x1f\x7f]*)?"


def _text(text: str) -> str:
    if not re.fullmatch(_TEXT, text) or text != text.strip():
        raise ValueError("expected one line of text that is not empty, without control characters")
    return text


def _link(url: str) -> str:
    if not re.fullmatch(_LINK, url):
        raise ValueError("expected a URL that begins with https:// or http://, without credentials")
    return url


def _names(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a service is listed twice: remove one")
    return names


def _ip_version_fits(config: "ServiceConfig") -> str | None:
    if config.ip_version == "any":
        return None
    if not config.CONNECTS:
        return f"ip_version: kind {config.kind} makes no connection: remove it"
    host = getattr(config, "host", None)
    problem = wrong_version(host, config.ip_version) if isinstance(host, str) else None
    return f"ip_version: {problem}: change one of them" if problem else None


def no_canary(config: "ServiceConfig") -> str | None:
    """Report a canary of a kind that has none: a rule for its config."""
    return f"a {config.kind} has no canary: remove it" if config.canary is not None else None


class ServiceConfig(PolicyConfig):
    """The base of every kind's config. ``kind`` is its key in the map of kinds."""

    RULES: ClassVar[tuple[Rule, ...]] = (_ip_version_fits,)

    HOLDS_SESSION: ClassVar[bool] = True
    """Whether services of this kind hold a connection, so that its end is noticed at once."""

    CONNECTS: ClassVar[bool] = True
    """Whether services of this kind make network connections, so that `ip_version` in `defaults` applies to them."""

    kind: str
    group: Annotated[str, StringConstraints(max_length=63), AfterValidator(_text)] | None = Field(
        None, description="services that belong together: for alert routing and the status page"
    )
    description: Annotated[str, StringConstraints(max_length=500), AfterValidator(_text)] | None = Field(
        None, description="what the service is, for people who receive an alert"
    )
    links: Annotated[
        dict[
            Annotated[str, StringConstraints(max_length=63), AfterValidator(_text)],
            Annotated[str, StringConstraints(max_length=2000), AfterValidator(_link)],
        ],
        Field(max_length=10),
    ] = Field({}, description="where to look, as in `{logs: https://…, runbook: https://…}`")
    depends_on: Annotated[list[str], AfterValidator(_names)] = Field(
        [],
        description="services without which this one cannot work: no alert starts while one of them fails, and it is "
        "attempted at once when they recover",
    )

    @property
    def where(self) -> str:
        """The address that the check of the service shows."""
        return str(getattr(self, "address", ""))

    @property
    def behind_proxy(self) -> bool:
        """Whether connections end at a proxy, which hides that the service behind it has vanished."""
        return False

    @property
    def is_answered(self) -> bool:
        """Whether the service itself answers a probe, so that it does not freeze unnoticed."""
        return True

    @property
    def detection_bounds(self) -> dict[Fault, float]:
        """The seconds within which each fault is noticed. `validate` prints them without importing the check."""
        return detection_bounds(
            self.policy,
            holds_session=self.HOLDS_SESSION,
            crosses_network=self.CONNECTS and not is_local(self.where),
            behind_proxy=self.behind_proxy,
            is_answered=self.is_answered,
        )

    @property
    def about(self) -> "About":
        """What does not concern the check: a change of it needs no new session."""
        from connection_exporter.kind import (  # noqa: PLC0415 - 5 ms, for values that only a check needs
            NOTHING,
            About,
        )

        if not (self.group or self.description or self.links or self.depends_on):
            return NOTHING
        return About(self.group, self.description, self.links, tuple(self.depends_on))

    def without_about(self) -> Self:
        """Return a copy in which nothing is set that `about` returns."""
        return self.model_copy(update={"group": None, "description": None, "links": {}, "depends_on": []})


class Login(Strict):
    """A password, as a value or in a file that is read again at each connect, so that it can be rotated."""

    RULES: ClassVar[tuple[Rule, ...]] = (at_most_one("password", "password_file"),)

    user: str | None = Field(None, repr=False, description="user to log in as")
    password: SecretStr | None = Field(None, description="password; better in `password_file`")
    password_file: SecretFile | None = Field(None, description="file that contains the password")

    async def read_password(self, file_key: str = "password_file") -> str | None:
        """Return the current password. Raises `Failure` (auth), with ``file_key``, if its file cannot be read."""
        if self.password_file is not None:
            return await self.password_file.read(file_key)
        return self.password.get_secret_value() if self.password else None
