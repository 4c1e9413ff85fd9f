"""Own the uids of the dashboards, the links between them, and the Force check action."""

from .palette import Json

OVERVIEW = "connection-overview"
SERVICE = "connection-service"
HISTORY = "connection-history"
MONITOR = "connection-monitor"
TAG = "connection-exporter"

_KEEP = "${datasource:queryparam}&${checkurl:queryparam}&${__url_time_range}"
_STATUS_PAGE = "${checkurl:raw}/"


def to_service(name: str) -> list[Json]:
    """Return the link of a service's row, tile or line to its detail; `name` is a Grafana macro."""
    return [
        {
            "title": f"Details of ${{{name}}}",
            "url": f"/d/{SERVICE}?var-name=${{{name}}}&{_KEEP}",
            "targetBlank": False,
        }
    ]


def to_monitor() -> list[Json]:
    """Return the link to the dashboard that says whether the others can be trusted."""
    return [
        {
            "title": "Is the monitoring itself well?",
            "url": f"/d/{MONITOR}?{_KEEP}",
            "targetBlank": False,
        }
    ]


def to_history() -> list[Json]:
    """Return the link to the 30 days, which keep their own time range."""
    return [
        {
            "title": "The last 30 days",
            "url": f"/d/{HISTORY}?${{datasource:queryparam}}",
            "targetBlank": False,
        }
    ]


def to_status_page() -> list[Json]:
    """Return the link to the exporter's own page, where those who only view may force a check."""
    return [{"title": "Status page of the exporter", "url": _STATUS_PAGE, "targetBlank": True}]


def force_check() -> list[Json]:
    """Return the action that asks the exporter for a check now; the browser sends it."""
    name = "${__data.fields.name}"
    return [
        {
            "type": "fetch",
            "title": "Force check",
            "oneClick": False,
            "confirmation": f"Check {name} now?",
            "fetch": {
                "method": "POST",
                "url": f"${{checkurl}}/health/force-check?service={name}",
                "body": "{}",
                "queryParams": [],
                "headers": [["Content-Type", "application/json"]],
            },
        }
    ]


def menu() -> list[Json]:
    """Return the links above every dashboard: the set, by tag, and the exporter's status page."""
    return [
        {
            "type": "dashboards",
            "title": "Connections",
            "tags": [TAG],
            "asDropdown": False,
            "includeVars": True,
            "keepTime": True,
            "targetBlank": False,
            "icon": "external link",
            "tooltip": "",
            "url": "",
        },
        {
            "type": "link",
            "title": "Status page",
            "tags": [],
            "asDropdown": False,
            "includeVars": False,
            "keepTime": False,
            "targetBlank": True,
            "icon": "external link",
            "tooltip": "The exporter's own live page, where everyone may ask for a check",
            "url": _STATUS_PAGE,
        },
    ]
