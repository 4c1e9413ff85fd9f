"""Own the PromQL that more than one panel needs; must not know of panels, colours or layout.

Every expression reads raw metrics, works on Prometheus 2.42 and 3.x alike, and answers with a
sample while nothing fails, while everything does, and (where people look first) while the exporter
is gone.
"""

SELECT = 'name=~"$name",kind=~"$kind"'

# What an exporter that is gone was last seen to watch. `unless` leaves out the services that a
# living exporter has dropped from its configuration.
_GONE = (
    "0 * max by (name) (last_over_time(connection_status{%s}[1d])"
    " unless on (job, instance) connection_monitor_active)"
)
# A status is bad while it is known and not healthy.
_BAD = 'state=~"connecting|unhealthy|disconnected"'
_KNOWN = 'state!="unknown"'

FIRING = 'ALERTS{alertstate="firing",severity!="none"%s}'


def status_now(select: str = SELECT) -> str:
    """Return the code of each service's status, unknown where its exporter is gone."""
    return f"max by (name) (connection_status{{{select}}}) or {_GONE % select}"


def status_over_time(select: str = SELECT) -> str:
    """Return the worst code within each step, so that a short outage shows at any zoom.

    The second operand covers a step into which no scrape fell, for scrapes are never quite regular;
    the third draws an exporter that is gone as unknown instead of as a gap.
    """
    return (
        f"max by (name) (max_over_time(connection_status{{{select}}}[$__interval])) or {status_now(select)}"
    )


# An exporter that Prometheus should scrape and cannot, though it could within a day.
_LOST = "0 * (up == 0 and on (job, instance) last_over_time(connection_monitor_active[1d]))"


def overall() -> str:
    """Return the overall status of all exporters: partial, then unknown, as one exporter ranks them."""
    return (
        "max(connection_overall_status) == 3"
        f" or min(connection_overall_status or {_LOST}) == 0"
        " or max(connection_overall_status) or vector(0)"
    )


def watching() -> str:
    """Return whether every exporter is there and its monitor is active."""
    return f"min(connection_monitor_active or {_LOST}) or vector(0)"


def each(metric: str, *, extra: str = "", select: str = SELECT) -> str:
    """Return the value of a gauge for each service."""
    return f"max by (name) ({metric}{{{select}{extra}}})"


def next_attempt() -> str:
    """Return the whole seconds until the next attempt of each service, 0 when it is due or under way.

    Between two scrapes a planned time passes; to show it as so many seconds ago would look like a fault.
    """
    return f"clamp_min(round({each('connection_next_attempt_timestamp_seconds')} - time()), 0)"


def kept(metric: str) -> str:
    """Return the value of a gauge for each service, the last one where its exporter is gone."""
    series = f"{metric}{{{SELECT}}}"
    return (
        f"{each(metric)} or max by (name)"
        f" (last_over_time({series}[1d]) unless on (job, instance) connection_monitor_active)"
    )


def last(metric: str, *, select: str = SELECT) -> str:
    """Return the last value in the range of a measure that is absent while there is no session."""
    return f"max by (name) (last_over_time({metric}{{{select}}}[$__range]))"


def info() -> str:
    """Return one sample a service with what does not change: kind, address, critical."""
    return (
        f"max by (name, kind, address, critical) (connection_info{{{SELECT}}})"
        " or max by (name, kind, address, critical)"
        f" (last_over_time(connection_info{{{SELECT}}}[1d])"
        " unless on (job, instance) connection_monitor_active)"
    )


def monitored() -> str:
    """Return for each service whether the exporter that knows it is watching it."""
    return (
        f"max by (name) (0 * connection_status{{{SELECT}}}"
        " + on (job, instance) group_left () connection_monitor_active)"
        f" or {_GONE % SELECT}"
    )


def increase(metric: str, window: str, *, extra: str = "", by: str = "name") -> str:
    """Return by how much a counter grew in a window."""
    return f"sum by ({by}) (increase({metric}{{{SELECT}{extra}}}[{window}]))"


def rate(metric: str, *, extra: str = "", by: str = "name") -> str:
    """Return the growth of a counter a second."""
    return f"sum by ({by}) (rate({metric}{{{SELECT}{extra}}}[$__rate_interval]))"


def mean_latency(window: str) -> str:
    """Return the mean duration of the answered probes; NaN where none was answered."""
    total = increase("connection_check_duration_seconds_sum", window)
    count = increase("connection_check_duration_seconds_count", window)
    return f"{total} / {count}"


def failures_by_reason(window: str) -> str:
    """Return failures by reason, counting the very first of each, and a zero where there is none.

    The series of a reason begins at its first failure, and increase() of a series that has just
    begun misses that one. So a series younger than the window counts whole.
    """
    metric = f"connection_check_failures_by_reason_total{{{SELECT}}}"
    grown = f"({metric} unless {metric} offset {window}) or increase({metric}[{window}])"
    none = f"label_replace({increase('connection_check_failures_total', window)} * 0,"
    return f'sum by (name, reason) ({grown}) or on (name) {none} "reason", "none", "", "")'


def bad_seconds(window: str) -> str:
    """Return the seconds for which each service was known not to be healthy."""
    return increase("connection_state_seconds_total", window, extra=f",{_BAD}")


def known_seconds(window: str) -> str:
    """Return the seconds for which each service's status was known."""
    return increase("connection_state_seconds_total", window, extra=f",{_KNOWN}")


def healthy_seconds(window: str) -> str:
    """Return the seconds for which each service was healthy."""
    return increase("connection_state_seconds_total", window, extra=',state="healthy"')


def availability(window: str) -> str:
    """Return the share of the known time in which each service was healthy."""
    return f"{healthy_seconds(window)} / ({known_seconds(window)} > 0)"


def outages(window: str) -> str:
    """Return the number of outages, made whole again after Prometheus' extrapolation."""
    return f"round({increase('connection_outages_total', window)})"


def mttr(window: str) -> str:
    """Return the mean time to recovery: time not healthy over outages, or all of it with none."""
    return f"{bad_seconds(window)} / clamp_min({outages(window)}, 1)"


def mtbf(window: str) -> str:
    """Return the mean time between failures; with no outage all the healthy time, a lower bound."""
    return f"{healthy_seconds(window)} / clamp_min({outages(window)}, 1)"


def budget_left(window: str) -> str:
    """Return the share of the error budget that is left: 1 is untouched, below 0 is overspent."""
    return f"1 - {bad_seconds(window)} / ({known_seconds(window)} > 0) / (1 - $slo / 100)"


def burn_rate(window: str) -> str:
    """Return how many times faster than allowed the error budget is being spent."""
    return f"{bad_seconds(window)} / ({known_seconds(window)} > 0) / (1 - $slo / 100)"


def firing_since(extra: str = "") -> str:
    """Return when each firing alert became active, in ms; one row that says so where none fires."""
    firing = FIRING % extra
    return (
        "max by (alertname, severity, name)"
        f" (1000 * ALERTS_FOR_STATE and ignoring (alertstate) {firing})"
        ' or on () label_replace(vector(0), "alertname", "none is firing", "", "")'
    )


def firing_count(extra: str = "") -> str:
    """Return how many alerts fire, Watchdog (severity none) aside."""
    return f"count({FIRING % extra}) or vector(0)"
