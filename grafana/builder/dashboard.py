"""Assemble a dashboard: layout, ids, variables and annotations; must not know what a panel shows."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .links import TAG, menu
from .palette import CONNECTING, Json
from .panels import DATASOURCE

_COLUMNS = 24


class Place(NamedTuple):
    """Where a panel is, and its size, in the units of Grafana's grid."""

    x: int
    y: int
    w: int
    h: int


Placed = tuple[Place, Json]


@dataclass(frozen=True, slots=True)
class Line:
    """Panels side by side: a height, and each panel with its width; the widths add up to 24."""

    height: int
    panels: Sequence[tuple[int, Json]]

    def placed(self) -> list[Placed]:
        """Return each panel with its place in the line."""
        made = []
        left = 0
        for width, panel in self.panels:
            made.append((Place(left, 0, width, self.height), panel))
            left += width
        return made


@dataclass(frozen=True, slots=True)
class Stack:
    """Lines on the left, each a height and its panels, and one tall panel on the right."""

    lines: Sequence[tuple[int, Sequence[tuple[int, Json]]]]
    beside: tuple[int, Json]

    @property
    def height(self) -> int:
        """The height of all lines together."""
        return sum(height for height, _ in self.lines)

    def placed(self) -> list[Placed]:
        """Return each panel with its place, ordered as a phone shows them."""
        width, tall = self.beside
        made = [(Place(_COLUMNS - width, 0, width, self.height), tall)]
        top = 0
        for height, panels in self.lines:
            made += [
                (Place(place.x, top, place.w, height), panel)
                for place, panel in Line(height, panels).placed()
            ]
            top += height
        return sorted(made, key=lambda one: (one[0].y, one[0].x))


@dataclass(frozen=True, slots=True)
class Section:
    """Lines below each other, under a row with this title unless it is None."""

    lines: Sequence[Line | Stack]
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
        "links": menu(uid),
        "templating": {"list": list(variables)},
        "annotations": {"list": list(annotations)},
        "panels": _laid_out(sections),
    }


def datasource_variable() -> Json:
    """Return the variable that is the data source of every panel."""
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


def label_variable(
    name: str, label: str, query: str, *, single: bool = False, all_value: str | None = None
) -> Json:
    """Return a variable of the values of a label: one of them, or several with All as the default.

    All means the values that are listed, unless `all_value` is a regular expression for more.
    """
    made: Json = {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{name}", "qryType": 1},
        "regex": "",
        "hide": 0,
        "multi": not single,
        "includeAll": not single,
        "options": [],
        "refresh": 2,
        "sort": 1,
        "skipUrlSync": False,
    }
    if single:
        return {**made, "current": {}}
    return {**made, "allValue": all_value, "current": {"text": ["All"], "value": ["$__all"]}}


def service_variables(*, single: bool = False) -> list[Json]:
    """Return the two chained variables that select services, or a single service."""
    chained = 'label_values(connection_status{kind=~"$kind"}, name)'
    # Not only the listed ones: a service whose exporter is down is still on the board, as unknown.
    return [
        label_variable("kind", "Kind", "label_values(connection_status, kind)", all_value=".+"),
        label_variable("name", "Service", chained, single=single, all_value=".+"),
    ]


def runbooks_variable() -> Json:
    """Return the hidden variable with the address of the runbooks, from the label of the scrape target."""
    query = 'label_values(up{runbooks_url!=""}, runbooks_url)'
    return {**label_variable("runbooks", "Runbooks", query, single=True), "hide": 2, "skipUrlSync": True}


def choice_variable(name: str, label: str, values: Sequence[str], default: str) -> Json:
    """Return a variable with fixed values, of which one is selected."""
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


def transitions_annotation() -> Json:
    """Return the annotation that marks the last transition of each service at its exact time."""
    expr = 'connection_last_transition_timestamp_seconds{name=~"$name",kind=~"$kind"} * 1000'
    return {
        "name": "Transitions",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": CONNECTING,
        "expr": expr,
        "step": "5s",
        "target": {"refId": "Anno", "expr": expr, "interval": "5s"},
        "titleFormat": "Transition of {{name}}",
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
            placed = line.placed()
            area = sum(place.w * place.h for place, _ in placed)
            if area != _COLUMNS * line.height:
                raise ValueError(f"a line does not fill {_COLUMNS} columns: {placed[0][1]['title']}")
            for place, panel in placed:
                number += 1
                at = {"h": place.h, "w": place.w, "x": place.x, "y": top + place.y}
                inner.append({"id": number, "gridPos": at, **copy.deepcopy(panel)})
            top += line.height
        if row is not None:
            panels.append(row)
        if row is not None and section.collapsed:
            row["panels"] = inner
            top = start  # collapsed panels take no space
        else:
            panels += inner
    return panels
