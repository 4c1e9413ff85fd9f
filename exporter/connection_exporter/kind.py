"""Owns the interface between the monitor and a kind: what a check offers, what a probe reports.

A kind implements `Check` and `Session` in a folder of `kinds/`, or in a package of your own, which needs nothing but
what docs/adding-a-kind.md lists. It never measures its own latency, counts attempts or decides a status: it says what
it saw.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from copy import copy
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self, TypeGuard, runtime_checkable

from connection_exporter.core.failure import Failure, TooEarly
from connection_exporter.core.health import Reason
from connection_exporter.core.retry import Fault, Policy, detection_bounds, is_local

__all__ = [
    "NOTHING",
    "About",
    "Beat",
    "Check",
    "Failure",
    "Json",
    "LooksOut",
    "Metric",
    "MetricType",
    "Observation",
    "Service",
    "Session",
    "TakesBeats",
    "TooEarly",
    "Traits",
    "takes_beats",
]

if TYPE_CHECKING:
    import asyncio

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""A value in the details of a service."""


class Observation(NamedTuple):
    """An answer, good or bad, as one probe saw it.

    ``reason`` is ``None`` for a good answer. ``details`` holds what was measured, under stable keys, for
    JSON and, through `Metric`, for Prometheus. ``counts`` is added to this kind's counters. ``fresh``
    says that the probe had to make a new connection, and so counts as a canary as well.
    """

    reason: Reason | None = None
    message: str = ""
    details: Mapping[str, Json] = MappingProxyType({})
    counts: Mapping[str, float] = MappingProxyType({})
    fresh: bool = False


class MetricType(StrEnum):
    """The Prometheus type of a metric family."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A kind's own metric family, and the detail that it shows.

    A gauge shows ``details[source]`` while the session is up and is absent otherwise. A histogram
    observes ``details[source]`` at each answer. A counter adds up ``counts[source]`` and exists, at 0,
    from the first second; JSON shows its total under the same key. ``name`` is the family's
    full name; that of a counter ends in ``_total``.
    """

    name: str
    help: str
    type: MetricType
    source: str
    buckets: tuple[float, ...] = ()


class Session(Protocol):
    """A live connection to a service."""

    @property
    def lost(self) -> "asyncio.Future[Failure]":
        """Done, with what happened, as soon as the session is gone while no probe is under way."""

    @property
    def peer(self) -> str | None:
        """The IP address at the other end; ``None`` where there is none (a process, a Unix socket).

        Where the port may change as well (Redis behind Sentinel), this and `addresses` contain the port.
        """

    @property
    def addresses(self) -> frozenset[str]:
        """All IP addresses that the configured name led to when this session was made."""

    async def probe(self) -> Observation:
        """Make one round trip and return what it saw; raise `Failure` when the session is gone."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What is true of every service of a kind.

    ``reasons`` are all that it can give. ``metrics`` are its own families. ``holds_session`` is false
    where a connection that closes between two probes is no loss (http). ``crosses_network`` is false
    where no packet can vanish (process). ``behind_proxy`` is true where connections end at a proxy, which hides
    that the service behind it has vanished. ``is_answered`` is false where the service itself answers no probe, so
    that it may freeze unnoticed (tcp without a dialogue).
    """

    reasons: frozenset[Reason]
    metrics: tuple[Metric, ...] = ()
    holds_session: bool = True
    crosses_network: bool = True
    behind_proxy: bool = False
    is_answered: bool = True


class Check(Protocol):
    """One configured service of one kind: knows how to connect, and lives as long as the service."""

    @property
    def traits(self) -> Traits:
        """What is true of every service of this kind."""

    @property
    def address(self) -> str:
        """The configured host:port, socket, pidfile or unit, without credentials."""

    def connect(self) -> AbstractAsyncContextManager[Session]:
        """Resolve, connect, do TLS and authenticate; the session is closed when the block ends.

        Raises `Failure`. May be cancelled at any await, and must then leave nothing open; to say what it
        was waiting for, it may ``raise cancelled from Failure(...)``. Leaving the block must not wait for
        the other end.
        """


@runtime_checkable
class LooksOut(Protocol):
    """A check that can tell cheaply, between two attempts, that an absent service has come (process)."""

    @property
    def look_every(self) -> float:
        """Seconds between two looks."""

    async def present(self) -> bool:
        """Return within half a second whether an attempt is worth making now."""


@dataclass(frozen=True, slots=True)
class Beat:
    """One call of a service that reports to the exporter. ``message`` is what the service says about itself."""

    failed: bool = False
    message: str = ""


@runtime_checkable
class TakesBeats(Protocol):
    """A check whose service reports to the exporter (heartbeat).

    Anyone who calls `beat` has compared the token before, and forces a probe afterwards.
    """

    async def token(self) -> str | None:
        """Return the token that a beat must carry, or ``None``. Raises `Failure` if its file cannot be read."""

    def beat(self, beat: Beat) -> None:
        """Take a beat."""

    def notices_after(self) -> float:
        """Return the seconds from a beat until the lack of another one is reported."""

    def continue_from(self, earlier: Self) -> None:
        """Take over the last beat of the check that this one replaces at a reload."""


def takes_beats(check: object) -> TypeGuard[TakesBeats]:
    """Return whether a check is one of `TakesBeats`. To test for a protocol takes 16 us, so types are kept."""
    return _takes_beats(type(check))  # type: ignore[arg-type] # mypy believes that a class cannot be hashed


@cache
def _takes_beats(kind: type) -> bool:
    return issubclass(kind, TakesBeats)


@dataclass(frozen=True, slots=True)
class About:
    """What a config says about a service for people, and the names of the services that it depends on."""

    group: str | None = None
    description: str | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()


NOTHING: Final = About()
"""Nothing is said about most services, which share this value."""


@dataclass(frozen=True, slots=True)
class Service:
    """One configured service.

    ``traits``, ``address``, ``look_every`` and ``notices_after`` are read from the check once: what those of a plug-in
    raise or return later has no effect. The last two are ``None`` for a check that does not have them.
    """

    name: str
    kind: str
    check: Check
    policy: Policy
    hide: Callable[[str], str] = str
    """Returns a text with every secret of the service replaced."""
    about: About = NOTHING
    traits: Traits = field(init=False)
    address: str = field(init=False)
    look_every: float | None = field(init=False)
    notices_after: float | None = field(init=False)

    def __post_init__(self) -> None:
        check = self.check
        object.__setattr__(self, "traits", check.traits)
        object.__setattr__(self, "address", check.address)
        object.__setattr__(self, "look_every", check.look_every if isinstance(check, LooksOut) else None)
        object.__setattr__(self, "notices_after", check.notices_after() if takes_beats(check) else None)

    def with_about(self, about: About) -> Self:
        """Return the service with another ``about``. Unlike `dataclasses.replace`, do not read the check again."""
        service = copy(self)
        object.__setattr__(service, "about", about)
        return service

    @property
    def detection_bounds(self) -> dict[Fault, float]:
        """The seconds within which each fault is noticed."""
        if self.notices_after is not None:  # silence is all there is to notice, whatever its cause
            return dict.fromkeys(Fault, self.notices_after)
        return detection_bounds(
            self.policy,
            holds_session=self.traits.holds_session,
            crosses_network=self.traits.crosses_network and not is_local(self.address),
            behind_proxy=self.traits.behind_proxy,
            is_answered=self.traits.is_answered,
        )
