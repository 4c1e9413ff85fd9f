"""The panels of the Service dashboard about causes: failures, transitions, sessions and retries."""

from .palette import Json
from .panels import target, targets, timeseries
from .queries import each, failures_in, increase, next_attempt
from .states import status_overrides

_PHASES = {
    "http": ("resolve", "connect", "tls", "processing", "transfer"),
    "postgresql": ("connect", "auth", "query"),
    "tcp": ("dialogue",),
    "websocket": ("handshake",),
}


def reasons() -> Json:
    """Return the failed checks by reason."""
    failures = increase("connection_check_failures_total", "$__rate_interval")
    none = f'label_replace(0 * {failures}, "reason", "no failure", "", "")'
    return timeseries(
        "Failed checks by reason",
        "Checks without a good answer, by reason.",
        [target(f"{failures_in('$__rate_interval')} or on (name) {none}", "{{reason}}")],
        unit="short",
        bars=True,
        stacked=True,
        interval="1m",
        extra={"decimals": 0},
    )


def phases() -> Json:
    """Return how long each phase of connecting and of a probe took."""
    return timeseries(
        "Phases",
        "How long each phase took. Phases of connecting were measured when the session started, the others in the"
        " last probe. The kinds redis, process and heartbeat have no phases.",
        targets(
            *(
                (each(f"connection_{kind}_{phase}_duration_seconds"), phase)
                for kind, names in _PHASES.items()
                for phase in names
            )
        ),
        unit="s",
        stacked=True,
    )


def transitions() -> Json:
    """Return the transitions by the new status."""
    to = increase("connection_transitions_total", "$__rate_interval", by="to")
    return timeseries(
        "Transitions",
        "Changes of status, by the new status. Many in a row mean that the service is flapping.",
        [target(to, "{{to}}")],
        unit="short",
        bars=True,
        stacked=True,
        interval="1m",
        overrides=status_overrides(),
        extra={"decimals": 0},
    )


def sessions() -> Json:
    """Return the sessions started and lost."""
    return timeseries(
        "Sessions started and lost",
        "Losses without an outage are connections that the other side closes while they are idle.",
        targets(
            (increase("connection_sessions_total", "$__rate_interval"), "started"),
            (increase("connection_sessions_lost_total", "$__rate_interval"), "lost"),
            (increase("connection_outages_total", "$__rate_interval"), "outages"),
        ),
        unit="short",
        bars=True,
        interval="1m",
        extra={"decimals": 0},
    )


def retries() -> Json:
    """Return the retries and when the next attempt is due."""
    return timeseries(
        "Retries and next attempt",
        "How many attempts in a row have failed, and the seconds until the next attempt (0: now).",
        targets(
            (each("connection_retries"), "retries"),
            (next_attempt(), "next attempt in (s)"),
        ),
        unit="short",
    )
