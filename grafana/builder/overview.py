"""Build Overview, the home page, which asks whether everything we depend on works right now."""

from . import links
from .dashboard import (
    Line,
    Section,
    Stack,
    dashboard,
    datasource_variable,
    runbooks_variable,
    service_variables,
)
from .palette import HEALTHY, MONITORED, OVERALL, STATUSES, UNHEALTHY, Json, mappings, steps, texts
from .panels import stat, target
from .queries import firing_count, firing_since, overall, tiles, watching
from .states import firing_table, service_table, status_timeline


def build() -> Json:
    """Return the Overview dashboard."""
    timeline = status_timeline(
        title="Status over time",
        description="The worst status within each step, so even a short outage is visible."
        " Unknown also means that the exporter was down.",
    )
    alerts = firing_table(
        "Firing alerts",
        "The alerts that are firing, the newest first, without Watchdog, which always fires. ConnectionDown is sent by"
        " the exporter itself.",
        firing_since(),
    )
    # A phone shows the panels one below the other, by their top and then their left edge: so the tiles come second.
    header = Stack([(4, [(8, _overall())]), (4, [(4, _alerts()), (4, _monitoring())])], beside=(16, _tiles()))
    return dashboard(
        links.OVERVIEW,
        "Connections / Overview",
        "Does everything we depend on work right now, and if not, what does not?",
        [
            Section(
                [header, Line(9, [(24, service_table())]), Line(8, [(24, timeline)]), Line(8, [(24, alerts)])]
            )
        ],
        variables=[datasource_variable(), *service_variables(), runbooks_variable()],
        time_from="now-1h",
        refresh="5s",
    )


def _overall() -> Json:
    return stat(
        "Overall",
        "Partial: a critical service is disconnected. Degraded: any service is not healthy."
        " Unknown: an exporter is down, is not monitoring, or does not know a critical service yet.",
        [target(overall(), instant=True)],
        mappings=mappings(OVERALL),
    )


def _alerts() -> Json:
    return stat(
        "Alerts",
        "How many alerts are firing, without Watchdog. They are listed at the bottom of this page.",
        [target(firing_count(), instant=True)],
        unit="short",
        mappings=texts({"0": "✓ none"}),
        thresholds=steps((None, HEALTHY), (1, UNHEALTHY)),
    )


def _monitoring() -> Json:
    return stat(
        "Monitoring",
        "Whether every exporter is up and its monitor is active. If one is not, this page does not know the"
        " current status of its services.",
        [target(watching(), instant=True)],
        mappings=mappings(MONITORED),
        links=links.to_monitor(),
    )


def _tiles() -> Json:
    organize: Json = {
        "id": "organize",
        "options": {
            "excludeByName": {"Time": True},
            "indexByName": {"group": 0, "name": 1, "since": 2, "Value": 3},
            "renameByName": {},
        },
    }
    return stat(
        "Services by group",
        "One tile for each service: its group if it has one, its name, how long it has had its status, and the"
        " status. Click a tile to open the dashboard of its service.",
        [target(tiles(), table=True)],
        text="value_and_name",
        values="/^Value$/",
        mappings=mappings(STATUSES),
        transformations=[
            {"id": "sortBy", "options": {"sort": [{"field": "name", "desc": False}]}},
            {"id": "sortBy", "options": {"sort": [{"field": "group", "desc": False}]}},
            organize,
        ],
        links=links.to_service("__data.fields.name"),
    )
