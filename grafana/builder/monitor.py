"""Build Monitor, which asks whether the exporter, Prometheus and Alertmanager are healthy themselves."""

from . import engines, itself, links
from .dashboard import (
    Line,
    Section,
    dashboard,
    datasource_variable,
    label_variable,
    runbooks_variable,
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
from .queries import firing_since, if_none, watching
from .states import firing_table

_JOB = 'job=~"$job"'
_ABOUT = "ConnectionExporter.*|Prometheus.*|Alertmanager.*"
_OURS = "connection_exporter_build_info|prometheus_build_info|alertmanager_build_info"


def build() -> Json:
    """Return the Monitor dashboard."""
    alerts = firing_table(
        "Firing alerts about the monitoring",
        "The alerts about the exporter, Prometheus and Alertmanager, the newest first. Those of services are on the"
        " Overview.",
        firing_since(_ABOUT, pushed=False),
    )
    return dashboard(
        links.MONITOR,
        "Connections / Monitor",
        "Can I trust the other dashboards: are the exporter, Prometheus and Alertmanager themselves healthy?",
        [
            Section(
                [
                    Line(4, [(4, panel) for panel in _trust()]),
                    Line(6, [(24, _targets())]),
                    Line(6, [(24, alerts)]),
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
            runbooks_variable(),
        ],
        time_from="now-6h",
        refresh="30s",
    )


def _trust() -> list[Json]:
    failing = (
        "sum(increase(prometheus_notifications_errors_total[$__range]))"
        " + sum(increase(prometheus_notifications_dropped_total[$__range]))"
    )
    return [
        stat(
            "Monitoring",
            "Whether every exporter is up and its monitor is active.",
            [target(watching(), instant=True)],
            mappings=mappings(MONITORED),
        ),
        stat(
            "Watchdog",
            "An alert that always fires. Silent means that Prometheus does not evaluate the rules, so no other"
            " alert can fire.",
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
            "How many targets of the selected jobs Prometheus cannot scrape.",
            [target(f"count(up{{{_JOB}}} == 0) or vector(0)", instant=True)],
            unit="short",
            thresholds=steps((None, HEALTHY), (1, DISCONNECTED)),
        ),
        stat(
            "Reloads",
            "Failed: the exporter, Prometheus or Alertmanager rejected a changed file and still uses the previous one.",
            [
                target(
                    "min(connection_exporter_config_last_reload_successful or"
                    " prometheus_config_last_reload_successful or alertmanager_config_last_reload_successful)"
                    " or vector(0)",
                    instant=True,
                )
            ],
            mappings=mappings(RELOADED),
        ),
        stat(
            "Alerts lost",
            "How many alerts Prometheus could not send to Alertmanager in the range.",
            [target(f"round({failing}) or vector(0)", instant=True)],
            unit="short",
            thresholds=steps((None, HEALTHY), (1, DISCONNECTED)),
        ),
        stat(
            "Undelivered",
            "How many notifications Alertmanager could not deliver in the range.",
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
    none = if_none(f"up{{{_JOB}}}", "no target", 0).replace('"name"', '"job"')
    return timeline(
        "Targets",
        "Whether Prometheus could scrape each target. Each step shows the worst of its scrapes.",
        [
            target(
                f"{low} or min by (job, instance) (up{{{_JOB}}}) or {none}",
                "{{job}} {{instance}}",
            )
        ],
        mappings=mappings(UP_DOWN),
    )


def _cpu() -> Json:
    return timeseries(
        "CPU",
        "CPU cores in use: 1 is a full core.",
        [target(f"rate(process_cpu_seconds_total{{{_JOB}}}[$__rate_interval])", "{{job}} {{instance}}")],
        unit="short",
        interval="1m",
    )


def _memory() -> Json:
    return timeseries(
        "Memory",
        "Resident memory. A line that only rises is a leak.",
        [target(f"process_resident_memory_bytes{{{_JOB}}}", "{{job}} {{instance}}")],
        unit="bytes",
    )


def _files() -> Json:
    share = f"process_open_fds{{{_JOB}}} / process_max_fds{{{_JOB}}}"
    return timeseries(
        "File descriptors in use",
        "Open files and connections divided by the limit. At the limit, no new connection can be opened.",
        [target(share, "{{job}} {{instance}}")],
        unit="percentunit",
        thresholds=steps((None, HEALTHY), (0.8, UNHEALTHY), (0.95, DISCONNECTED)),
    )
