"""Define the uids of the dashboards, the links between them, and the Force check action."""

from .palette import Json

OVERVIEW = "connection-overview"
SERVICE = "connection-service"
HISTORY = "connection-history"
MONITOR = "connection-monitor"
TAG = "connection-exporter"

_TITLES = {OVERVIEW: "Overview", SERVICE: "Service", HISTORY: "History and SLO", MONITOR: "Monitor"}
_LAST_30_DAYS = "from=now-30d&to=now"


def to_service(name: str) -> list[Json]:
    """Return the link from a row, tile or line to the service's dashboard; `name` is a Grafana macro."""
    query = f"var-name=${{{name}}}&${{datasource:queryparam}}&${{__url_time_range}}"
    return [_link(f"Details of ${{{name}}}", f"/d/{SERVICE}?{query}")]


def to_monitor() -> list[Json]:
    """Return the link to the dashboard about the monitoring itself."""
    return [_link("Is the monitoring itself healthy?", f"/d/{MONITOR}?${{datasource:queryparam}}")]


def to_status_page(field: str) -> list[Json]:
    """Return the link to the exporter's status page; `field` is a Grafana macro that gives its address.

    Viewers cannot see Force check in Grafana. They can use it on that page.
    """
    return [_link("Status page of the exporter", f"${{{field}}}/", new_tab=True)]


def to_runbook(name: str) -> list[Json]:
    """Return the link to a runbook; `name` is a Grafana macro that gives the name of its file."""
    return [_link(f"Runbook ${{{name}}}", f"${{runbooks:raw}}/${{{name}}}.md", new_tab=True)]


def force_check() -> list[Json]:
    """Return the action that asks the row's exporter for a check; the browser sends the request."""
    name = "${__data.fields.name}"
    return [
        {
            "type": "fetch",
            "title": "Force check",
            "oneClick": False,
            "confirmation": f"Check {name} now?",
            "fetch": {
                "method": "POST",
                "url": f"${{__data.fields.browser_url}}/health/force-check?service={name}",
                "body": "{}",
                "queryParams": [],
                "headers": [["Content-Type", "application/json"]],
            },
        }
    ]


def menu(uid: str) -> list[Json]:
    """Return the links above a dashboard to the other three.

    History always opens at 30 days. Its range is too long for the others, so links from it drop the range.
    """
    return [_menu_item(uid, other, title) for other, title in _TITLES.items() if other != uid]


def _menu_item(uid: str, other: str, title: str) -> Json:
    return {
        "type": "link",
        "title": title,
        "tags": [],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": HISTORY not in (uid, other),
        "targetBlank": False,
        "icon": "dashboard",
        "tooltip": "",
        "url": f"/d/{other}?{_LAST_30_DAYS}" if other == HISTORY else f"/d/{other}",
    }


def _link(title: str, url: str, *, new_tab: bool = False) -> Json:
    return {"title": title, "url": url, "targetBlank": new_tab}
