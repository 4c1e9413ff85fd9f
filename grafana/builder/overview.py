"""Overview, the home page, which asks whether all that we depend on works right now."""

from . import links
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
    HEALTHY,
    MONITORED,
    NEUTRAL,
    OVERALL,
    STATUSES,
    UNHEALTHY,
    Json,
    mappings,
    steps,
    texts,
)
from .panels import stat, target, timeseries
from .queries import availability, firing_count, mean_latency, overall, status_now, watching
from .states import firing_table, service_table, status_timeline


def build(exporter_url: str) -> Json:
    """Return the Overview dashboard."""
    header = Line(
        4,
        [
            (5, _overall()),
            (4, _not_healthy()),
            (3, _alerts()),
            (3, _active()),
            (3, _availability()),
            (3, _last_check()),
            (3, _uptime()),
        ],
    )
    now = service_table(
        title="Services",
        description="One row a service, the worst first and unknown ones last. The name leads to its"
        " detail. Force check asks the exporter for a check now; only those who may edit the dashboard"
        " see it, everyone else has the exporter's own status page. Latency is the mean of the last 5"
        " minutes; n/a means not measured.",
        with_address=False,
    )
    timeline = status_timeline(
        title="Status over time",
        description="The worst status within each step, so that no outage is too short to show."
        " Unknown also means that the exporter was not there to say.",
    )
    alerts = firing_table(
        title="Firing alerts",
        description="What Alertmanager is being told now, the newest first; Watchdog, which always"
        " fires, aside.",
    )
    return dashboard(
        links.OVERVIEW,
        "Connections / Overview",
        "Does everything we depend on work right now, and if not, what does not?",
        [
            Section(
                [
                    header,
                    Line(4, [(24, _tiles())]),
                    Line(9, [(24, now)]),
                    Line(8, [(15, timeline), (9, alerts)]),
                    Line(7, [(24, _latency())]),
                ]
            )
        ],
        variables=[
            datasource_variable(),
            *service_variables(),
            check_url_variable(exporter_url),
        ],
        time_from="now-1h",
        refresh="5s",
        annotations=[transitions_annotation(enabled=False)],
    )


def _overall() -> Json:
    return stat(
        "Overall",
        "Partial: a critical service is disconnected. Degraded: any service is not healthy."
        " Unknown: an exporter is not there, is not monitoring, or does not know a critical service"
        " yet.",
        [target(overall(), instant=True)],
        mappings=mappings(OVERALL),
        links=links.to_status_page(),
    )


def _not_healthy() -> Json:
    return stat(
        "Not healthy",
        "How many services are in any status but healthy, unknown ones among them.",
        [target(f"count(({status_now()}) != 1) or vector(0)", instant=True)],
        unit="short",
        mappings=texts({"0": "✓ none"}),
        thresholds=steps((None, HEALTHY), (1, DISCONNECTED)),
    )


def _alerts() -> Json:
    return stat(
        "Firing alerts",
        "How many alerts fire now, Watchdog aside. They are listed below.",
        [target(firing_count(), instant=True)],
        unit="short",
        mappings=texts({"0": "✓ none"}),
        thresholds=steps((None, HEALTHY), (1, UNHEALTHY)),
        links=links.to_monitor(),
    )


def _active() -> Json:
    return stat(
        "Monitoring",
        "Whether every exporter is there and its monitor is active. While one is not watching, what"
        " this page says of its services is no news.",
        [target(watching(), instant=True)],
        mappings=mappings(MONITORED),
        links=links.to_monitor(),
    )


def _availability() -> Json:
    return stat(
        "Availability, worst, 24 h",
        "Healthy time over known time in the last 24 hours, of the service where it is lowest.",
        [target(f"min({availability('1d')}) or vector(1)", instant=True)],
        unit="percentunit",
        thresholds=steps((None, UNHEALTHY), (0.999, HEALTHY)),
        links=links.to_history(),
        extra={"decimals": 2, "max": 1},
    )


def _last_check() -> Json:
    newest = "max(last_over_time(connection_last_check_timestamp_seconds[1d]))"
    return stat(
        "Last check",
        "When the newest check of any service ended. More than a minute ago needs an explanation.",
        [target(f"1000 * {newest} or vector(0)", instant=True)],
        unit="dateTimeFromNow",
        mappings=texts({"0": "never"}),
        thresholds=steps((None, NEUTRAL)),
    )


def _uptime() -> Json:
    started = "process_start_time_seconds and on (job, instance) connection_monitor_active"
    return stat(
        "Exporter up for",
        "How long the exporter has been running; its counters began at 0 then.",
        [target(f"min(time() - ({started})) or vector(0)", instant=True)],
        unit="s",
        mappings=texts({"0": "? not there"}),
        thresholds=steps((None, NEUTRAL)),
        extra={"decimals": 1},
    )


def _tiles() -> Json:
    return stat(
        "Status of each service",
        "A tile a service, to be read from across the room. A tile leads to the detail.",
        [target(f"sort_desc({status_now()})", "{{name}}", instant=True)],
        text="value_and_name",
        mappings=mappings(STATUSES),
        links=links.to_service("__field.labels.name"),
    )


def _latency() -> Json:
    return timeseries(
        "Latency of each service",
        "Mean duration of the answered probes over the held session. A line ends where nothing is"
        " answered. Colours of lines only say which is which.",
        [target(mean_latency("$__rate_interval"), "{{name}}")],
        unit="s",
        interval="2m",
        links=links.to_service("__field.labels.name"),
    )
