"""Monitor, the dashboard that asks whether exporter, Prometheus and Alertmanager are well."""

from . import engines, itself, links
from .dashboard import (
    Line,
    Section,
    check_url_variable,
    dashboard,
    datasource_variable,
    label_variable,
)
from .palette import (
    DISCONNECTED,
    HEALTHY,
    MONITORED,
    PIPELINE,
    RELOADED,
    UNHEALTHY,
    UP_DOWN,
    Json,
    mappings,
    steps,
)
from .panels import stat, target, timeline, timeseries
from .queries import watching
from .states import firing_table

_JOB = 'job=~"$job"'
_OURS = "connection_exporter_build_info|prometheus_build_info|alertmanager_build_info"


def build(exporter_url: str) -> Json:
    """Return the Monitor dashboard."""
    alerts = firing_table(
        title="Firing alerts",
        description="What Alertmanager is being told now, the newest first; Watchdog aside.",
    )
    return dashboard(
        links.MONITOR,
        "Connections / Monitor",
        "Can what the other dashboards say be trusted: are the exporter, Prometheus and"
        " Alertmanager themselves well?",
        [
            Section(
                [
                    Line(4, [(4, panel) for panel in _trust()]),
                    Line(7, [(12, _targets()), (12, alerts)]),
                ]
            ),
            Section(
                [
                    Line(7, [(8, itself.overdue()), (8, itself.lag()), (8, itself.forced())]),
                    Line(7, [(8, itself.scrape()), (8, itself.samples()), (8, itself.started())]),
                ],
                title="Exporter",
            ),
            Section(
                [Line(7, [(8, _cpu()), (8, _memory()), (8, _files())])],
                title="Resources of all three",
            ),
            Section(
                [
                    Line(7, [(8, engines.rules()), (8, engines.rule_time()), (8, engines.sent())]),
                    Line(
                        7,
                        [(8, engines.series()), (8, engines.storage()), (8, engines.discovered())],
                    ),
                ],
                title="Prometheus",
            ),
            Section(
                [Line(7, [(8, engines.notified()), (8, engines.delay()), (8, engines.held())])],
                title="Alertmanager",
            ),
        ],
        variables=[
            datasource_variable(),
            label_variable("job", "Job", f'label_values({{__name__=~"{_OURS}"}}, job)'),
            check_url_variable(exporter_url, hidden=True),
        ],
        time_from="now-6h",
        refresh="30s",
    )


def _trust() -> list[Json]:
    reload = "prometheus_config_last_reload_successful"
    failing = (
        "sum(increase(prometheus_notifications_errors_total[$__range]))"
        " + sum(increase(prometheus_notifications_dropped_total[$__range]))"
    )
    return [
        stat(
            "Monitoring",
            "Whether every exporter is there and its monitor is active.",
            [target(watching(), instant=True)],
            mappings=mappings(MONITORED),
            links=links.to_status_page(),
        ),
        stat(
            "Watchdog",
            "An alert that always fires. Silent means that rules are not evaluated: no alert can"
            " come, whatever breaks.",
            [
                target(
                    'clamp_max(count(ALERTS{alertname=~".*Watchdog",alertstate="firing"}), 1) or vector(0)',
                    instant=True,
                )
            ],
            mappings=mappings(PIPELINE),
        ),
        stat(
            "Targets down",
            "How many targets of the chosen jobs Prometheus cannot scrape.",
            [target(f"count(up{{{_JOB}}} == 0) or vector(0)", instant=True)],
            unit="short",
            thresholds=steps((None, HEALTHY), (1, DISCONNECTED)),
        ),
        stat(
            "Last reload of configurations",
            "Failed: a changed file was refused, and the one before it is still in force.",
            [
                target(
                    "min(connection_exporter_config_last_reload_successful) or vector(0)",
                    "exporter",
                    instant=True,
                ),
                target(f"min({reload}) or vector(0)", "Prometheus", ref="B", instant=True),
                target(
                    "min(alertmanager_config_last_reload_successful) or vector(0)",
                    "Alertmanager",
                    ref="C",
                    instant=True,
                ),
            ],
            text="value_and_name",
            mappings=mappings(RELOADED),
        ),
        stat(
            "Alerts not handed over",
            "Alerts that Prometheus could not give to Alertmanager, in the range shown.",
            [target(f"round({failing}) or vector(0)", instant=True)],
            unit="short",
            thresholds=steps((None, HEALTHY), (1, DISCONNECTED)),
        ),
        stat(
            "Notifications failed",
            "Notifications that Alertmanager could not deliver, in the range shown.",
            [
                target(
                    "round(sum(increase(alertmanager_notifications_failed_total[$__range]))) or vector(0)",
                    instant=True,
                )
            ],
            unit="short",
            thresholds=steps((None, HEALTHY), (1, DISCONNECTED)),
        ),
    ]


def _targets() -> Json:
    low = f"min by (job, instance) (min_over_time(up{{{_JOB}}}[$__interval]))"
    return timeline(
        "Targets",
        "Whether Prometheus could scrape each target: the worst within each step.",
        [
            target(
                f"{low} or min by (job, instance) (up{{{_JOB}}})",
                "{{job}} {{instance}}",
            )
        ],
        mappings=mappings(UP_DOWN),
    )


def _cpu() -> Json:
    return timeseries(
        "CPU",
        "Cores in use.",
        [target(f"rate(process_cpu_seconds_total{{{_JOB}}}[$__rate_interval])", "{{job}}")],
        unit="short",
        interval="1m",
    )


def _memory() -> Json:
    return timeseries(
        "Memory",
        "Resident memory. A line that only climbs is a leak.",
        [target(f"process_resident_memory_bytes{{{_JOB}}}", "{{job}}")],
        unit="bytes",
    )


def _files() -> Json:
    share = f"process_open_fds{{{_JOB}}} / process_max_fds{{{_JOB}}}"
    return timeseries(
        "File descriptors in use",
        "Open files and connections over the limit. At the limit no new connection can be made.",
        [target(share, "{{job}}")],
        unit="percentunit",
        thresholds=steps((None, HEALTHY), (0.8, UNHEALTHY), (0.95, DISCONNECTED)),
    )
