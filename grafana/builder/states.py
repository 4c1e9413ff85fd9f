"""Make the panels about status that several dashboards show, so that they look the same everywhere."""

from collections.abc import Sequence

from . import links
from .palette import CANARY, STATUSES, Json, mappings, texts
from .panels import colour_of, panel, target, timeline
from .queries import (
    ROW,
    SELECT,
    because_of,
    each,
    if_none,
    increase,
    kept,
    key,
    next_attempt,
    reason,
    rows,
    runbook,
    status_now,
    status_over_time,
)
from .tables import Column, Label, joined, listed

AGO = "dateTimeFromNow"
AGO_WIDTH = 145  # fits "a few seconds ago"

_NAME = "__data.fields.name"
_BROWSER_URL = "__data.fields.browser_url"
_UNUSED = ("id", "job", "instance")
# The texts of the cells with an action or a link.
_TEXTS = {"action": "Force check", "page": "open ↗", "open": "open ↗"}


def service_table() -> Json:
    """Return the table of the Overview: what is broken, since when, why, and what to do."""
    status = Column(
        "Status",
        f"max by (id) ({key(status_now(ROW))})",
        125,
        mappings=mappings(STATUSES),
        no_value="unknown",
    )
    columns = [Label("Service", "name", 125, fills=True, links=links.to_service(_NAME)), status, *_why()]
    return joined(
        "Services",
        "One row for each service, the worst first. The name opens its dashboard. Reason: the most frequent reason"
        " of its newest failed checks. Because of: a dependency that explains the fault. Force check is visible to"
        " editors and administrators; everyone else can use the status page.",
        rows(**_TEXTS),
        columns,
        sort_by="Status",
        dropped=(*_UNUSED, "kind", "group", "address", "critical"),
    )


def story_table() -> Json:
    """Return the row of one service: since when, why, and what to do."""
    return joined(
        "Why, and what to do",
        "Reason: the most frequent reason of the newest failed checks. Because of: a dependency that explains the"
        " fault. Force check is visible to editors and administrators; everyone else can use the status page.",
        rows(**_TEXTS),
        [*_why(), Label("name", "name", 0, hidden=True)],
        sort_by="Since",
        dropped=(*_UNUSED, "kind", "group", "address", "critical"),
    )


def facts_table() -> Json:
    """Return the row of one service: what it is, and its last and next check."""
    columns: list[Label | Column] = [
        Label("Kind", "kind", 95),
        Label("Address", "address", 160, fills=True),
        Label("Critical", "critical", 80),
        Column("Retries", _each("connection_retries"), 75),
        Column(
            "Next attempt",
            f"max by (id) ({key(next_attempt(ROW))})",
            115,
            unit="s",
            mappings=texts({"0": "now"}),
        ),
        Column("Last check", _kept_ms("connection_last_check_timestamp_seconds"), AGO_WIDTH, AGO),
        Column(
            "Last success",
            _kept_ms("connection_last_success_timestamp_seconds"),
            AGO_WIDTH,
            AGO,
            no_value="never",
        ),
    ]
    return joined(
        "Facts",
        "What the service is, how many attempts in a row have failed, and when its last and next checks are.",
        rows(),
        columns,
        sort_by="Address",
        dropped=(*_UNUSED, "name", "group", "browser_url"),
    )


def status_timeline(*, title: str, description: str) -> Json:
    """Return a band for each service, coloured by status, in which even a short outage is visible."""
    return timeline(
        title,
        description,
        [target(status_over_time(), "{{name}}")],
        mappings=mappings(STATUSES),
        links=links.to_service("__field.labels.name"),
    )


def signals() -> Json:
    """Return the bands of the two independent signals: the held session and the canary."""
    session, canary = (f"connection_{one}_up{{{SELECT}}}" for one in ("session", "canary"))

    def lowest(series: str) -> str:
        return f"min by (name) (min_over_time({series}[$__interval])) or min by (name) ({series})"

    return timeline(
        "Session and canary",
        "The held session, and the canary: a probe over a new connection. If the canary is down while the session is"
        " up, new clients cannot connect.",
        [
            target(f"{lowest(session)} or {if_none(session, 'session', 0)}", "session"),
            target(f"{lowest(canary)} or {if_none(canary, 'canary', 2)}", "canary", ref="B"),
        ],
        mappings=mappings(CANARY),
    )


def time_in_each_state(*, title: str, description: str) -> Json:
    """Return a bar for each service, split by the share of time that it spent in each status."""
    words = [word.word for word in STATUSES]
    whole = increase("connection_state_seconds_total", "$__range")
    queries = [
        target(
            increase("connection_state_seconds_total", "$__range", extra=f',state="{word}"')
            + f" / ({whole} > 0)",
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
        "stacking": "normal",
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
        unit="percentunit",
        options=options,
        custom={"fillOpacity": 90, "lineWidth": 0},
        overrides=status_overrides(),
        extra={"decimals": 1, "min": 0, "max": 1},
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


def firing_table(title: str, description: str, expr: str) -> Json:
    """Return the alerts that are firing, the newest first."""
    return listed(
        title,
        description,
        expr,
        [
            Column("Since", "", AGO_WIDTH, AGO, mappings=texts({"0": "-"})),
            Label("Severity", "severity", 90),
            Label("Alert", "alertname", 265),
            Label("Service", "name", 125, fills=True, links=links.to_service(_NAME)),
            Label("Runbook", "runbook", 90, links=links.to_runbook("__data.fields.alertname")),
        ],
        sort_by="Since",
    )


def status_overrides() -> Sequence[Json]:
    """Return the colours of series that are named after statuses."""
    return [colour_of(word.word, word.colour) for word in STATUSES]


def _why() -> list[Label | Column]:
    """Return the columns that answer: since when, why, and what do I do."""
    since = _kept_ms("connection_last_transition_timestamp_seconds")
    return [
        Column("Since", since, AGO_WIDTH, AGO),
        Label("Reason", "reason", 100, reason()),
        Label("Because of", "cause", 105, because_of(), fills=True),
        Label("Action", "action", 115, actions=links.force_check()),
        Label("Status page", "page", 110, links=links.to_status_page(_BROWSER_URL)),
        Label("Runbook", "open", 90, links=links.to_runbook("__data.fields.runbook")),
        Label("browser_url", "browser_url", 0, hidden=True),
        Label("runbook", "runbook", 0, runbook(), hidden=True),
    ]


def _each(metric: str) -> str:
    return f"max by (id) ({key(each(metric, by=ROW))})"


def _kept_ms(metric: str) -> str:
    return f"max by (id) ({key(kept(metric, ROW))}) * 1000"
