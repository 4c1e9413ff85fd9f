"""History and SLO, the dashboard that asks whether each service keeps what was promised."""

from . import levels, links
from .dashboard import (
    Line,
    Section,
    check_url_variable,
    choice_variable,
    dashboard,
    datasource_variable,
    service_variables,
)
from .palette import DISCONNECTED, HEALTHY, STATUSES, UNHEALTHY, Json, mappings, steps
from .panels import daily, stat, target, timeseries
from .queries import (
    FIRING,
    SELECT,
    availability,
    bad_seconds,
    budget_left,
    burn_rate,
    increase,
    outages,
)
from .states import status_overrides, status_timeline, time_in_each_state

_RANGE = "$__range"


def build(exporter_url: str) -> Json:
    """Return the History and SLO dashboard."""
    header = Line(4, [(5, _worst()), (5, _below()), (5, _budget()), (5, _outages()), (4, _failing())])
    timeline = status_timeline(
        title="Status over time",
        description="The worst status within each step: an outage of seconds shows as a whole step."
        " How long it was, the table above knows exactly.",
    )
    states = time_in_each_state(
        title="Time in each state",
        description="The share of the range that each service spent in each status.",
    )
    return dashboard(
        links.HISTORY,
        "Connections / History and SLO",
        "Over 30 days, does each service keep what was promised?",
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
                title="How fast the error budget goes, and what went with it",
            ),
        ],
        variables=[
            datasource_variable(),
            *service_variables(),
            choice_variable("slo", "Target %", ["99", "99.5", "99.9", "99.95", "99.99"], "99.9"),
            check_url_variable(exporter_url, hidden=True),
        ],
        time_from="now-30d",
        refresh="5m",
    )


def _worst() -> Json:
    return stat(
        "Availability, worst service",
        "Healthy time over known time in the range shown, of the service where it is lowest.",
        [target(f"min({availability(_RANGE)}) or vector(1)", instant=True)],
        unit="percentunit",
        thresholds=steps((None, UNHEALTHY), (0.999, HEALTHY)),
        extra={"decimals": 3, "max": 1},
    )


def _below() -> Json:
    below = f"count(({availability(_RANGE)}) < $slo / 100) or vector(0)"
    return stat(
        "Services below target",
        "How many services were available for less than the target.",
        [target(below, instant=True)],
        unit="short",
        thresholds=steps((None, HEALTHY), (1, DISCONNECTED)),
    )


def _budget() -> Json:
    return stat(
        "Error budget left, worst service",
        "The share of the time that the target lets a service not be healthy which is still"
        " unspent; below zero it is overspent.",
        [target(f"min({budget_left(_RANGE)}) or vector(1)", instant=True)],
        unit="percentunit",
        thresholds=levels.BUDGET,
        extra={"decimals": 1},
    )


def _outages() -> Json:
    return stat(
        "Outages",
        "Outages of all chosen services in the range shown.",
        [target(f"sum({outages(_RANGE)}) or vector(0)", instant=True)],
        unit="short",
        thresholds=steps((None, HEALTHY), (1, UNHEALTHY)),
        extra={"decimals": 0},
    )


def _failing() -> Json:
    return stat(
        "Time not healthy",
        "Time not healthy of all chosen services together, in the range shown.",
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
        "Healthy time over known time, a cell for each day; today's is still growing.",
        [target(f"{healthy} / ({known} > 0)", "{{name}}")],
        unit="percentunit",
        thresholds=steps((None, DISCONNECTED), (0.99, UNHEALTHY), (0.999, HEALTHY)),
        extra={"decimals": 2, "max": 1},
    )


def _daily_status() -> Json:
    worst = f"max by (name) (max_over_time(connection_status{{{SELECT}}}[1d] offset -1d))"
    return daily(
        "Worst status of each day",
        "The worst that was seen of each service on each day, however short it was.",
        [target(worst, "{{name}}")],
        mappings=mappings(STATUSES),
    )


def _burn() -> Json:
    return timeseries(
        "Burn rate of the error budget",
        "How many times faster than allowed the budget goes, over 6 hours. At 1 it lasts exactly"
        " the period; at 6 it is gone in 5 of 30 days, at 14.4 in 2.",
        [target(burn_rate("6h"), "{{name}}")],
        unit="short",
        interval="30m",
        thresholds=steps((None, HEALTHY), (1, UNHEALTHY), (6, DISCONNECTED)),
    )


def _transitions() -> Json:
    return timeseries(
        "Transitions",
        "Changes of status in each step, by the status that was entered.",
        [target(increase("connection_transitions_total", "$__rate_interval", by="to"), "{{to}}")],
        unit="short",
        bars=True,
        stacked=True,
        interval="1h",
        overrides=status_overrides(),
        extra={"decimals": 0},
    )


def _alerts() -> Json:
    firing = FIRING % ""
    fired = (
        f"count by (alertname) (max_over_time({firing}[$__interval]))"
        ' or on () label_replace(vector(0), "alertname", "none", "", "")'
    )
    return timeseries(
        "Alerts that fired",
        "How many of each alert fired in each step, Watchdog aside.",
        [target(fired, "{{alertname}}")],
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
    # A cell is drawn from its timestamp on, so the window has to lie after it, not before.
    series = f"connection_state_seconds_total{{{SELECT},{state}}}"
    return f"sum by (name) (increase({series}[1d] offset -1d))"
