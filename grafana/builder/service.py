"""Build Service, which asks what is happening to one service, and why."""

from . import causes, kinds, links
from .dashboard import (
    Line,
    Section,
    dashboard,
    datasource_variable,
    runbooks_variable,
    service_variables,
    transitions_annotation,
)
from .palette import (
    DISCONNECTED,
    FIRST,
    HEALTHY,
    NEUTRAL,
    SECOND,
    STATUSES,
    UNHEALTHY,
    Json,
    mappings,
    steps,
)
from .panels import colour_of, stat, target, targets, timeseries
from .queries import SELECT, availability, bad_seconds, firing_since, outages, rate, status_now, while_up
from .states import facts_table, firing_table, signals, status_timeline, story_table, time_in_each_state


def build() -> Json:
    """Return the Service dashboard."""
    timeline = status_timeline(
        title="Status over time",
        description="The worst status within each step. A vertical line marks the last transition.",
    )
    states = time_in_each_state(
        title="Time in each status",
        description="The share of the range in each status. The exporter counts the exact time, including what"
        " is shorter than a scrape.",
    )
    alerts = firing_table(
        "Firing alerts of the service",
        "The alerts with the name of this service.",
        firing_since(select='name=~"$name"'),
    )
    return dashboard(
        links.SERVICE,
        "Connections / Service",
        "What is happening to this service, and why?",
        [
            Section(
                [
                    Line(4, [(6, _status()), (18, story_table())]),
                    Line(4, [(24, facts_table())]),
                    Line(5, [(24, timeline)]),
                    Line(5, [(24, signals())]),
                ]
            ),
            Section(
                [
                    Line(7, [(12, causes.reasons()), (12, causes.transitions())]),
                    Line(7, [(12, causes.sessions()), (12, causes.retries())]),
                    Line(7, [(24, causes.phases())]),
                    Line(6, [(24, alerts)]),
                ],
                title="Why: failures, transitions, sessions",
            ),
            Section(
                [
                    Line(7, [(12, _latency()), (12, _checks())]),
                    Line(4, [(6, _availability()), (6, _down()), (6, _outages()), (6, _certificate())]),
                    Line(5, [(16, states), (8, _bound())]),
                ],
                title="How well: latency, checks, time in each status",
            ),
            *kinds.sections(),
        ],
        variables=[datasource_variable(), *service_variables(single=True), runbooks_variable()],
        time_from="now-3h",
        refresh="10s",
        annotations=[transitions_annotation()],
    )


def _status() -> Json:
    return stat(
        "Status",
        "The status of the service now. Unknown also means that its exporter is down.",
        [target(status_now(), "{{name}}", instant=True)],
        mappings=mappings(STATUSES),
        extra={"noValue": "no such service"},
    )


def _availability() -> Json:
    return stat(
        "Availability",
        "Healthy time divided by known time in the range.",
        [target(availability("$__range"), "{{name}}", instant=True)],
        unit="percentunit",
        thresholds=steps((None, NEUTRAL), (0, UNHEALTHY), (0.999, HEALTHY)),
        extra={"decimals": 3, "max": 1, "noValue": "not known yet"},
    )


def _down() -> Json:
    return stat(
        "Time not healthy",
        "Time in the range in which the service was connecting, unhealthy or disconnected.",
        [target(bad_seconds("$__range"), "{{name}}", instant=True)],
        unit="s",
        thresholds=steps((None, NEUTRAL), (0, HEALTHY), (1, UNHEALTHY)),
        extra={"decimals": 1, "noValue": "not known yet"},
    )


def _outages() -> Json:
    return stat(
        "Outages",
        "How often in the range the service was lost, and the immediate attempt to reconnect did not make it healthy.",
        [target(outages("$__range"), "{{name}}", instant=True)],
        unit="short",
        thresholds=steps((None, NEUTRAL), (0, HEALTHY), (1, UNHEALTHY)),
        extra={"decimals": 0, "noValue": "not known yet"},
    )


def _bound() -> Json:
    bounds = f"max by (event) (connection_detection_bound_seconds{{{SELECT}}})"
    return stat(
        "Detected within",
        "The longest time until the exporter detects that the connection is closed, that packets vanish, or that"
        " the other side is frozen.",
        [target(bounds, "{{event}}", instant=True)],
        unit="s",
        text="value_and_name",
        thresholds=steps((None, NEUTRAL)),
        extra={"noValue": "not known yet"},
    )


def _latency() -> Json:
    buckets = rate("connection_check_duration_seconds_bucket", by="name, le")
    count = rate("connection_check_duration_seconds_count")
    total = rate("connection_check_duration_seconds_sum")
    return timeseries(
        "Latency",
        "Duration of the answered probes over the held session. Half of the probes are faster than p50, and 1 in"
        " 100 is slower than p99. There is no line while there is no session.",
        targets(
            (while_up(f"histogram_quantile(0.99, {buckets})"), "p99"),
            (while_up(f"histogram_quantile(0.5, {buckets})"), "p50"),
            (while_up(f"{total} / {count}"), "mean"),
        ),
        unit="s",
        interval="2m",
        overrides=[colour_of("p99", SECOND), colour_of("p50", FIRST)],
    )


def _checks() -> Json:
    return timeseries(
        "Checks and failures",
        "Checks per second, and failed checks per second.",
        targets(
            (rate("connection_checks_total"), "checks"),
            (rate("connection_check_failures_total"), "failures"),
        ),
        unit="cps",
        interval="1m",
    )


def _certificate() -> Json:
    ends = f"last_over_time(connection_tls_certificate_expiry_timestamp_seconds{{{SELECT}}}[$__range])"
    day = 86400
    return stat(
        "Certificate ends in",
        "Time until the server's certificate expires. Below zero, it has expired. Amber begins where the alert is a"
        " ticket, red where it is a page.",
        [target(f"min by (name) ({ends}) - time()", "{{name}}", instant=True)],
        unit="s",
        thresholds=steps(
            (None, NEUTRAL), (-36500 * day, DISCONNECTED), (3 * day, UNHEALTHY), (14 * day, HEALTHY)
        ),
        extra={"decimals": 1, "noValue": "no TLS"},
    )
