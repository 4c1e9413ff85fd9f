"""Put panels into a dashboard: layout, ids, variables, annotations; not what any of them shows."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from .links import TAG, menu
from .palette import CONNECTING, Json
from .panels import DATASOURCE

_COLUMNS = 24


@dataclass(frozen=True, slots=True)
class Line:
    """Panels side by side: a height, and each panel with its width; the widths add up to 24."""

    height: int
    panels: Sequence[tuple[int, Json]]


@dataclass(frozen=True, slots=True)
class Section:
    """Lines below each other, under a heading of their own unless `title` is None."""

    lines: Sequence[Line]
    title: str | None = None
    collapsed: bool = False


def dashboard(
    uid: str,
    title: str,
    question: str,
    sections: Sequence[Section],
    *,
    variables: Sequence[Json],
    time_from: str,
    refresh: str,
    annotations: Sequence[Json] = (),
) -> Json:
    """Return a whole dashboard in the classic schema, ready to be provisioned."""
    return {
        "uid": uid,
        "title": title,
        "description": question,
        "tags": [TAG],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "refresh": refresh,
        "time": {"from": time_from, "to": "now"},
        "timepicker": {"refresh_intervals": ["5s", "10s", "30s", "1m", "5m", "15m", "1h"]},
        "links": menu(),
        "templating": {"list": list(variables)},
        "annotations": {"list": list(annotations)},
        "panels": _laid_out(sections),
    }


def datasource_variable() -> Json:
    """Return the variable that every panel takes its data source from."""
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "regex": "",
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "current": {"text": "Prometheus", "value": "prometheus"},
        "options": [],
        "refresh": 1,
        "skipUrlSync": False,
    }


def label_variable(name: str, label: str, query: str, *, hidden: bool = False) -> Json:
    """Return a variable of the values of a label: several may be chosen, all to begin with."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{name}", "qryType": 1},
        "regex": "",
        "hide": 2 if hidden else 0,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
        "refresh": 2,
        "sort": 1,
        "skipUrlSync": False,
    }


def service_variables() -> list[Json]:
    """Return the two chained variables that choose services."""
    return [
        label_variable("kind", "Kind", "label_values(connection_status, kind)"),
        label_variable("name", "Service", 'label_values(connection_status{kind=~"$kind"}, name)'),
    ]


def check_url_variable(url: str, *, hidden: bool = False) -> Json:
    """Return the variable that says where browsers reach the exporter."""
    return {
        "type": "textbox",
        "name": "checkurl",
        "label": "Exporter URL",
        "description": "Where your browser reaches the exporter, with no slash at the end",
        "query": url,
        "hide": 2 if hidden else 0,
        "current": {"text": url, "value": url},
        "options": [{"selected": True, "text": url, "value": url}],
        "skipUrlSync": False,
    }


def choice_variable(name: str, label: str, values: Sequence[str], default: str) -> Json:
    """Return a variable that takes one of some fixed values."""
    return {
        "type": "custom",
        "name": name,
        "label": label,
        "query": ",".join(values),
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "current": {"text": default, "value": default},
        "options": [{"selected": value == default, "text": value, "value": value} for value in values],
        "skipUrlSync": False,
    }


def transitions_annotation(*, enabled: bool) -> Json:
    """Return the annotation that marks the last change of each service at its exact time."""
    expr = 'connection_last_transition_timestamp_seconds{name=~"$name",kind=~"$kind"} * 1000'
    return {
        "name": "Transitions",
        "datasource": DATASOURCE,
        "enable": enabled,
        "hide": False,
        "iconColor": CONNECTING,
        "expr": expr,
        "step": "5s",
        "target": {"refId": "Anno", "expr": expr, "interval": "5s"},
        "titleFormat": "{{name}} changed its status",
        "textFormat": "{{kind}}",
        "tagKeys": "name,kind",
        "useValueForTime": True,
    }


def _laid_out(sections: Sequence[Section]) -> list[Json]:
    panels: list[Json] = []
    number = 0
    top = 0
    for section in sections:
        inner: list[Json] = []
        row: Json | None = None
        if section.title is not None:
            number += 1
            row = {
                "type": "row",
                "id": number,
                "title": section.title,
                "collapsed": section.collapsed,
                "gridPos": {"h": 1, "w": _COLUMNS, "x": 0, "y": top},
                "panels": [],
            }
            top += 1
        start = top
        for line in section.lines:
            left = 0
            for width, panel in line.panels:
                number += 1
                place = {"h": line.height, "w": width, "x": left, "y": top}
                inner.append({"id": number, "gridPos": place, **copy.deepcopy(panel)})
                left += width
            if left != _COLUMNS:
                raise ValueError(f"a line is {left} wide, not {_COLUMNS}: {line.panels[0][1]}")
            top += line.height
        if row is not None:
            panels.append(row)
        if row is not None and section.collapsed:
            row["panels"] = inner
            top = start  # what is folded away takes no room
        else:
            panels += inner
    return panels
