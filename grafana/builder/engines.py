"""The panels of the Monitor dashboard on Prometheus and Alertmanager, from their own metrics."""

from .palette import DISCONNECTED, FIRST, SECOND, Json
from .panels import colour_of, target, targets, timeseries


def rules() -> Json:
    """Return how many evaluations of rules failed or were skipped."""
    failures = "sum(increase(prometheus_rule_evaluation_failures_total[$__rate_interval]))"
    missed = "sum(increase(prometheus_rule_group_iterations_missed_total[$__rate_interval]))"
    return timeseries(
        "Rules failed or skipped",
        "Evaluations that ended in an error, and evaluations that were skipped because the previous one took too long."
        " Either can mean missing alerts.",
        targets((failures, "failed"), (missed, "skipped")),
        unit="short",
        bars=True,
        interval="5m",
        overrides=[colour_of("failed", SECOND), colour_of("skipped", FIRST)],
        extra={"decimals": 0},
    )


def rule_time() -> Json:
    """Return how long the slowest rule group takes."""
    return timeseries(
        "Slowest rule group",
        "How long the last evaluation of the slowest rule group took. It must stay below the interval of the group.",
        [target("max(prometheus_rule_group_last_duration_seconds)", "slowest group")],
        unit="s",
    )


def sent() -> Json:
    """Return how many alerts went to Alertmanager."""
    return timeseries(
        "Alerts sent to Alertmanager",
        "Alerts per second that Prometheus sent, failed to send, or dropped.",
        targets(
            ("sum(rate(prometheus_notifications_sent_total[$__rate_interval]))", "sent"),
            ("sum(rate(prometheus_notifications_errors_total[$__rate_interval]))", "failed"),
            ("sum(rate(prometheus_notifications_dropped_total[$__rate_interval]))", "dropped"),
        ),
        unit="cps",
        interval="5m",
    )


def series() -> Json:
    """Return how many series Prometheus holds."""
    return timeseries(
        "Series in memory",
        "Series that Prometheus holds in its head block.",
        [target("sum(prometheus_tsdb_head_series)", "series")],
        unit="short",
    )


def storage() -> Json:
    """Return how much Prometheus stores on disk."""
    blocks = "sum(prometheus_tsdb_storage_blocks_bytes)"
    wal = "sum(prometheus_tsdb_wal_storage_size_bytes)"
    return timeseries(
        "Storage",
        "Bytes on disk: blocks, and the write-ahead log.",
        targets((blocks, "blocks"), (wal, "write-ahead log")),
        unit="bytes",
    )


def discovered() -> Json:
    """Return how many Alertmanagers Prometheus knows."""
    return timeseries(
        "Alertmanagers known",
        "How many Alertmanagers Prometheus sends alerts to. At 0, no alert leaves Prometheus.",
        [target("sum(prometheus_notifications_alertmanagers_discovered)", "Alertmanagers")],
        unit="short",
        extra={"decimals": 0},
    )


def notified() -> Json:
    """Return the notifications, sent and failed."""
    failed = "sum(increase(alertmanager_notifications_failed_total[$__rate_interval]))"
    return timeseries(
        "Notifications",
        "Notifications that Alertmanager sent, by channel (integration), and those that failed.",
        targets(
            (
                "sum by (integration)"
                " (increase(alertmanager_notifications_total[$__rate_interval])) > 0"
                ' or on () label_replace(vector(0), "integration", "none sent", "", "")',
                "{{integration}}",
            ),
            (failed, "failed"),
        ),
        unit="short",
        bars=True,
        interval="5m",
        overrides=[colour_of("failed", DISCONNECTED)],
        extra={"decimals": 0},
    )


def delay() -> Json:
    """Return how long receivers take."""
    buckets = "sum by (le) (rate(alertmanager_notification_latency_seconds_bucket[$__rate_interval]))"
    return timeseries(
        "Latency of notifications",
        "How long receivers take to accept a notification: 1 in 100 takes longer. There is no line while none is sent.",
        [target(f"histogram_quantile(0.99, {buckets})", "p99")],
        unit="s",
        interval="5m",
        overrides=[colour_of("p99", SECOND)],
    )


def held() -> Json:
    """Return the alerts and silences that Alertmanager holds."""
    return timeseries(
        "Alerts and silences",
        "Alerts in Alertmanager by state, and active silences.",
        targets(
            ("sum by (state) (alertmanager_alerts)", "{{state}} alerts"),
            ('sum(alertmanager_silences{state="active"})', "active silences"),
        ),
        unit="short",
        extra={"decimals": 0},
    )
