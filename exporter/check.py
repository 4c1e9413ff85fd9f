"""Owns the seam between the monitor and a kind: what a check offers, what a probe reports.

A kind implements `Check` and `Session` in one file of `exporter/checks/` (or in a package of your
own, see docs/adding-a-check.md) and imports nothing of the exporter but this module, its config
model and `exporter.net`. It never measures its own latency, counts attempts or decides a status: it
says what it saw.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from exporter.core.health import Reason
from exporter.core.retry import Policy

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""What may stand in the details of a service."""


class Failure(Exception):
    """No answer: an attempt that came to nothing, or the end of a held session.

    The message is for people and is published as it is, so it must never hold a secret.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __repr__(self) -> str:
        return f"Failure({self.reason}: {self.message})"


@dataclass(frozen=True, slots=True)
class Observation:
    """An answer, good or bad, as one probe saw it.

    ``reason`` is ``None`` for a good answer. ``details`` holds what was measured, under stable keys, for
    JSON and, through `Metric`, for Prometheus. ``counts`` is added to this kind's counters. ``fresh``
    says that the probe had to make a new connection, and so stands for a canary as well.
    """

    reason: Reason | None = None
    message: str = ""
    details: Mapping[str, Json] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)
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
    from the first second; what it comes to is shown in JSON under the same key. ``name`` is the family's
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
        """Done, with what happened, as soon as the link is gone while no probe is under way."""

    @property
    def peer(self) -> str | None:
        """The IP address at the other end; ``None`` where there is none (a process, a Unix socket)."""

    @property
    def addresses(self) -> frozenset[str]:
        """All IP addresses that the configured name led to when this session was made."""

    async def probe(self) -> Observation:
        """Make one round trip and return what it saw; raise `Failure` when the link is gone."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What is true of every service of a kind.

    ``reasons`` are all that it can give. ``metrics`` are its own families. ``holds_session`` is false
    where a connection that closes between two probes is no loss (http). ``crosses_network`` is false
    where no packet can vanish (process).
    """

    reasons: frozenset[Reason]
    metrics: tuple[Metric, ...] = ()
    holds_session: bool = True
    crosses_network: bool = True


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

    def present(self) -> bool:
        """Tell whether an attempt is worth making now. Must not block."""


@dataclass(frozen=True, slots=True)
class Service:
    """One configured thing under watch."""

    name: str
    kind: str
    check: Check
    policy: Policy
