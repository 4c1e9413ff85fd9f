"""The panels of the Monitor dashboard on the exporter itself."""

from . import links
from .palette import DISCONNECTED, FIRST, HEALTHY, NEUTRAL, SECOND, Json, steps, texts
from .panels import colour_of, stat, target, targets, timeseries

_EXPORTER = "and on (job, instance) connection_exporter_build_info"


def overdue() -> Json:
    """Return by how much the most overdue check is late."""
    overdue = "time() - min by (instance) (connection_next_attempt_timestamp_seconds)"
    return timeseries(
        "Most overdue check",
        "Seconds since the attempt that is due the longest should have started. Below zero, none is late. A few seconds"
        " above zero are normal while an attempt runs. There is no line while the exporter is down.",
        [target(overdue, "{{instance}}")],
        unit="s",
        thresholds=steps((None, HEALTHY), (60, DISCONNECTED)),
    )


def lag() -> Json:
    """Return how late the event loop wakes up."""
    buckets = "sum by (le) (rate(connection_exporter_loop_lag_seconds_bucket[$__rate_interval]))"
    return timeseries(
        "Lag of the event loop",
        "How late the exporter's event loop wakes up. This adds to the detection time.",
        targets(
            (f"histogram_quantile(0.99, {buckets})", "p99"),
            (f"histogram_quantile(0.5, {buckets})", "p50"),
        ),
        unit="s",
        interval="1m",
        overrides=[colour_of("p99", SECOND), colour_of("p50", FIRST)],
    )


def forced() -> Json:
    """Return forced checks and dropped callbacks."""
    return timeseries(
        "Forced checks, dropped callbacks",
        "Forced checks, and callbacks to subscribers that were dropped because the subscriber's queue was full.",
        targets(
            ("sum(increase(connection_forced_checks_total[$__rate_interval]))", "forced checks"),
            (
                "sum(increase(connection_exporter_callbacks_dropped_total[$__rate_interval]))",
                "dropped callbacks",
            ),
        ),
        unit="short",
        bars=True,
        interval="1m",
        overrides=[colour_of("forced checks", FIRST), colour_of("dropped callbacks", SECOND)],
        extra={"decimals": 0},
    )


def scrape() -> Json:
    """Return how long a scrape takes."""
    return timeseries(
        "Duration of a scrape",
        "How long Prometheus waits for the exporter's metrics. They come from memory, so a service that hangs has no"
        " effect on this.",
        [target(f"scrape_duration_seconds {_EXPORTER}", "{{instance}}")],
        unit="s",
    )


def samples() -> Json:
    """Return how many samples a scrape returns."""
    return timeseries(
        "Samples in a scrape",
        "How many samples the exporter returns: up to 48 for each service, plus those of its kind.",
        [target(f"scrape_samples_scraped {_EXPORTER}", "{{instance}}")],
        unit="short",
    )


def started() -> Json:
    """Return version and uptime."""
    return stat(
        "Version and uptime",
        "The version of each exporter, and how long it has been running. Click a tile to open its status page.",
        [
            target(
                "(time() - process_start_time_seconds) * on (job, instance)"
                " group_left (version) connection_exporter_build_info"
                " * on (job, instance) group_left (browser_url) up"
                ' or on () label_replace(vector(0), "version", "no exporter", "", "")',
                "{{version}} {{instance}}",
                instant=True,
            )
        ],
        unit="s",
        text="value_and_name",
        mappings=texts({"0": "-"}),
        thresholds=steps((None, NEUTRAL)),
        links=links.to_status_page("__field.labels.browser_url"),
        extra={"decimals": 1},
    )
