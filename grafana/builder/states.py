"""Make the panels of status that several dashboards show, so that they look the same everywhere."""

from collections.abc import Sequence

from . import links
from .palette import (
    MONITORED,
    STATUSES,
    UP_DOWN,
    Json,
    mappings,
    not_measured,
    texts,
)
from .panels import colour_of, panel, target, timeline
from .queries import (
    SELECT,
    each,
    firing_since,
    increase,
    info,
    kept,
    mean_latency,
    monitored,
    next_attempt,
    status_now,
    status_over_time,
)
from .tables import Column, Label, joined, listed


def service_table(*, title: str, description: str, with_address: bool) -> Json:
    """Return the live table: one row a service, the highest code first, with Force check in each."""
    details = links.to_service("__data.fields.name")
    ago = "dateTimeFromNow"
    since = each("connection_last_transition_timestamp_seconds")
    columns: list[Label | Column] = [
        Label("Service", "name", 150, details),
        Label("Kind", "kind", 100),
        Column("Status", status_now(), width=140, mappings=mappings(STATUSES), links=details),
        Column("For", f"time() - {since}", unit="s", width=90, decimals=1),
        Column("Retries", each("connection_retries"), width=70),
        Column("Next attempt in", next_attempt(), unit="s", width=110, mappings=texts({"0": "now"})),
        Column("Last check", _kept_ms("connection_last_check_timestamp_seconds"), ago, 130),
        Column(
            "Last success",
            _kept_ms("connection_last_success_timestamp_seconds"),
            ago,
            130,
            no_value="never",
        ),
        Column("Latency", mean_latency("5m"), unit="s", width=90, mappings=not_measured()),
        Column("Session", each("connection_session_up"), width=90, mappings=mappings(UP_DOWN)),
        Column("Canary", each("connection_canary_up"), width=90, mappings=mappings(UP_DOWN)),
        Column(
            "Certificate ends",
            _ms("connection_tls_certificate_expiry_timestamp_seconds"),
            ago,
            130,
        ),
        Column("Monitoring", monitored(), width=130, mappings=mappings(MONITORED)),
        Label("Critical", "critical", 80),
        Column(
            "Action",
            f"0 * {each('connection_status')}",
            width=120,
            mappings=texts({"0": "Force check"}),
            actions=links.force_check(),
        ),
        Column(
            "Status page",
            f"0 * {each('connection_status')}",
            width=110,
            mappings=texts({"0": "open ↗"}),
            links=links.to_status_page(),
        ),
    ]
    if with_address:
        columns.insert(2, Label("Address", "address", 190))
    return joined(
        title,
        description,
        info(),
        columns,
        sort_by="Status",
        dropped=() if with_address else ("address",),
    )


def status_timeline(*, title: str, description: str) -> Json:
    """Return the band of statuses of each service, in which no outage is too short to show."""
    return timeline(
        title,
        description,
        [target(status_over_time(), "{{name}}")],
        mappings=mappings(STATUSES),
        links=links.to_service("__field.labels.name"),
    )


def time_in_each_state(*, title: str, description: str) -> Json:
    """Return a bar for each service, split by the time it spent in each status."""
    words = [word.word for word in STATUSES]
    queries = [
        target(
            increase("connection_state_seconds_total", "$__range", extra=f',state="{word}"'),
            ref=word,
            table=True,
        )
        for word in words
    ]
    hidden = ["Time", *(f"Time {n + 1}" for n in range(len(words)))]
    fields = {"name": "Service"} | {f"Value #{word}": word for word in words}
    options: Json = {
        "barRadius": 0,
        "barWidth": 0.8,
        "fullHighlight": False,
        "groupWidth": 0.7,
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "orientation": "horizontal",
        "showValue": "never",
        "stacking": "percent",
        "tooltip": {"mode": "multi", "sort": "none"},
        "xField": "Service",
        "xTickLabelRotation": 0,
        "xTickLabelSpacing": 0,
    }
    return panel(
        "barchart",
        title,
        description,
        queries,
        unit="s",
        options=options,
        custom={"fillOpacity": 90, "lineWidth": 0},
        overrides=status_overrides(),
        extra={"decimals": 1},
        transformations=[
            {"id": "joinByField", "options": {"byField": "name", "mode": "outer"}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": dict.fromkeys(hidden, True),
                    "indexByName": {name: index for index, name in enumerate(fields)},
                    "renameByName": fields,
                },
            },
        ],
    )


def firing_table(*, title: str, description: str, extra: str = "") -> Json:
    """Return the alerts that fire now, the newest first."""
    return listed(
        title,
        description,
        firing_since(extra),
        [
            Label("Alert", "alertname", 230),
            Label("Service", "name", 130, links.to_service("__data.fields.name")),
            Label("Severity", "severity", 90),
        ],
        Column("Since", "", unit="dateTimeFromNow", width=130, mappings=texts({"0": "all quiet"})),
        sort_by="Since",
    )


def status_overrides() -> Sequence[Json]:
    """Return the colours of series that are named after statuses."""
    return [colour_of(word.word, word.colour) for word in STATUSES]


def witnesses(*, title: str, description: str) -> Json:
    """Return the bands of the two witnesses: the held session and the canary."""
    return timeline(
        title,
        description,
        [
            target(
                f"min by (name) (min_over_time(connection_session_up{{{SELECT}}}[$__interval]))"
                f" or {each('connection_session_up')}",
                "{{name}} session",
            ),
            target(
                f"min by (name) (min_over_time(connection_canary_up{{{SELECT}}}[$__interval]))"
                f" or {each('connection_canary_up')}",
                "{{name}} canary",
                ref="B",
            ),
        ],
        mappings=mappings(UP_DOWN),
    )


def _ms(metric: str) -> str:
    return f"{each(metric)} * 1000"


def _kept_ms(metric: str) -> str:
    return f"({kept(metric)}) * 1000"
