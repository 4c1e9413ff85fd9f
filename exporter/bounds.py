"""Owns the detection bounds: within which time each way of breaking is noticed, as a promise per service."""

from enum import StrEnum
from typing import Final

from exporter.check import Traits
from exporter.core.retry import Policy

_CLOSED: Final = 0.05
"""Seconds. The kernel tells at once; this leaves room for a loop that is busy."""

_VANISHED: Final = 11.0
"""Seconds. TCP keep-alive and user timeout of a held socket, as exporter.net.dial sets them."""


class Fault(StrEnum):
    """A way in which a connection breaks: ended with FIN, RST or exit; no packets; connected but silent."""

    CLOSED = "closed"
    VANISHED = "vanished"
    FROZEN = "frozen"


def detection_bounds(policy: Policy, traits: Traits) -> dict[Fault, float]:
    """Return the seconds within which each fault shows, while the event loop is not overloaded."""
    next_probe = policy.interval + policy.timeout
    bounds = {Fault.CLOSED: _CLOSED if traits.holds_session else next_probe}
    if traits.crosses_network:
        bounds[Fault.VANISHED] = min(_VANISHED, next_probe) if traits.holds_session else next_probe
    bounds[Fault.FROZEN] = next_probe
    return bounds
