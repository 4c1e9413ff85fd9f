"""List the metrics that a dashboard or a rule may read: the exporter's, Prometheus' and Alertmanager's."""

from collections.abc import Iterator
from typing import Any

from connection_exporter.kind import Metric, MetricType
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import KINDS
from connection_exporter.monitor.monitor import Monitor
from connection_exporter.web.families import FAMILIES
from connection_exporter.web.own_metrics import OwnMetrics
from connection_exporter.web.samples import Family


def _series(family: Family | Metric) -> Iterator[str]:
    if family.type is MetricType.HISTOGRAM:
        yield from (f"{family.name}_{part}" for part in ("bucket", "sum", "count"))
    else:
        yield family.name


def kind_families() -> dict[str, tuple[Metric, ...]]:
    """Return the families of each kind that the exporter brings."""
    checks: dict[str, Any] = {name: kind.load() for name, kind in KINDS.items()}
    return {name: check.traits.metrics for name, check in checks.items()}


def _own_metrics() -> Iterator[str]:
    board = Monitor(load_text("services: {it: {kind: http, url: 'http://localhost'}}", source="test")).board
    for metric in OwnMetrics(board, callbacks_dropped=lambda: 0).registry.collect():
        if metric.type == "histogram":
            yield from (f"{metric.name}_{part}" for part in ("bucket", "sum", "count"))
        else:
            yield f"{metric.name}_total" if metric.type == "counter" else metric.name


COMMON_METRICS = frozenset(name for family in FAMILIES for name in _series(family))
"""The series that every service has, whatever its kind."""

KIND_METRICS = frozenset(
    name for families in kind_families().values() for family in families for name in _series(family)
)
"""The series that only services of one kind have."""

OWN_METRICS = frozenset(_own_metrics())
"""The series about the exporter itself and about everything together."""

EXPORTER_METRICS = COMMON_METRICS | KIND_METRICS | OWN_METRICS

PLANNED_METRICS: frozenset[str] = frozenset()
"""The metrics that a dashboard reads before the exporter has them. A test fails as soon as it has one of these."""

# The metrics of Prometheus and Alertmanager themselves.
STACK_METRICS = frozenset(
    [
        "up",
        "scrape_duration_seconds",
        "scrape_samples_scraped",
        "ALERTS",
        "ALERTS_FOR_STATE",
        "prometheus_build_info",
        "prometheus_config_last_reload_successful",
        "prometheus_notifications_sent_total",
        "prometheus_notifications_errors_total",
        "prometheus_notifications_dropped_total",
        "prometheus_notifications_alertmanagers_discovered",
        "prometheus_rule_evaluation_failures_total",
        "prometheus_rule_group_iterations_missed_total",
        "prometheus_rule_group_last_duration_seconds",
        "prometheus_tsdb_head_series",
        "prometheus_tsdb_storage_blocks_bytes",
        "prometheus_tsdb_wal_storage_size_bytes",
        "alertmanager_build_info",
        "alertmanager_config_last_reload_successful",
        "alertmanager_alerts",
        "alertmanager_silences",
        "alertmanager_notifications_total",
        "alertmanager_notifications_failed_total",
        "alertmanager_notification_latency_seconds_bucket",
    ]
)
