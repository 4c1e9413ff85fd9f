"""The service levels of the History dashboard, as a table: availability, MTTR, MTBF, budget."""

from . import links
from .palette import DISCONNECTED, HEALTHY, UNHEALTHY, Json, steps
from .queries import (
    SELECT,
    availability,
    bad_seconds,
    budget_left,
    each,
    increase,
    info,
    known_seconds,
    mtbf,
    mttr,
    outages,
)
from .tables import Column, Label, joined

RANGE = "$__range"
BUDGET = steps((None, DISCONNECTED), (0, UNHEALTHY), (0.25, HEALTHY))


def table() -> Json:
    """Return the table of service levels over the range shown."""
    cross_check = f"max by (name) (avg_over_time(connection_up{{{SELECT}}}[$__range]))"
    allowed = f"(1 - $slo / 100) * {known_seconds(RANGE)} - {bad_seconds(RANGE)}"
    columns: list[Label | Column] = [
        Label("Service", "name", 150, links.to_service("__data.fields.name")),
        Label("Kind", "kind", 100),
        Label("Critical", "critical", 80),
        Column(
            "Availability",
            availability(RANGE),
            unit="percentunit",
            decimals=3,
            thresholds=steps((None, UNHEALTHY), (0.999, HEALTHY)),
        ),
        Column(
            "Error budget left",
            budget_left(RANGE),
            unit="percentunit",
            decimals=1,
            width=140,
            thresholds=BUDGET,
        ),
        _span("May still fail for", allowed),
        _span("Not healthy", bad_seconds(RANGE)),
        _count("Outages", outages(RANGE)),
        _span("MTTR", mttr(RANGE)),
        _span("MTBF", mtbf(RANGE)),
        _count("Transitions", f"round({increase('connection_transitions_total', RANGE)})"),
        _count("Restarts", f"round({increase('connection_process_restarts_total', RANGE)})"),
        Column(
            "Certificate ends",
            f"{each('connection_tls_certificate_expiry_timestamp_seconds')} * 1000",
            unit="dateTimeFromNow",
            width=140,
        ),
        Column("Mean of up", cross_check, unit="percentunit", decimals=3),
    ]
    return joined(
        "Service levels",
        "Over the range shown. MTTR is the time not healthy over the number of outages, MTBF the healthy"
        " time over it; with no outage each is that time itself, for MTBF a lower bound. May still fail"
        " for: what is left of the error budget, as time; below zero it is overspent. Mean of up is a"
        " cross-check of the availability from another metric, as seen at scrapes.",
        info(),
        columns,
        sort_by="Availability",
        descending=False,
        dropped=("address",),
    )


def _span(title: str, expr: str) -> Column:
    return Column(title, expr, unit="s", decimals=1, width=130)


def _count(title: str, expr: str) -> Column:
    return Column(title, expr, unit="short", decimals=0, width=100)
