"""Service, the dashboard that asks what is happening to one service, and why."""

from . import causes, kinds, links
from .dashboard import (
    Line,
    Section,
    check_url_variable,
    dashboard,
    datasource_variable,
    service_variables,
    transitions_annotation,
)
from .palette import (
    DISCONNECTED,
    FIRST,
    HEALTHY,
    NEUTRAL,
    SECOND,
    UNHEALTHY,
    Json,
    steps,
)
from .panels import colour_of, stat, target, targets, timeseries
from .queries import (
    SELECT,
    availability,
    bad_seconds,
    outages,
    rate,
)
from .states import (
    firing_table,
    service_table,
    status_timeline,
    time_in_each_state,
    witnesses,
)


def build(exporter_url: str) -> Json:
    """Return the Service dashboard."""
    now = service_table(
        title="Now",
        description="What the exporter knows of the chosen services now, and Force check for each.",
        with_address=True,
    )
    timeline = status_timeline(
        title="Status over time",
        description="The worst status within each step; lines mark the last transition.",
    )
    both = witnesses(
        title="Session and canary",
        description="The two witnesses: the held session, and the probe over a fresh connection. A"
        " canary that is down while the session is up means that new clients get no connection.",
    )
    states = time_in_each_state(
        title="Time in each state",
        description="The time spent in each status over the range shown, counted exactly by the"
        " exporter, and so also what was shorter than a scrape.",
    )
    alerts = firing_table(
        title="Firing alerts of the service",
        description="Alerts that carry the name of a chosen service.",
        extra=',name=~"$name"',
    )
    return dashboard(
        links.SERVICE,
        "Connections / Service",
        "What is happening to this service, and why?",
        [
            Section(
                [
                    Line(6, [(24, now)]),
                    Line(4, [(6, _availability()), (6, _down()), (6, _outages()), (6, _bound())]),
                    Line(6, [(12, timeline), (12, both)]),
                ]
            ),
            Section(
                [
                    Line(7, [(12, causes.reasons()), (12, causes.transitions())]),
                    Line(7, [(8, causes.sessions()), (8, causes.retries()), (8, alerts)]),
                ],
                title="Why: failures, transitions, sessions",
            ),
            Section(
                [
                    Line(7, [(12, _latency()), (12, _checks())]),
                    Line(7, [(16, states), (8, _certificate())]),
                ],
                title="How well: latency, checks, time in each state",
            ),
            *kinds.sections(),
        ],
        variables=[
            datasource_variable(),
            *service_variables(),
            check_url_variable(exporter_url),
        ],
        time_from="now-3h",
        refresh="10s",
        annotations=[transitions_annotation(enabled=True)],
    )


def _availability() -> Json:
    return stat(
        "Availability",
        "Healthy time over known time in the range shown.",
        [target(availability("$__range"), "{{name}}", instant=True)],
        unit="percentunit",
        thresholds=steps((None, UNHEALTHY), (0.999, HEALTHY)),
        extra={"decimals": 3, "max": 1, "noValue": "not known yet"},
    )


def _down() -> Json:
    return stat(
        "Time not healthy",
        "Time in connecting, unhealthy and disconnected in the range shown.",
        [target(bad_seconds("$__range"), "{{name}}", instant=True)],
        unit="s",
        thresholds=steps((None, HEALTHY), (1, UNHEALTHY)),
        extra={"decimals": 1},
    )


def _outages() -> Json:
    return stat(
        "Outages",
        "Times that the service was lost and not healthy again at once, in the range shown.",
        [target(outages("$__range"), "{{name}}", instant=True)],
        unit="short",
        thresholds=steps((None, HEALTHY), (1, UNHEALTHY)),
        extra={"decimals": 0},
    )


def _bound() -> Json:
    worst = f"max by (event) (connection_detection_bound_seconds{{{SELECT}}})"
    return stat(
        "Noticed within",
        "The longest it may take to notice that a connection was closed, that packets vanish, or"
        " that the other side is frozen; the largest of the chosen services.",
        [target(worst, "{{event}}", instant=True)],
        unit="s",
        text="value_and_name",
        thresholds=steps((None, NEUTRAL)),
    )


def _latency() -> Json:
    buckets = rate("connection_check_duration_seconds_bucket", by="le")
    count = rate("connection_check_duration_seconds_count", by="kind")
    total = rate("connection_check_duration_seconds_sum", by="kind")
    return timeseries(
        "Latency",
        "Duration of the answered probes over the held session, of all chosen services together."
        " Half of the probes are faster than p50, 1 in 100 is slower than p99.",
        targets(
            (f"histogram_quantile(0.99, {buckets})", "p99"),
            (f"histogram_quantile(0.5, {buckets})", "p50"),
            (f"{total} / {count}", "mean {{kind}}"),
        ),
        unit="s",
        interval="2m",
        overrides=[colour_of("p99", SECOND), colour_of("p50", FIRST)],
    )


def _checks() -> Json:
    return timeseries(
        "Checks and failures",
        "Checks made a second, and those that ended with no answer.",
        targets(
            (rate("connection_checks_total"), "{{name}} checks"),
            (rate("connection_check_failures_total"), "{{name}} failures"),
        ),
        unit="cps",
        interval="1m",
    )


def _certificate() -> Json:
    ends = f"last_over_time(connection_tls_certificate_expiry_timestamp_seconds{{{SELECT}}}[$__range])"
    day = 86400
    return stat(
        "Certificate ends in",
        "Time until the certificate of the other side expires; below zero it has. Amber and red begin"
        " where the alerts become a ticket and a page. Only for services over TLS.",
        [target(f"min by (name) ({ends}) - time()", "{{name}}", instant=True)],
        unit="s",
        thresholds=steps((None, DISCONNECTED), (3 * day, UNHEALTHY), (14 * day, HEALTHY)),
        extra={"decimals": 1, "noValue": "no service over TLS"},
    )
