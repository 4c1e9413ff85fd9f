"""Make tables: one row for each service with queries joined by `id`; or one row for each sample of a query."""

from collections.abc import Sequence
from dataclasses import dataclass

from .palette import UNKNOWN, Json, not_measured, steps
from .panels import override, panel, target

# Columns whose background is coloured by value; the others are plain text.
_PAINTED: Json = {"type": "color-background", "mode": "basic"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: a query of one value for each row, and how it is shown."""

    title: str
    expr: str
    width: int
    unit: str = "none"
    mappings: Sequence[Json] = ()
    thresholds: Json | None = None
    decimals: int | None = None
    no_value: str = "n/a"

    def properties(self) -> Json:
        """Return the overrides of this column."""
        painted = self.thresholds is not None or any("color" in str(mapping) for mapping in self.mappings)
        mappings = [*self.mappings, *not_measured()] if painted else list(self.mappings)
        made: Json = {
            "unit": self.unit,
            "noValue": self.no_value,
            "custom.width": self.width,
            "mappings": mappings,
        }
        if self.decimals is not None:
            made["decimals"] = self.decimals
        if painted:
            made["custom.cellOptions"] = _PAINTED
            made["thresholds"] = self.thresholds or steps((None, UNKNOWN))
        return made


@dataclass(frozen=True, slots=True)
class Label:
    """One column that shows a label: of the query `expr`, or of the query of the rows.

    With `fills`, the column takes the space that is left, and `width` is its minimum.
    """

    title: str
    label: str
    width: int
    expr: str = ""
    fills: bool = False
    hidden: bool = False
    mappings: Sequence[Json] = ()
    links: Sequence[Json] = ()
    actions: Sequence[Json] = ()

    def properties(self) -> Json:
        """Return the overrides of this column."""
        if self.hidden:  # Grafana 11 to 12.1 reads the first, later versions the second
            return {"custom.hidden": True, "custom.hideFrom": {"viz": True, "legend": True, "tooltip": True}}
        made: Json = {"custom.minWidth" if self.fills else "custom.width": self.width}
        if self.mappings:
            made["mappings"] = list(self.mappings)
        if self.links:
            made["links"] = list(self.links)
        if self.actions:
            made["custom.cellOptions"] = {"type": "actions"}
            made["actions"] = list(self.actions)
        return made


def joined(
    title: str,
    description: str,
    rows: str,
    columns: Sequence[Label | Column],
    *,
    sort_by: str,
    descending: bool = True,
    by: str = "id",
    dropped: Sequence[str] = (),
) -> Json:
    """Return a table with a row for each sample of `rows`, joined by the label `by`.

    `dropped` names the labels of `rows` which no column shows.
    """
    queries = [target(rows, ref="A", table=True)]
    fields: dict[str, str] = {}
    values = []
    for column in columns:
        ref = chr(ord("A") + len(queries))
        if column.expr:
            queries.append(target(column.expr, ref=ref, table=True))
        if isinstance(column, Column):
            fields[f"Value #{ref}"] = column.title
        else:
            fields[column.label] = column.title
            values += [f"Value #{ref}"] if column.expr else []
    times = ["Time", *(f"Time {n + 1}" for n in range(len(queries)))]
    organize = _organize(fields, [*times, "Value #A", *values, *dropped])
    join: Json = {"id": "joinByField", "options": {"byField": by, "mode": "outer"}}
    return _table(
        title, description, queries, columns, [join, organize], sort_by=sort_by, descending=descending
    )


def listed(
    title: str,
    description: str,
    expr: str,
    columns: Sequence[Label | Column],
    *,
    sort_by: str,
    descending: bool = True,
) -> Json:
    """Return a table of the samples of one query: its labels, and its value."""
    fields = {column.label if isinstance(column, Label) else "Value": column.title for column in columns}
    queries = [target(expr, table=True)]
    transformations = [_organize(fields, ["Time"])]
    return _table(
        title, description, queries, columns, transformations, sort_by=sort_by, descending=descending
    )


def _organize(fields: dict[str, str], hidden: Sequence[str]) -> Json:
    return {
        "id": "organize",
        "options": {
            "excludeByName": dict.fromkeys(hidden, True),
            "indexByName": {name: index for index, name in enumerate(fields)},
            "renameByName": fields,
        },
    }


def _table(
    title: str,
    description: str,
    queries: Sequence[Json],
    columns: Sequence[Label | Column],
    transformations: Sequence[Json],
    *,
    sort_by: str,
    descending: bool,
) -> Json:
    options: Json = {
        "cellHeight": "sm",
        "showHeader": True,
        "sortBy": [{"displayName": sort_by, "desc": descending}],
    }
    return panel(
        "table",
        title,
        description,
        queries,
        unit="none",
        options=options,
        custom={"align": "left", "cellOptions": {"type": "auto"}, "filterable": False},
        thresholds=steps((None, "text")),
        overrides=[override(column.title, column.properties()) for column in columns],
        transformations=transformations,
    )
