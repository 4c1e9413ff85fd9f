"""The panels of the Service dashboard that say why: failures, transitions, sessions, retries."""

from .palette import Json
from .panels import target, targets, timeseries
from .queries import each, failures_by_reason, increase, next_attempt
from .states import status_overrides


def reasons() -> Json:
    """Return the failed checks by reason."""
    return timeseries(
        "Failed checks by reason",
        "Checks that ended with no answer, by the reason that the exporter gives. A zero named none"
        " stands for a service with no failure.",
        [target(failures_by_reason("$__rate_interval"), "{{name}} {{reason}}")],
        unit="short",
        bars=True,
        stacked=True,
        interval="1m",
        extra={"decimals": 0},
    )


def transitions() -> Json:
    """Return the transitions by the status entered."""
    to = increase("connection_transitions_total", "$__rate_interval", by="to")
    return timeseries(
        "Transitions",
        "Changes of status, by the status that was entered. Many in a row is flapping.",
        [target(to, "{{to}}")],
        unit="short",
        bars=True,
        stacked=True,
        interval="1m",
        overrides=status_overrides(),
        extra={"decimals": 0},
    )


def sessions() -> Json:
    """Return the sessions begun and lost."""
    return timeseries(
        "Sessions begun and lost",
        "Sessions that came up and that broke. Losses with no outage are connections that the other"
        " side closes while idle.",
        targets(
            (increase("connection_sessions_total", "$__rate_interval"), "{{name}} begun"),
            (increase("connection_sessions_lost_total", "$__rate_interval"), "{{name}} lost"),
            (increase("connection_outages_total", "$__rate_interval"), "{{name}} outage"),
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
        "How many attempts in a row have failed, and in how many seconds the next one starts; 0 is now.",
        targets(
            (each("connection_retries"), "{{name}} retries"),
            (next_attempt(), "{{name}} next attempt in (s)"),
        ),
        unit="short",
    )
