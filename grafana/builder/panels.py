"""Make the dicts of Grafana panels: one function for each type; must not know what they show."""

from collections.abc import Mapping, Sequence

from .palette import NEUTRAL, UNKNOWN, Json, steps

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}

# With the mode "thresholds", a state timeline that merges values ignores the value mappings.
_BY_MAPPING: Json = {"mode": "fixed", "fixedColor": UNKNOWN}


def target(
    expr: str, legend: str = "__auto", *, ref: str = "A", instant: bool = False, table: bool = False
) -> Json:
    """Return one query; a table is always instant."""
    now = instant or table
    return {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "exemplar": False,
        "expr": expr,
        "format": "table" if table else "time_series",
        "instant": now,
        "legendFormat": legend,
        "range": not now,
        "refId": ref,
    }


def targets(*queries: tuple[str, str], instant: bool = False) -> list[Json]:
    """Return several queries, each an expression and its legend."""
    return [
        target(expr, legend, ref=chr(ord("A") + n), instant=instant)
        for n, (expr, legend) in enumerate(queries)
    ]


def override(field: str, properties: Mapping[str, object]) -> Json:
    """Return an override of the field with this display name."""
    return {
        "matcher": {"id": "byName", "options": field},
        "properties": [{"id": key, "value": value} for key, value in properties.items()],
    }


def colour_of(field: str, colour: str) -> Json:
    """Return an override that gives one series a fixed colour."""
    return override(field, {"color": {"mode": "fixed", "fixedColor": colour}})


def panel(
    kind: str,
    title: str,
    description: str,
    queries: Sequence[Json],
    *,
    unit: str,
    options: Json,
    custom: Json | None = None,
    colour: Json | None = None,
    mappings: Sequence[Json] = (),
    thresholds: Json | None = None,
    overrides: Sequence[Json] = (),
    transformations: Sequence[Json] = (),
    links: Sequence[Json] = (),
    interval: str | None = None,
    extra: Mapping[str, object] | None = None,
) -> Json:
    """Return a panel with what all types have in common; the layout adds place and id."""
    defaults: Json = {
        "color": colour or {"mode": "thresholds"},
        "custom": custom or {},
        "links": list(links),
        "mappings": list(mappings),
        "thresholds": thresholds or steps((None, NEUTRAL)),
        "unit": unit,
        **(extra or {}),
    }
    made: Json = {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options,
        "targets": list(queries),
        "transformations": list(transformations),
    }
    if interval:
        made["interval"] = interval
    return made


def stat(
    title: str,
    description: str,
    queries: Sequence[Json],
    *,
    unit: str = "none",
    text: str = "auto",
    values: str = "",
    mappings: Sequence[Json] = (),
    thresholds: Json | None = None,
    transformations: Sequence[Json] = (),
    links: Sequence[Json] = (),
    extra: Mapping[str, object] | None = None,
) -> Json:
    """Return one figure, or a tile for each series, on a coloured background.

    With `values`, a regular expression for a field of a table, each row becomes a tile named by its labels.
    """
    reduce: Json = {"calcs": ["lastNotNull"], "fields": values, "values": bool(values)}
    options: Json = {
        "colorMode": "background_solid",
        "graphMode": "none",
        "justifyMode": "center",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": {**reduce, "limit": 200} if values else reduce,
        "showPercentChange": False,
        "textMode": text,
        "wideLayout": False,
    }
    return panel(
        "stat",
        title,
        description,
        queries,
        unit=unit,
        options=options,
        mappings=mappings,
        thresholds=thresholds,
        transformations=transformations,
        links=links,
        extra=extra,
    )


def timeseries(
    title: str,
    description: str,
    queries: Sequence[Json],
    *,
    unit: str,
    bars: bool = False,
    stacked: bool = False,
    overrides: Sequence[Json] = (),
    thresholds: Json | None = None,
    interval: str | None = None,
    links: Sequence[Json] = (),
    extra: Mapping[str, object] | None = None,
) -> Json:
    """Return lines over time, or bars for events; the colours only distinguish the lines."""
    custom: Json = {
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 80 if bars else 5,
        "lineWidth": 0 if bars else 2,
        "showPoints": "never" if bars else "auto",
        "pointSize": 4,
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "dashed" if thresholds else "off"},
        "axisSoftMin": 0,
    }
    if unit == "short":
        custom["axisSoftMax"] = 1  # without it, an axis of zeros reads 0 to 100
    options: Json = {
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel(
        "timeseries",
        title,
        description,
        queries,
        unit=unit,
        options=options,
        custom=custom,
        colour={"mode": "palette-classic"},
        thresholds=thresholds,
        overrides=overrides,
        interval=interval,
        links=links,
        extra=extra,
    )


def timeline(
    title: str,
    description: str,
    queries: Sequence[Json],
    *,
    mappings: Sequence[Json],
    interval: str = "5s",
    links: Sequence[Json] = (),
) -> Json:
    """Return a band for each series, coloured by value; the interval is the scrape interval."""
    options: Json = {
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "mergeValues": True,
        "rowHeight": 0.85,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel(
        "state-timeline",
        title,
        description,
        queries,
        unit="none",
        options=options,
        custom={"fillOpacity": 90, "lineWidth": 0, "spanNulls": False},
        colour=_BY_MAPPING,
        mappings=mappings,
        interval=interval,
        links=links,
    )


def daily(
    title: str,
    description: str,
    queries: Sequence[Json],
    *,
    unit: str = "none",
    mappings: Sequence[Json] = (),
    thresholds: Json | None = None,
    extra: Mapping[str, object] | None = None,
) -> Json:
    """Return a cell for each series and day."""
    options: Json = {
        "colWidth": 0.95,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "rowHeight": 0.9,
        "showValue": "never",  # a cell of one day is too small for text; the tooltip shows it
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel(
        "status-history",
        title,
        description,
        queries,
        unit=unit,
        options=options,
        custom={"fillOpacity": 90, "lineWidth": 1},
        colour=_BY_MAPPING if mappings else None,
        mappings=mappings,
        thresholds=thresholds,
        interval="1d",
        extra=extra,
    )
