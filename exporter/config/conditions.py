"""Owns conditions on JSON as people write them: a path, and what has to be true of the value there.

    status: ok                        # equal: a string, a number, true, false or null
    data.items[0].state: {in: [open, half-open]}
    data.items[-1].age: {">=": 0, "<": 60}
    '["dotted.name"].version': {matches: "^2[.]"}
    error: {exists: false}

A comparison is one of ``==  !=  <  <=  >  >=`` (both sides numbers, or both strings), ``in`` (a list),
``matches`` (a regular expression, on strings) and ``exists``. Several of them must all hold.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from exporter.config.patterns import CompiledPattern

Scalar = None | bool | int | float | str

COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=", "in", "matches", "exists")

_WANTED: Final = {
    **dict.fromkeys(("<", "<=", ">", ">="), "a number or a string"),
    "in": "a list, such as [ok, degraded]",
    "matches": "a regular expression",
    "exists": "true or false",
}
_STEP: Final = re.compile(
    r'\.?(?P<name>[^.\[\]"]+)|\[(?P<index>-?\d{1,9})\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]'
)


@dataclass(frozen=True, slots=True)
class Condition:
    """What has to be true of the value at ``path``; ``written`` is the path as it stands in the config."""

    written: str
    path: tuple[str | int, ...]
    comparison: str
    operand: Scalar | tuple[Scalar, ...] | CompiledPattern


def parse_conditions(given: object) -> tuple[Condition, ...]:
    """Read a mapping of paths to values or comparisons. Raises ValueError, which names the mend."""
    if not isinstance(given, Mapping):
        raise ValueError("expected a mapping of paths to values, such as `status: ok`")
    return tuple(
        condition for written, value in given.items() for condition in _conditions(str(written), value)
    )


def _check(given: object) -> object:
    parse_conditions(given)
    return given


Conditions = Annotated[dict[str, Any], BeforeValidator(_check)]
"""A mapping of paths to values or comparisons, as written; `parse_conditions` reads it."""


def _conditions(written: str, value: object) -> list[Condition]:
    path = _path(written)
    if not isinstance(value, Mapping):
        return [Condition(written, path, "==", _scalar(written, value))]
    if not value:
        raise ValueError(f"{written}: a comparison is missing, such as {{'>=': 5}}")
    return [Condition(written, path, str(name), _operand(written, str(name), value[name])) for name in value]


def _path(written: str) -> tuple[str | int, ...]:
    if written.startswith("$"):
        raise ValueError(f"{written}: a path begins with a name: leave out the $")
    steps: list[str | int] = []
    at = 0
    while at < len(written):
        step = _STEP.match(written, at)
        if step is None or (at == 0 and written.startswith(".")):
            raise ValueError(f"{written}: not a path: write it as in data.items[0].state")
        if step["index"] is not None:
            steps.append(int(step["index"]))
        else:
            steps.append(step["name"] or re.sub(r"\\(.)", r"\1", step["quoted"][1:-1]))
        at = step.end()
    if not steps:
        raise ValueError("a path is empty: write it as in data.items[0].state")
    return tuple(steps)


def _operand(written: str, comparison: str, value: object) -> Scalar | tuple[Scalar, ...] | CompiledPattern:
    match comparison, value:
        case "==" | "!=", _:
            return _scalar(written, value)
        case "<" | "<=" | ">" | ">=", int() | float() | str() if not isinstance(value, bool):
            return value
        case "in", [_, *_]:
            return tuple(_scalar(written, item) for item in value)
        case "matches", str():
            try:
                return CompiledPattern(value)
            except ValueError as error:
                raise ValueError(f"{written}: {error}") from None
        case "exists", bool():
            return value
    if comparison in _WANTED:
        raise ValueError(f"{written}: {comparison} needs {_WANTED[comparison]}")
    known = ", ".join(COMPARISONS)
    raise ValueError(f"{written}: unknown comparison {comparison!r}: known are {known}")


def _scalar(written: str, value: object) -> Scalar:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{written}: only strings, numbers, true, false and null can be compared with")
