"""The dashboards are well-formed, name only what exists, and use each colour with one meaning."""

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.dashboards_colours import lab, simulated
from support.dashboards_metrics import EXPORTER_METRICS, PLANNED_METRICS, STACK_METRICS
from support.dashboards_panels import ROOT, Json, dashboards, panels, strings

DASHBOARDS = dashboards()
UIDS = {
    "overview": "connection-overview",
    "service": "connection-service",
    "history": "connection-history",
    "monitor": "connection-monitor",
}

KNOWN_METRICS = EXPORTER_METRICS | PLANNED_METRICS | STACK_METRICS
STATUS = {"0": "unknown", "1": "healthy", "2": "connecting", "3": "unhealthy", "4": "disconnected"}
OVERALL = {"0": "unknown", "1": "healthy", "2": "degraded", "3": "partial"}
LABELS = [
    "name",
    "kind",
    "state",
    "reason",
    "to",
    "event",
    "address",
    "critical",
    "group",
    "cause",
    "browser_url",
    "runbooks_url",
    # Labels that a query adds:
    "id",
    "since",
    "runbook",
    "version",
    "job",
    "instance",
    "le",
    "alertname",
    "severity",
    "alertstate",
    "integration",
]
# Words of PromQL, and what Grafana fills in.
LANGUAGE = frozenset(
    [
        "by",
        "on",
        "ignoring",
        "group_left",
        "and",
        "or",
        "unless",
        "offset",
        "bool",
        "sum",
        "min",
        "max",
        "count",
        "avg",
        "round",
        "rate",
        "increase",
        "clamp_min",
        "clamp_max",
        "time",
        "vector",
        "label_replace",
        "label_join",
        "count_values",
        "topk",
        "floor",
        "end",
        "label_values",
        "sort_desc",
        "histogram_quantile",
        "max_over_time",
        "min_over_time",
        "avg_over_time",
        "last_over_time",
    ]
)
BUILT_IN = frozenset(
    [
        "__all",
        "__interval",
        "__rate_interval",
        "__range",
        "__range_s",
        "__url_time_range",
        "__data",
        "__field",
    ]
)
# The one expression that may read a counter bare: a series younger than the window counts whole.
YOUNG_OR_GROWN = re.compile(
    r"\((?P<series>\w+\{[^}]*\}) unless (?P=series) offset (?P<window>\$?\w+)\)"
    r" or increase\((?P=series)\[(?P=window)\]\)"
)

EVERY_DASHBOARD = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=list(DASHBOARDS))
EVERY_PANEL = pytest.mark.parametrize(
    "panel",
    [
        pytest.param(panel, id=f"{stem}-{panel['title']}")
        for stem, dashboard in DASHBOARDS.items()
        for panel in panels(dashboard)
    ],
)


def expressions(panel: Json) -> list[str]:
    """Return the queries of a panel."""
    return [target["expr"] for target in panel["targets"]]


def mappings(value: object) -> Iterator[Json]:
    """Yield every value mapping with colours in a panel or dashboard: those of closed sets."""
    if isinstance(value, dict):
        options = value.get("options", {}) if value.get("type") == "value" else {}
        if options and all("color" in option for option in options.values()):
            yield options
        for inner in value.values():
            yield from mappings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from mappings(inner)


def word(option: Json) -> str:
    """Return the word of a mapped value, without the sign before it."""
    sign, _, text = option["text"].partition(" ")
    assert len(sign) == 1
    return str(text)


def named(expr: str) -> set[str]:
    """Return the metrics that an expression names."""
    bare = re.sub(r'"[^"]*"', "", expr)
    bare = re.sub(r"\$\{?\w+\}?", "", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|on|ignoring|group_left) \([^)]*\)", "", bare)
    return set(re.findall(r"(?<![\w.])[a-zA-Z_]\w*", bare)) - LANGUAGE


def test_the_committed_dashboards_are_those_the_builder_writes() -> None:
    """Generated and committed are equal."""
    build = [sys.executable, str(ROOT / "grafana" / "build.py"), "--check"]
    done = subprocess.run(build, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_a_dashboard_that_was_edited_by_hand_is_found(tmp_path: Path) -> None:
    """The check names the file that differs and exits 1; building again corrects it."""
    build = [sys.executable, str(ROOT / "grafana" / "build.py"), f"--output={tmp_path}"]
    subprocess.run(build, check=True, timeout=30, stdout=subprocess.DEVNULL)
    (tmp_path / "service.json").write_text("{}", "utf-8")
    done = subprocess.run([*build, "--check"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "service.json" in done.stderr
    subprocess.run(build, check=True, timeout=30, stdout=subprocess.DEVNULL)
    assert subprocess.run([*build, "--check"], timeout=30, check=False).returncode == 0


def test_there_are_four_dashboards_with_stable_uids() -> None:
    """Alerts and bookmarks link to these."""
    assert {stem: dashboard["uid"] for stem, dashboard in DASHBOARDS.items()} == UIDS


@EVERY_DASHBOARD
def test_a_dashboard_provisions_from_a_file_on_grafana_11_to_13(dashboard: Json) -> None:
    """It is classic JSON, has a question as its description, and contains nothing of one installation."""
    assert 39 <= dashboard["schemaVersion"] <= 42
    assert dashboard["editable"] is False
    assert dashboard["description"].endswith("?")
    assert not {"id", "version", "__inputs", "__requires", "gnetId"} & dashboard.keys()


@EVERY_PANEL
def test_a_panel_has_a_title_a_description_and_a_unit(panel: Json) -> None:
    """The description is a sentence, and there is at least one query."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]


@EVERY_PANEL
def test_a_span_of_time_is_rounded_and_not_cut_off(panel: Json) -> None:
    """Grafana's other units of time show 119 s as "1 minute", and minus an hour as "1 hour ago"."""
    units = {text for text in strings(panel["fieldConfig"]) if re.match(r"(dt[dh]\w+|clocks|clockms)$", text)}
    assert units == set()


@EVERY_DASHBOARD
def test_every_data_source_is_the_variable(dashboard: Json) -> None:
    """A dashboard can be pointed at another Prometheus in one place."""

    def sources(value: object) -> Iterator[object]:
        if isinstance(value, dict):
            if "datasource" in value:
                yield value["datasource"]
            for inner in value.values():
                yield from sources(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from sources(inner)

    found = list(sources(dashboard))
    assert found
    assert all(one == {"type": "prometheus", "uid": "${datasource}"} for one in found)
    assert all("datasource" in panel for panel in panels(dashboard))


@EVERY_DASHBOARD
def test_ids_are_unique(dashboard: Json) -> None:
    """No two panels or rows have the same id, and no two queries of a panel the same letter."""
    rows = [panel for panel in dashboard["panels"] if panel["type"] == "row"]
    ids = [panel["id"] for panel in [*panels(dashboard), *rows]]
    assert len(ids) == len(set(ids))
    for panel in panels(dashboard):
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs))


@EVERY_DASHBOARD
def test_panels_lie_in_the_grid_and_do_not_overlap(dashboard: Json) -> None:
    """The 24 columns are full and no cell is used twice, also in collapsed rows."""
    shown = [panel for panel in dashboard["panels"] if not panel.get("collapsed")]
    folded = [row["panels"] for row in dashboard["panels"] if row.get("collapsed")]
    for group in [shown, *folded]:
        taken: set[tuple[int, int]] = set()
        for panel in group:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            columns = range(place["x"], place["x"] + place["w"])
            lines = range(place["y"], place["y"] + place["h"])
            cells = set(itertools.product(columns, lines))
            assert not cells & taken, panel["title"]
            taken |= cells
        heights = {y for _, y in taken}
        assert len(taken) == 24 * len(heights)


@EVERY_PANEL
def test_a_rate_looks_back_over_the_rate_interval(panel: Json) -> None:
    """Any other window has gaps at one zoom and misses events at another."""
    for expr in expressions(panel):
        assert set(re.findall(r"\brate\([^\[]*\[([^\]]*)\]", expr)) <= {"$__rate_interval"}
        assert "irate" not in expr


@EVERY_PANEL
def test_a_counter_is_read_only_through_its_growth(panel: Json) -> None:
    """A counter starts at 0 with the exporter, so its bare value means nothing."""
    for expr in expressions(panel):
        rest = YOUNG_OR_GROWN.sub("", expr)
        counters = r"\w+_(?:total|bucket|sum|count)"
        bare = re.findall(rf"(?<!\w)(?<!rate\()(?<!increase\(){counters}\b", rest)
        assert bare == []


@EVERY_PANEL
def test_every_metric_that_is_named_exists(panel: Json) -> None:
    """A panel with a metric that does not exist is always empty."""
    for expr in expressions(panel):
        found = named(expr)
        assert found
        assert found <= KNOWN_METRICS


@EVERY_PANEL
def test_every_label_that_is_named_exists(panel: Json) -> None:
    """So do labels."""
    for expr in expressions(panel):
        grouped = re.findall(r"\b(?:by|on|ignoring|group_left) \(([^)]*)\)", expr)
        names = {label for group in grouped for label in re.split(r",\s*", group) if label}
        names |= set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expr))
        assert names <= set(LABELS)


@EVERY_DASHBOARD
def test_variables_name_metrics_that_exist(dashboard: Json) -> None:
    """So do the queries of variables and annotations."""
    known = KNOWN_METRICS
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            query = variable["query"]["query"]
            chosen = re.findall(r'__name__=~"([^"]*)"', query)
            metrics = set(chosen[0].split("|")) if chosen else named(query) - set(LABELS)
            assert metrics
            assert metrics <= known
            assert variable["definition"] == query
            single = variable["name"] == "runbooks" or (variable["name"], dashboard["uid"]) == (
                "name",
                UIDS["service"],
            )
            assert variable["multi"] is variable["includeAll"] is not single
            assert variable["refresh"] == 2
    for annotation in dashboard["annotations"]["list"]:
        assert named(annotation["expr"]) <= known
        assert annotation["target"]["expr"] == annotation["expr"]
        assert annotation["useValueForTime"] is True


@EVERY_DASHBOARD
def test_every_variable_that_is_used_is_defined_and_the_other_way_round(dashboard: Json) -> None:
    """Grafana sends an undefined variable to Prometheus unchanged, and an unused one is misleading."""
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = {name for text in strings(dashboard) for name in re.findall(r"\$\{?([a-z_]\w*)", text)}
    assert used - BUILT_IN == defined


@EVERY_PANEL
def test_a_mapping_of_statuses_is_the_enum(panel: Json) -> None:
    """Every set of coloured words is one of the closed sets, and statuses map all five codes."""
    sets = [
        ["down", "up"],
        ["down", "up", "no canary"],
        ["down", "up", "not a replica"],
        ["not running", "running", "not a process"],
        ["not watching", "watching"],
        ["failed", "ok"],
        ["silent", "alive"],
        ["primary", "standby"],
    ]
    found = [{code: word(option) for code, option in one.items()} for one in mappings(panel)]
    for words in found:
        assert words in (STATUS, OVERALL, *({str(n): word for n, word in enumerate(one)} for one in sets))
    shows_status = panel["type"] in ("state-timeline", "status-history", "stat") and any(
        re.search(r"^(sort_desc\()?max by \(name\) \([^=]*connection_status\{", expr)
        for expr in expressions(panel)
    )
    assert not shows_status or found == [STATUS]


@EVERY_DASHBOARD
def test_every_link_leads_somewhere(dashboard: Json) -> None:
    """Links point at a known dashboard, at the exporter of their row, or at a runbook; the menu has the other three."""
    urls = [text for text in strings(dashboard) if text.startswith(("/d/", "${__", "${runbooks", "http"))]
    urls = [url for url in urls if "/" in url]
    assert urls
    for url in urls:
        inside = re.match(r"/d/([\w-]+)(?:\?|$)", url)
        if inside:
            assert inside[1] in UIDS.values()
        else:
            assert url.startswith(
                ("${__data.fields.browser_url}/", "${__field.labels.browser_url}/", "${runbooks:raw}/")
            )
    others = [link["url"].split("?")[0] for link in dashboard["links"]]
    assert sorted(others) == sorted(f"/d/{uid}" for uid in UIDS.values() if uid != dashboard["uid"])
    assert all(link["includeVars"] for link in dashboard["links"])


@EVERY_PANEL
def test_a_renamed_column_is_one_that_its_queries_give(panel: Json) -> None:
    """Columns are found by name: a wrong name leaves a column raw or hidden, without an error."""
    queried = {f"Value #{target['refId']}" for target in panel["targets"]}
    labels = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", str(expressions(panel))))))
    labels |= set(re.findall(r'label_replace\(.*?, "(\w+)", "[^"]*", "", ""\)', " ".join(expressions(panel))))
    labels |= set(re.findall(r'"(\w+)", "[^"]*", "", ""\)', " ".join(expressions(panel))))
    for transformation in panel["transformations"]:
        if transformation["id"] != "organize":
            continue
        renamed = transformation["options"]["renameByName"]
        hidden = set(transformation["options"]["excludeByName"])
        single = {"Value"} if len(queried) == 1 else set()
        assert set(renamed) <= queried | labels | single
        assert not renamed or queried <= set(renamed) | hidden or single <= set(renamed)
        assert not renamed or list(renamed) == list(transformation["options"]["indexByName"])
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["options"] in renamed.values()


@EVERY_PANEL
def test_a_timeline_of_statuses_never_hides_an_outage(panel: Json) -> None:
    """It takes the worst status of each step, and its smallest step is a scrape."""
    if panel["type"] != "state-timeline" or "connection_status" not in str(expressions(panel)):
        return
    assert panel["interval"] == "5s"
    assert all("max_over_time(" in expr for expr in expressions(panel))


def test_force_check_is_sent_as_the_exporter_expects_it() -> None:
    """The action posts the service's name to the exporter of its row, and contains no secret."""
    for stem in ("overview", "service"):
        found = [
            (override, action)
            for panel in panels(DASHBOARDS[stem])
            for override in panel["fieldConfig"]["overrides"]
            for one in override["properties"]
            if one["id"] == "actions"
            for action in one["value"]
        ]
        assert len(found) == 1
        override, action = found[0]
        assert {"id": "custom.cellOptions", "value": {"type": "actions"}} in override["properties"]
        assert action["type"] == "fetch"
        assert action["fetch"] == {
            "method": "POST",
            "url": "${__data.fields.browser_url}/health/force-check?service=${__data.fields.name}",
            "body": "{}",
            "queryParams": [],
            "headers": [["Content-Type", "application/json"]],
        }


def test_what_must_be_shown_is_shown() -> None:
    """Every promised fact has a panel or a column with its name."""
    shown = " ".join(strings(list(DASHBOARDS.values()))).lower()
    promised = (
        "overall,kind,retries,next attempt,last check,last success,latency,session,canary,"
        "monitoring,status over time,transitions,availability,mttr,mtbf,error budget,since,reason,"
        "because of,time in each status,restarts,certificate ends,firing alerts,force check,status page"
    )
    assert [words for words in promised.split(",") if words not in shown] == []


def test_a_colour_means_the_same_everywhere() -> None:
    """A word has one colour on every dashboard, and each status has its own."""
    colours: dict[str, set[str]] = {}
    for options in mappings(list(DASHBOARDS.values())):
        for option in options.values():
            colours.setdefault(word(option), set()).add(option["color"])
    assert {found: len(used) for found, used in colours.items() if len(used) > 1} == {}
    assert len({next(iter(colours[status])) for status in STATUS.values()}) == len(STATUS)
    assert colours["degraded"] == colours["unhealthy"]
    assert colours["partial"] == colours["disconnected"] == colours["down"]
    assert colours["up"] == colours["healthy"]


@pytest.mark.parametrize("vision", ["usual", "protanopia", "deuteranopia", "tritanopia"])
def test_colour_blind_people_can_distinguish_the_statuses(vision: str) -> None:
    """Any two status colours differ by at least 15 in CIELAB; 2.3 is just noticeable."""
    options = next(one for one in mappings(DASHBOARDS["overview"]) if len(one) == len(STATUS))
    seen = {word(option): lab(simulated(option["color"], vision)) for option in options.values()}
    for (one, first), (other, second) in itertools.combinations(seen.items(), 2):
        distance = sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5
        assert distance > 15, f"{one} and {other}"


def test_provisioning_has_the_uids_that_the_dashboards_use() -> None:
    """Data sources have fixed uids, and the files cannot be edited or deleted in the browser."""
    folder = ROOT / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "connection-exporter.yml").read_text())
    by_uid = {source["uid"]: source for source in sources["datasources"]}
    assert by_uid["prometheus"]["jsonData"] == {
        "httpMethod": "POST",
        "timeInterval": "5s",
        "prometheusType": "Prometheus",
        "manageAlerts": True,
        "alertmanagerUid": "alertmanager",
    }
    assert by_uid["alertmanager"]["jsonData"] == {"implementation": "prometheus"}
    providers = yaml.safe_load((folder / "dashboards" / "connection-exporter.yml").read_text())
    (provider,) = providers["providers"]
    assert provider["disableDeletion"] is True
    assert provider["allowUiUpdates"] is False
    assert provider["updateIntervalSeconds"] > 10
    assert provider["type"] == "file"


def test_the_scrape_interval_is_the_one_of_prometheus() -> None:
    """$__rate_interval depends on timeInterval, so the two must agree."""
    folder = ROOT / "grafana" / "provisioning" / "datasources"
    sources = yaml.safe_load((folder / "connection-exporter.yml").read_text())
    prometheus = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    assert prometheus["global"]["scrape_interval"] == sources["datasources"][0]["jsonData"]["timeInterval"]


def test_no_dashboard_contains_a_path_or_a_secret() -> None:
    """Everyone who can see a dashboard can read its JSON."""
    assert not re.search(r"token|password|secret|/home/|/root/|/tmp/", json.dumps(DASHBOARDS), re.IGNORECASE)


def test_grafana_finds_every_folder_that_it_looks_for() -> None:
    """At startup it logs an error for each folder of provisioning that is missing."""
    folder = ROOT / "grafana" / "provisioning"
    assert {path.name for path in folder.iterdir()} == {"alerting", "dashboards", "datasources", "plugins"}
    for path in folder.rglob("*.*"):
        assert path.suffix == ".yml", "Grafana warns about any other file"
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1
