"""The table of service levels on the History dashboard: availability, MTTR, MTBF and error budget."""

from . import links
from .palette import DISCONNECTED, HEALTHY, UNHEALTHY, Json, steps
from .queries import availability, bad_seconds, budget_left, each, info, known_seconds, mtbf, mttr, outages
from .tables import Column, Label, joined

RANGE = "$__range"
BUDGET = steps((None, DISCONNECTED), (0, UNHEALTHY), (0.25, HEALTHY))


def table() -> Json:
    """Return the table of service levels over the range."""
    allowed = f"(1 - $slo / 100) * {known_seconds(RANGE)} - {bad_seconds(RANGE)}"
    expiry = "connection_tls_certificate_expiry_timestamp_seconds"
    columns: list[Label | Column] = [
        Label("Service", "name", 120, fills=True, links=links.to_service("__data.fields.name")),
        Column(
            "Availability",
            availability(RANGE),
            115,
            unit="percentunit",
            decimals=3,
            thresholds=steps((None, UNHEALTHY), (0.999, HEALTHY)),
        ),
        Column("Budget left", budget_left(RANGE), 105, unit="percentunit", decimals=1, thresholds=BUDGET),
        _span("Time left", allowed),
        _span("Not healthy", bad_seconds(RANGE), 105),
        Column("Outages", outages(RANGE), 80, unit="short", decimals=0),
        _span("MTTR", mttr(RANGE)),
        _span("MTBF", mtbf(RANGE)),
        _span("Certificate", f"{each(expiry)} - time()", 105),
    ]
    return joined(
        "Service levels",
        "Over the range. Budget left: the share of the error budget that is not spent. Time left: the same as a time."
        " Below zero, the budget is overspent. MTTR: time not healthy per outage. MTBF: healthy time per"
        " outage, a lower bound if there was none. Certificate: time until it expires.",
        info("name"),
        columns,
        sort_by="Availability",
        descending=False,
        by="name",
    )


def _span(title: str, expr: str, width: int = 95) -> Column:
    return Column(title, expr, width, unit="s", decimals=1)
