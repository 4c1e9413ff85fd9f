"""Build History and SLO, which asks whether each service meets its objective over 30 days."""

from . import levels, links
from .dashboard import (
    Line,
    Section,
    choice_variable,
    dashboard,
    datasource_variable,
    service_variables,
)
from .palette import DISCONNECTED, HEALTHY, STATUSES, UNHEALTHY, Json, mappings, steps
from .panels import daily, stat, target, timeseries
from .queries import (
    SELECT,
    availability,
    bad_seconds,
    budget_left,
    burn_rate,
    fired,
    if_none,
    increase,
)
from .states import status_overrides, status_timeline, time_in_each_state

_RANGE = "$__range"


def build() -> Json:
    """Return the History and SLO dashboard."""
    header = Line(4, [(6, _worst()), (6, _below()), (6, _budget()), (6, _failing())])
    timeline = status_timeline(
        title="Status over time",
        description="The worst status within each step: an outage of seconds fills a whole step. The table above"
        " has the exact durations.",
    )
    states = time_in_each_state(
        title="Time in each status",
        description="The share of the range that each service spent in each status.",
    )
    return dashboard(
        links.HISTORY,
        "Connections / History and SLO",
        "Over 30 days, does each service meet its objective?",
        [
            Section(
                [
                    header,
                    Line(8, [(24, levels.table())]),
                    Line(8, [(24, _daily_availability())]),
                ]
            ),
            Section(
                [
                    Line(8, [(24, _daily_status())]),
                    Line(8, [(14, timeline), (10, states)]),
                ],
                title="When it was not healthy",
            ),
            Section(
                [
                    Line(8, [(12, _burn()), (12, _transitions())]),
                    Line(7, [(12, _alerts()), (12, _restarts())]),
                ],
                title="How fast the error budget is spent, and what happened meanwhile",
            ),
        ],
        variables=[
            datasource_variable(),
            *service_variables(),
            choice_variable("slo", "Target %", ["99", "99.5", "99.9", "99.95", "99.99"], "99.9"),
        ],
        time_from="now-30d",
        refresh="5m",
    )


def _worst() -> Json:
    return stat(
        "Availability",
        "Healthy time divided by known time in the range, for the service with the lowest value.",
        [target(f"min({availability(_RANGE)}) or vector(1)", instant=True)],
        unit="percentunit",
        thresholds=steps((None, UNHEALTHY), (0.999, HEALTHY)),
        extra={"decimals": 3, "max": 1},
    )


def _below() -> Json:
    below = f"count(({availability(_RANGE)}) < $slo / 100) or vector(0)"
    return stat(
        "Below target",
        "How many services have an availability below the target.",
        [target(below, instant=True)],
        unit="short",
        thresholds=steps((None, HEALTHY), (1, DISCONNECTED)),
    )


def _budget() -> Json:
    return stat(
        "Error budget left",
        "The target allows a service to be not healthy for some time. This is the share of that time that is left, for"
        " the service with the lowest value. Below zero, it is overspent.",
        [target(f"min({budget_left(_RANGE)}) or vector(1)", instant=True)],
        unit="percentunit",
        thresholds=levels.BUDGET,
        extra={"decimals": 1},
    )


def _failing() -> Json:
    return stat(
        "Time not healthy",
        "Time not healthy in the range, added up over all selected services.",
        [target(f"sum({bad_seconds(_RANGE)}) or vector(0)", instant=True)],
        unit="s",
        thresholds=steps((None, HEALTHY), (1, UNHEALTHY)),
        extra={"decimals": 1},
    )


def _daily_availability() -> Json:
    healthy = _day('state="healthy"')
    known = _day('state!="unknown"')
    return daily(
        "Availability of each day",
        "Healthy time divided by known time, one cell for each day. The last cell is incomplete.",
        [target(f"{healthy} / ({known} > 0)", "{{name}}")],
        unit="percentunit",
        thresholds=steps((None, DISCONNECTED), (0.99, UNHEALTHY), (0.999, HEALTHY)),
        extra={"decimals": 2, "max": 1},
    )


def _daily_status() -> Json:
    series = f"connection_status{{{SELECT}}}"
    worst = f"max by (name) (max_over_time({series}[1d] offset -1d))"
    return daily(
        "Worst status of each day",
        "The worst status of each service on each day, however short.",
        [target(f"{worst} or {if_none(series, 'no service', 0)}", "{{name}}")],
        mappings=mappings(STATUSES),
    )


def _burn() -> Json:
    return timeseries(
        "Burn rate of the error budget",
        "How many times faster than allowed the budget is spent, over 6 hours. At 1 it lasts exactly 30 days, at 6"
        " it lasts 5 days, at 14.4 2 days.",
        [target(burn_rate("6h"), "{{name}}")],
        unit="short",
        interval="30m",
        thresholds=steps((None, HEALTHY), (1, UNHEALTHY), (6, DISCONNECTED)),
    )


def _transitions() -> Json:
    return timeseries(
        "Transitions",
        "Changes of status in each step, by the new status.",
        [target(increase("connection_transitions_total", "$__rate_interval", by="to"), "{{to}}")],
        unit="short",
        bars=True,
        stacked=True,
        interval="1h",
        overrides=status_overrides(),
        extra={"decimals": 0},
    )


def _alerts() -> Json:
    return timeseries(
        "Alerts that fired",
        "How many of each alert fired in each step, without Watchdog. ConnectionDown is sent by the exporter itself.",
        [target(fired(), "{{alertname}}")],
        unit="short",
        bars=True,
        stacked=True,
        interval="1h",
        extra={"decimals": 0},
    )


def _restarts() -> Json:
    return timeseries(
        "Outages and restarts",
        "Outages of each service, and restarts of processes, in each step.",
        [
            target(increase("connection_outages_total", "$__rate_interval"), "{{name}} outages"),
            target(
                increase("connection_process_restarts_total", "$__rate_interval"),
                "{{name}} restarts",
                ref="B",
            ),
        ],
        unit="short",
        bars=True,
        interval="1h",
        extra={"decimals": 0},
    )


def _day(state: str) -> str:
    # Grafana draws a cell from its timestamp on, so the window must lie after the timestamp.
    series = f"connection_state_seconds_total{{{SELECT},{state}}}"
    return f"sum by (name) (increase({series}[1d] offset -1d))"
