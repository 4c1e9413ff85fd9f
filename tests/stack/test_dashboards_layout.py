"""What a person sees: nothing is cut off at 1,280 px, phones show services first, colours and links mean something.

Grafana does not run in the tests. The sizes are those of Grafana 12.4 with its default theme, measured in screenshots.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from support.dashboards_metrics import EXPORTER_METRICS, PLANNED_METRICS
from support.dashboards_panels import Json, dashboards, panels, strings

SCREEN = 1280
MENU = 300  # the docked menu, open by default
MARGINS = 33  # left and right of the grid, and the border of the menu
GUTTER = 8  # between two columns of the grid
COLUMNS = 24
INSET = 16  # the left and right padding of a panel, of its title and of a cell
ICON = 32  # the icon that shows the description
SCROLLBAR = 10
LETTER = 8.0  # a letter of a title or a column header: 14 px, medium
THIN_LETTER = 7.5  # a letter of a cell: 14 px, regular
MIN_WIDTH = 150  # Grafana's minimum for a column without a width
LONGEST = {
    "dateTimeFromNow": "a few seconds ago",
    "s": "59.9 weeks",
    "percentunit": "-99999.9%",
    "short": "999.9 K",
}
LONGEST_LABEL = {
    "severity": "critical",
    "alertname": "AlertmanagerNotificationsFailing",
    "reason": "unreachable",
    "kind": "postgresql",
    "critical": "false",
    "action": "Force check ",  # and the frame of its button
    "page": "open ↗",
    "open": "open ↗",
    "runbook": "open ↗",
}
STATUS_COLOURS = {"#009E73", "#F0B429", "#C4320A", "#7CC7F5"}

DASHBOARDS = dashboards()
PANELS = [
    pytest.param(panel, id=f"{stem}-{panel['title']}")
    for stem, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
]
EVERY_PANEL = pytest.mark.parametrize("panel", PANELS)
EVERY_DASHBOARD = pytest.mark.parametrize("stem", list(DASHBOARDS))


def of_type(*types: str) -> pytest.MarkDecorator:
    """Parametrize a test with the panels of some types."""
    chosen = [one for one in PANELS if one.values[0]["type"] in types]  # type: ignore[index]
    assert chosen
    return pytest.mark.parametrize("panel", chosen)


def pixels(panel: Json) -> float:
    """Return the width of a panel on a screen of 1,280 px with Grafana's menu."""
    column = (SCREEN - MENU - MARGINS - (COLUMNS - 1) * GUTTER) / COLUMNS
    width = int(panel["gridPos"]["w"])
    return width * column + (width - 1) * GUTTER


def columns(panel: Json) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield title, field and properties of each visible column of a table."""
    organize = next(one for one in panel["transformations"] if one["id"] == "organize")["options"]
    overrides = {one["matcher"]["options"]: one["properties"] for one in panel["fieldConfig"]["overrides"]}
    for name, title in organize["renameByName"].items():
        properties = {one["id"]: one["value"] for one in overrides[title]}
        if "custom.hidden" not in properties:
            yield title, name, properties


@EVERY_PANEL
def test_a_title_fits_beside_its_icon(panel: Json) -> None:
    """A title that does not fit ends in dots."""
    assert len(panel["title"]) * LETTER + ICON + INSET <= pixels(panel)


@of_type("table")
def test_the_columns_of_a_table_fit_into_its_panel(panel: Json) -> None:
    """A column beyond the right edge is invisible, and nothing says so."""
    widths = [one.get("custom.width", one.get("custom.minWidth", MIN_WIDTH)) for _, _, one in columns(panel)]
    assert sum(widths) <= pixels(panel) - INSET - SCROLLBAR


@of_type("table")
def test_a_column_fits_its_header_and_its_longest_value(panel: Json) -> None:
    """A fixed width cuts off what is longer. Names and addresses have no limit, so they have no fixed width."""
    for title, name, properties in columns(panel):
        if "custom.width" not in properties:
            continue
        texts = [
            option["text"]
            for mapping in properties.get("mappings", [])
            if mapping["type"] == "value"
            for option in mapping["options"].values()
        ]
        values = [LONGEST_LABEL[name]] if not name.startswith("Value") else texts
        unit = properties.get("unit", "none")
        values += [LONGEST[unit]] if unit in LONGEST else []
        needed = max([len(title) * LETTER, *(len(text) * THIN_LETTER for text in values)])
        assert needed + INSET <= properties["custom.width"], title


@of_type("state-timeline")
def test_a_state_timeline_takes_its_colours_from_the_mappings(panel: Json) -> None:
    """With the mode "thresholds" and merged values, Grafana draws one band named "-∞+"."""
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["color"]["mode"] == "fixed"
    assert defaults["mappings"]


@of_type("status-history")
def test_a_status_history_with_mappings_takes_its_colours_from_them(panel: Json) -> None:
    """And its cells, one for each day, have no room for text."""
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["color"]["mode"] == ("fixed" if defaults["mappings"] else "thresholds")
    assert panel["options"]["showValue"] == "never"


@of_type("state-timeline")
def test_a_state_timeline_is_never_without_data(panel: Json) -> None:
    """Otherwise it says "Data does not have a time field"."""
    for target in panel["targets"]:
        assert re.search(
            r"unless on \(\) count\(last_over_time\(.*\[\$__range\] @ end\(\)\)\)\)$", target["expr"]
        )


@of_type("stat")
def test_a_missing_value_has_no_colour_of_a_status(panel: Json) -> None:
    """A missing value takes the colour of the lowest threshold: "no TLS" must not be red or green."""
    defaults = panel["fieldConfig"]["defaults"]
    exprs = [target["expr"] for target in panel["targets"]]
    never_empty = all(re.search(r"or (on \(\) label_replace\()?vector\(\d\)", expr) for expr in exprs)
    lowest = defaults["thresholds"]["steps"][0]["color"]
    assert never_empty or lowest not in STATUS_COLOURS
    assert never_empty or "noValue" in defaults or panel["title"] == "Services by group"


@of_type("table")
def test_a_missing_value_in_a_coloured_cell_is_readable(panel: Json) -> None:
    """Without a mapping of its own, the cell is nearly white on the dark theme."""
    for title, _, properties in columns(panel):
        if properties.get("custom.cellOptions", {}).get("type") == "color-background":
            special = [one["options"] for one in properties["mappings"] if one["type"] == "special"]
            assert [one["match"] for one in special] == ["null+nan"], title
            assert special[0]["result"]["color"] == "#585862"


@of_type("stat")
def test_a_figure_is_above_or_below_its_name(panel: Json) -> None:
    """Grafana's wide layout puts them side by side and shrinks both."""
    assert panel["options"]["wideLayout"] is False


@of_type("timeseries")
def test_an_axis_of_counts_does_not_reach_to_100_without_a_reason(panel: Json) -> None:
    """Grafana's axis of nothing but zeros is 0 to 100."""
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] != "short" or defaults["custom"]["axisSoftMax"] == 1


@of_type("barchart")
def test_a_share_has_an_axis_from_0_to_100_percent(panel: Json) -> None:
    """Seconds stacked to 100 % have an axis from 0 s to 1.1 s."""
    defaults = panel["fieldConfig"]["defaults"]
    assert (defaults["unit"], defaults["min"], defaults["max"]) == ("percentunit", 0, 1)


def test_legends_of_one_service_do_not_repeat_its_name() -> None:
    """The Service dashboard shows a single service, and a fallback line reads like a sentence."""
    for panel in panels(DASHBOARDS["service"]):
        if panel["type"] in ("timeseries", "state-timeline") and panel["title"] != "Status over time":
            assert not any("{{name}}" in target["legendFormat"] for target in panel["targets"]), panel[
                "title"
            ]
    fallbacks = re.findall(r'label_replace\((?:vector\(0\)|0 \*)[^"]*"\w+", "([^"]*)"', str(DASHBOARDS))
    assert "none" not in fallbacks


def test_latency_ends_with_its_session() -> None:
    """A rate looks back over minutes, so a service that is down would keep its last latency."""
    found = [
        target["expr"]
        for dashboard in DASHBOARDS.values()
        for panel in panels(dashboard)
        for target in panel["targets"]
        if "connection_check_duration_seconds" in target["expr"]
    ]
    assert found
    assert all(expr.endswith('connection_session_up{name=~"$name",kind=~"$kind"}) == 1') for expr in found)


def test_a_phone_shows_the_services_after_the_overall_status() -> None:
    """Below 768 px, Grafana shows the panels one below the other, by their top and then their left edge."""
    shown = sorted(panels(DASHBOARDS["overview"]), key=lambda one: (one["gridPos"]["y"], one["gridPos"]["x"]))
    titles = [panel["title"] for panel in shown]
    assert titles[:2] == ["Overall", "Services by group"]
    assert titles[-3:] == ["Services", "Status over time", "Firing alerts"]
    assert sum(panel["type"] == "stat" for panel in shown) - 1 <= 3
    assert len(titles) == len(set(titles)) <= 8


def test_each_question_has_its_column() -> None:
    """What is broken, since when, why, and what do I do; alerts begin with the time."""
    by_title = {panel["title"]: panel for panel in panels(DASHBOARDS["overview"])}
    assert [title for title, _, _ in columns(by_title["Services"])] == [
        *("Service", "Status", "Since", "Reason", "Because of", "Action", "Status page", "Runbook"),
    ]
    for stem in ("overview", "service", "monitor"):
        alerts = next(one for one in panels(DASHBOARDS[stem]) if one["title"].startswith("Firing alerts"))
        titles = [title for title, _, _ in columns(alerts)]
        assert (titles[0], titles[-1]) == ("Since", "Runbook")


def test_the_service_dashboard_shows_one_service() -> None:
    """With All or several, its tiles shrink and its labels overlap."""
    variables = {one["name"]: one for one in DASHBOARDS["service"]["templating"]["list"]}
    assert (variables["name"]["multi"], variables["name"]["includeAll"]) == (False, False)


@EVERY_DASHBOARD
def test_history_opens_at_30_days_from_everywhere(stem: str) -> None:
    """Its links carry a range of their own and never the range of the page; a link away drops the 30 days."""
    for link in DASHBOARDS[stem]["links"]:
        if "/d/connection-history" in link["url"]:
            assert link["url"].endswith("?from=now-30d&to=now")
            assert link["keepTime"] is False
        else:
            assert link["keepTime"] is (stem != "history")
    for url in (text for text in strings(DASHBOARDS[stem]["panels"]) if "/d/connection-history" in text):
        assert "from=now-30d&to=now" in url
        assert "__url_time_range" not in url


def test_the_tile_of_alerts_does_not_lead_away_from_their_list() -> None:
    """The Overview lists the alerts itself; Monitor is about the monitoring."""
    (tile,) = (one for one in panels(DASHBOARDS["overview"]) if one["title"] == "Alerts")
    assert tile["fieldConfig"]["defaults"]["links"] == []
    assert any(panel["title"] == "Firing alerts" for panel in panels(DASHBOARDS["overview"]))


@EVERY_DASHBOARD
def test_no_dashboard_contains_an_address(stem: str) -> None:
    """Addresses come from the labels of the scrape targets."""
    assert not [
        text for text in strings(DASHBOARDS[stem]) if re.search(r"localhost|https?://(?!\$)|:\d{4}\b", text)
    ]


def test_a_planned_metric_is_not_exported_yet() -> None:
    """Remove a metric from PLANNED_METRICS as soon as the exporter has it."""
    assert not PLANNED_METRICS & EXPORTER_METRICS
