"""Define the PromQL that several panels need; must not know panels, colours or layout.

Every expression reads raw metrics and works on Prometheus 2.42 and 3.x. It returns a sample while nothing
fails and while everything fails. The expressions of the Overview also do so while the exporter is down.
"""

SELECT = 'name=~"$name",kind=~"$kind"'
EXPORTER = "job, instance"
# Two exporters may each have a service of the same name, so a row of a table is a service of one exporter.
ROW = f"{EXPORTER}, name"

# Prometheus reports nothing for an exporter that is down; these read its last value of the past day.
# `unless` leaves out the services that a running exporter no longer has in its configuration.
_UNLESS_RUNNING = f"unless on ({EXPORTER}) connection_monitor_active"
# A status is bad if it is known and not healthy.
_BAD = 'state=~"connecting|unhealthy|disconnected"'
_KNOWN = 'state!="unknown"'

# Ours, and those about Prometheus and Alertmanager: a Prometheus with other rules has other alerts, too.
ALERTS = "Connection.*|Prometheus.*|Alertmanager.*"


def _or_last(value: str, series: str, by: str) -> str:
    return f"max by ({by}) ({value}) or max by ({by}) (last_over_time({series}[1d]) {_UNLESS_RUNNING})"


def status_now(by: str = "name", select: str = SELECT) -> str:
    """Return the code of each service's status: unknown if its exporter is down."""
    series = f"connection_status{{{select}}}"
    gone = f"0 * max by ({by}) (last_over_time({series}[1d]) {_UNLESS_RUNNING})"
    return f"max by ({by}) ({series}) or {gone}"


def status_over_time() -> str:
    """Return the worst code within each step, so that a short outage is visible at any zoom.

    Scrapes are not perfectly regular, so a step may contain none: then the second operand applies. The third
    draws an exporter that is down as unknown instead of a gap.
    """
    series = f"connection_status{{{SELECT}}}"
    worst = f"max by (name) (max_over_time({series}[$__interval])) or {status_now()}"
    return f"{worst} or {if_none(series, 'no service', 0)}"


def if_none(series: str, text: str, value: int) -> str:
    """Return a line named `text` if the whole range has no sample of `series`.

    A state timeline without data says "Data does not have a time field".
    """
    named = f'label_replace(vector({value}), "name", "{text}", "", "")'
    return f"({named} unless on () count(last_over_time({series}[$__range] @ end())))"


# An exporter that Prometheus cannot scrape now, but could within the past day.
_LOST = f"0 * (up == 0 and on ({EXPORTER}) last_over_time(connection_monitor_active[1d]))"


def overall() -> str:
    """Return the overall status of all exporters: partial, then unknown, as one exporter ranks them."""
    return (
        "max(connection_overall_status) == 3"
        f" or min(connection_overall_status or {_LOST}) == 0"
        " or max(connection_overall_status) or vector(0)"
    )


def watching() -> str:
    """Return 1 if every exporter is up and its monitor is active, otherwise 0."""
    return f"min(connection_monitor_active or {_LOST}) or vector(0)"


def each(metric: str, *, extra: str = "", by: str = "name") -> str:
    """Return the value of a gauge for each service."""
    return f"max by ({by}) ({metric}{{{SELECT}{extra}}})"


def next_attempt(by: str = "name") -> str:
    """Return the whole seconds until the next attempt of each service, 0 if it is due or running.

    A planned time passes between two scrapes. A negative number would look like a fault.
    """
    return f"clamp_min(round({each('connection_next_attempt_timestamp_seconds', by=by)} - time()), 0)"


def kept(metric: str, by: str = "name") -> str:
    """Return the value of a gauge for each service: the last value if its exporter is down."""
    series = f"{metric}{{{SELECT}}}"
    return _or_last(series, series, by)


def last(metric: str) -> str:
    """Return the last value in the range of a gauge that is absent while there is no session."""
    return f"max by (name) (last_over_time({metric}{{{SELECT}}}[$__range]))"


def info(by: str = "name, kind, address, critical") -> str:
    """Return one sample for each service with labels that do not change."""
    series = f"connection_info{{{SELECT}}}"
    return _or_last(series, series, by)


def key(expr: str) -> str:
    """Add the label `id`, which identifies a row of a table: exporter and service."""
    return f'label_join({expr}, "id", " ", "job", "instance", "name")'


def rows(**texts: str) -> str:
    """Return one sample for each row, with the address of its exporter in a browser; `texts` are more labels.

    The address is the label `browser_url` of the scrape target; without one, it is derived from `instance`.
    """
    service = info(f"{ROW}, kind, group, address, critical")
    joined = f"({service}) * on ({EXPORTER}) group_left (browser_url) (0 * up + 1) or on ({ROW}) ({service})"
    either = f'label_join({joined}, "address_of", " ", "browser_url", "instance")'
    address = f'label_replace({either}, "browser_url", "http://$1", "address_of", " (.+)")'
    row = key(f"max by ({ROW}, kind, group, address, critical, browser_url) ({address})")
    for label, text in texts.items():
        row = f'label_replace({row}, "{label}", "{text}", "", "")'
    return row


def runbook() -> str:
    """Return the name of the runbook for the status of each row as the label `runbook`."""
    status = f"({status_now(ROW)})"
    names = {
        f"{status} == 1": "README",
        f"{status} == 3": "ConnectionUnhealthy",
        f"{status} == 0": "ConnectionStale",
        f"{status} > 1 != 3": "ConnectionDisconnected",
    }
    named = [f'label_replace({expr}, "runbook", "{name}", "", "")' for expr, name in names.items()]
    return f"max by (id, runbook) ({key(' or '.join(named))})"


def reason() -> str:
    """Return why each row is not healthy as the label `reason`: the most frequent one of the newest failures.

    Attempts are at most 36 s apart by default, so a minute holds the newest. 5 minutes cover longer delays.
    """
    newest, older = (f"topk by ({ROW}) (1, {failures_in(w, f'{ROW}, reason')} > 0)" for w in ("1m", "5m"))
    status = f"({status_now(ROW)})"
    found = f"({newest} or on ({ROW}) {older}) and on ({ROW}) {status} != 1"
    return _with_dash(found, status, "reason")


def because_of() -> str:
    """Return a failed dependency of each row as the label `cause`."""
    cause = f"topk by ({ROW}) (1, max by ({ROW}, cause) (connection_caused_by{{{SELECT}}}))"
    return _with_dash(cause, f"({status_now(ROW)})", "cause")


def _with_dash(found: str, every: str, label: str) -> str:
    none = f'label_replace({every}, "{label}", "-", "", "")'
    return f"max by (id, {label}) ({key(f'{found} or on ({ROW}) {none}')})"


def increase(metric: str, window: str, *, extra: str = "", by: str = "name") -> str:
    """Return the growth of a counter in a window."""
    return f"sum by ({by}) (increase({metric}{{{SELECT}{extra}}}[{window}]))"


def rate(metric: str, *, extra: str = "", by: str = "name") -> str:
    """Return the growth of a counter per second."""
    return f"sum by ({by}) (rate({metric}{{{SELECT}{extra}}}[$__rate_interval]))"


def failures_in(window: str, by: str = "name, reason") -> str:
    """Return the failed checks by reason in a window, including the first one of each reason.

    The series of a reason begins at its first failure, and increase() of a new series misses that failure.
    So a series that is younger than the window counts in full.
    """
    metric = f"connection_check_failures_by_reason_total{{{SELECT}}}"
    grown = f"({metric} unless {metric} offset {window}) or increase({metric}[{window}])"
    return f"sum by ({by}) ({grown})"


def while_up(expr: str) -> str:
    """Return the samples of services that have a session; a rate outlives its session by its window."""
    return f"{expr} and on (name) max by (name) (connection_session_up{{{SELECT}}}) == 1"


def bad_seconds(window: str) -> str:
    """Return the seconds in which each service was known not to be healthy."""
    return increase("connection_state_seconds_total", window, extra=f",{_BAD}")


def known_seconds(window: str) -> str:
    """Return the seconds in which each service's status was known."""
    return increase("connection_state_seconds_total", window, extra=f",{_KNOWN}")


def healthy_seconds(window: str) -> str:
    """Return the seconds in which each service was healthy."""
    return increase("connection_state_seconds_total", window, extra=',state="healthy"')


def availability(window: str) -> str:
    """Return the share of the known time in which each service was healthy."""
    return f"{healthy_seconds(window)} / ({known_seconds(window)} > 0)"


def outages(window: str) -> str:
    """Return the number of outages, rounded because Prometheus extrapolates."""
    return f"round({increase('connection_outages_total', window)})"


def mttr(window: str) -> str:
    """Return the mean time to recovery: time not healthy per outage, or all of it if there was none."""
    return f"{bad_seconds(window)} / clamp_min({outages(window)}, 1)"


def mtbf(window: str) -> str:
    """Return the mean time between failures: a lower bound if there was no outage."""
    return f"{healthy_seconds(window)} / clamp_min({outages(window)}, 1)"


def burn_rate(window: str) -> str:
    """Return how many times faster than allowed the error budget is being spent."""
    return f"{bad_seconds(window)} / ({known_seconds(window)} > 0) / (1 - $slo / 100)"


def budget_left(window: str) -> str:
    """Return the share of the error budget that is left: 1 is untouched, below 0 is overspent."""
    return f"1 - {burn_rate(window)}"


def firing(alerts: str = ALERTS, select: str = "") -> str:
    """Return one sample for each alert of these names that fires by a rule, without Watchdog (severity none)."""
    more = f",{select}" if select else ""
    return f'ALERTS{{alertstate="firing",severity!="none",alertname=~"{alerts}"{more}}}'


def announced(select: str = "", window: str = "") -> str:
    """Return one sample for each open alert that an exporter sent to Alertmanager itself.

    Prometheus has no `ALERTS` for these. With `window`, those that were open at any time within it.
    """
    series = f"connection_alert_announced{{{select}}}"
    series = f"max_over_time({series}[{window}])" if window else series
    return f'label_replace({series}, "alertname", "ConnectionDown", "", "")'


def firing_since(alerts: str = ALERTS, select: str = "", *, pushed: bool = True) -> str:
    """Return when each firing alert became active, in ms; one row that says so if none is firing.

    With `pushed`, this includes the alerts that an exporter sent itself, since the transition of their service.
    """
    since = f"1000 * ALERTS_FOR_STATE and ignoring (alertstate) {firing(alerts, select)}"
    if pushed:
        since = f"{since} or {_announced_since(select)}"
    linked = f'label_replace({since}, "runbook", "open ↗", "", "")'
    return (
        f"max by (alertname, severity, name, runbook) ({linked})"
        ' or on () label_replace(vector(0), "alertname", "none is firing", "", "")'
    )


def _announced_since(select: str) -> str:
    at = f"1000 * max by ({ROW}) (connection_last_transition_timestamp_seconds)"
    critical = f"max by ({ROW}, critical) (connection_info)"
    alert = (
        f"{announced(select)} * on ({ROW}) group_left (critical) {critical} * on ({ROW}) group_left () ({at})"
    )
    page = f'label_replace({alert}, "severity", "critical", "critical", "true")'
    return f'label_replace({page}, "severity", "warning", "critical", "false")'


def firing_count() -> str:
    """Return how many alerts are firing."""
    return f"count({firing()} or {announced()}) or vector(0)"


def fired() -> str:
    """Return how many alerts of each name fired in each step."""
    ours = f"max_over_time({firing()}[$__interval]) or {announced(window='$__interval')}"
    return (
        f'count by (alertname) ({ours}) or on () label_replace(vector(0), "alertname", "none fired", "", "")'
    )


def tiles() -> str:
    """Return the status code of each service with the labels `group`, `name` and `since` for its tile.

    Grafana cannot show two values in a tile. So count_values() turns the age of the status into a label.
    """
    service = f"max by (group, {ROW}) ({info(f'group, {ROW}')})"
    status = f"({service}) * on ({ROW}) group_left () ({status_now(ROW)})"
    age = f"(time() - {each('connection_last_transition_timestamp_seconds', by=ROW)})"
    units = (("s", 1, 0, 60), ("min", 60, 60, 3600), ("h", 3600, 3600, 172800), ("d", 86400, 172800, 0))
    parts = []
    for unit, size, low, high in units:
        within = f"{age} >= {low} < {high}" if high else f"{age} >= {low}"
        count = f'count_values by ({ROW}) ("count", floor(({within}) / {size}))'
        parts.append(f'label_replace({count}, "since", "· $1 {unit}", "count", "(.+)")')
    since = f"max by ({ROW}, since) ({' or '.join(parts)})"
    whole = f"({status}) * on ({ROW}) group_left (since) {since} or on ({ROW}) ({status})"
    return f'max by (group, name, since) (label_replace({whole}, "group", "$1 /", "group", "(.+)"))'
