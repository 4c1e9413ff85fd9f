"""The policy of a service, and what follows from it: when to try again, and how soon a fault is noticed.

All durations are in seconds. Randomness comes in as a number; nothing here draws one.
"""

from enum import StrEnum
from typing import Final, NamedTuple

JITTER = 0.2
"""Share by which a back-off is spread to either side: services that failed together do not retry together."""

_MAX_EXPONENT = 62  # 2.0 ** 1025 raises OverflowError, and max_retry_delay rules long before

_CLOSED: Final = 0.05
"""Seconds. The kernel reports it at once; the rest is for a busy event loop."""

_BETWEEN_SERVICES: Final = 0.01
_ALL_WITHIN: Final = 2.0

_VANISHED: Final = 11.0
"""Seconds. TCP keep-alive and user timeout of a held socket, as connection_exporter.net.dial sets them."""


class Policy(NamedTuple):
    """How one service is monitored. Durations are in seconds; ``None`` turns a rule off."""

    interval: float = 30.0
    timeout: float = 5.0
    retries: int = 3
    retry_delay: float = 5.0
    max_retry_delay: float = 30.0
    canary: float | None = 300.0
    max_latency: float | None = None
    critical: bool = True


def spread(rand: float) -> float:
    """Turn ``rand`` (0 to 1) into a factor of 0.8 to 1.2."""
    return 1.0 - JITTER + 2.0 * JITTER * rand


def backoff(policy: Policy, *, failures: int, rand: float) -> float:
    """Return the delay before the next attempt, after ``failures`` in a row (0 for a bare loss)."""
    exponent = min(max(failures, 1) - 1, _MAX_EXPONENT)
    return min(policy.max_retry_delay, policy.retry_delay * 2.0**exponent) * spread(rand)


def recheck(policy: Policy, *, bad_answers: int) -> float:
    """Return the delay before the next probe of a service that is up but answers badly.

    Sooner than the interval at first, so that a recovery shows early; never later than the interval.
    """
    return min(policy.interval, policy.retry_delay * 2.0 ** min(bad_answers, _MAX_EXPONENT))


def reconnects_at_once(policy: Policy, *, session_age: float) -> bool:
    """Return whether a lost session had lasted long enough to be replaced with no delay.

    So a server that answers and then closes is not probed more often than every ``retry_delay``.
    """
    return session_age >= policy.retry_delay


def first_start(policy: Policy, *, index: int, total: int) -> float:
    """Return when the first attempt at service ``index`` of ``total`` starts: evenly over min(2 s, interval)."""
    return min(2.0, policy.interval) * index / max(total, 1)


def pause(count: int) -> float:
    """Return the seconds between one of ``count`` services and the next, if all have something to do at once."""
    return min(_BETWEEN_SERVICES, _ALL_WITHIN / count)


def overdue_after(policy: Policy, *, next_attempt: float) -> float:
    """Return the time after which a missing result is overdue, on the clock of ``next_attempt``."""
    return next_attempt + 2.0 * policy.timeout


class Fault(StrEnum):
    """A way in which a connection breaks: ended with FIN, RST or exit; no packets; connected but silent."""

    CLOSED = "closed"
    VANISHED = "vanished"
    FROZEN = "frozen"


def detection_bounds(
    policy: Policy,
    *,
    holds_session: bool,
    crosses_network: bool,
    behind_proxy: bool = False,
    is_answered: bool = True,
) -> dict[Fault, float]:
    """Return the seconds within which each fault shows, while the event loop is not overloaded.

    ``behind_proxy``: the kernel notices only that the proxy has vanished, and a probe that the service has. Not
    ``is_answered``: the service answers no probe, so nothing shows that it is frozen.
    """
    next_probe = policy.interval + policy.timeout
    bounds = {Fault.CLOSED: _CLOSED if holds_session else next_probe}
    if crosses_network:
        by_kernel = holds_session and not behind_proxy
        bounds[Fault.VANISHED] = min(_VANISHED, next_probe) if by_kernel else next_probe
    if is_answered:
        bounds[Fault.FROZEN] = next_probe
    return bounds


def is_local(address: str) -> bool:
    """Return whether ``address`` is a Unix socket, or several of them: no packet can vanish on the way."""
    return all(host.startswith("/") for host in address.split(","))
