"""Make tables: of one row a service, a column a query, joined by `name`; and of one query."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .palette import Json, steps
from .panels import override, panel, target

# Columns whose ground is painted by value; the others are plain text.
_PAINTED: Json = {"type": "color-background", "mode": "basic"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: a query of one value a service, and how it is shown."""

    title: str
    expr: str
    unit: str = "none"
    width: int = 110
    mappings: Sequence[Json] = ()
    thresholds: Json | None = None
    decimals: int | None = None
    no_value: str = "n/a"
    links: Sequence[Json] = ()
    actions: Sequence[Json] = field(default=())

    def properties(self) -> Json:
        """Return the overrides of this column."""
        painted = self.thresholds is not None or any("color" in str(mapping) for mapping in self.mappings)
        made: Json = {
            "unit": self.unit,
            "noValue": self.no_value,
            "custom.width": self.width,
            "mappings": list(self.mappings),
        }
        if self.decimals is not None:
            made["decimals"] = self.decimals
        if self.thresholds is not None:
            made["thresholds"] = self.thresholds
        if self.links:
            made["links"] = list(self.links)
        if self.actions:
            made["custom.cellOptions"] = {"type": "actions"}
            made["actions"] = list(self.actions)
        elif painted:
            made["custom.cellOptions"] = _PAINTED
        return made


@dataclass(frozen=True, slots=True)
class Label:
    """One column that shows a label of the first query."""

    title: str
    label: str
    width: int = 110
    links: Sequence[Json] = ()

    def properties(self) -> Json:
        """Return the overrides of this column."""
        made: Json = {"custom.width": self.width}
        if self.links:
            made["links"] = list(self.links)
        return made


def joined(
    title: str,
    description: str,
    labels_from: str,
    columns: Sequence[Label | Column],
    *,
    sort_by: str,
    descending: bool = True,
    dropped: Sequence[str] = (),
) -> Json:
    """Return a table whose rows are the services; `labels_from` is the query that carries labels.

    `dropped` names the labels of that query which no column shows.
    """
    measured = [column for column in columns if isinstance(column, Column)]
    refs = {column.title: chr(ord("B") + n) for n, column in enumerate(measured)}
    queries = [target(labels_from, ref="A", table=True)]
    queries += [target(column.expr, ref=refs[column.title], table=True) for column in measured]
    hidden = ["Time", *(f"Time {n + 1}" for n in range(len(queries))), "Value #A", *dropped]
    fields = {
        column.title: column.label if isinstance(column, Label) else f"Value #{refs[column.title]}"
        for column in columns
    }
    transformations: list[Json] = [
        {"id": "joinByField", "options": {"byField": "name", "mode": "outer"}},
        {
            "id": "organize",
            "options": {
                "excludeByName": dict.fromkeys(hidden, True),
                "indexByName": {name: index for index, name in enumerate(fields.values())},
                "renameByName": {name: shown for shown, name in fields.items()},
            },
        },
    ]
    return _table(
        title,
        description,
        queries,
        overrides=[override(column.title, column.properties()) for column in columns],
        transformations=transformations,
        sort_by=sort_by,
        descending=descending,
    )


def listed(
    title: str,
    description: str,
    expr: str,
    columns: Sequence[Label],
    value: Column,
    *,
    sort_by: str,
    descending: bool = True,
) -> Json:
    """Return a table of the samples of one query: some of its labels, and the value."""
    shown: list[Label | Column] = [*columns, value]
    fields = {column.title: column.label for column in columns} | {value.title: "Value"}
    organize: Json = {
        "id": "organize",
        "options": {
            "excludeByName": {"Time": True},
            "indexByName": {name: index for index, name in enumerate(fields.values())},
            "renameByName": {name: shown for shown, name in fields.items()},
        },
    }
    return _table(
        title,
        description,
        [target(expr, table=True)],
        overrides=[override(column.title, column.properties()) for column in shown],
        transformations=[organize],
        sort_by=sort_by,
        descending=descending,
    )


def _table(
    title: str,
    description: str,
    queries: Sequence[Json],
    *,
    overrides: Sequence[Json],
    transformations: Sequence[Json],
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
        overrides=overrides,
        transformations=transformations,
    )
