"""Parses conditions on JSON values: a path, and what must be true of the value there.

    status: ok                        # equal: a string, a number, true, false or null
    data.items[0].state: {in: [open, half-open]}
    data.items[-1].age: {">=": 0, "<": 60}
    data.items: {length: {">": 3}}    # of a list, an object or a string
    '["dotted.name"].version': {matches: "^2[.]"}
    replicas.ready: {path: replicas.wanted}
    error: {exists: false}
    $: {length: 2}                    # the whole document; also written as a dot

A comparison is one of ``==  !=  <  <=  >  >=`` (both sides numbers, or both strings), ``in`` and ``not_in`` (a list),
``matches`` and ``not_matches`` (a regular expression, on strings), ``exists`` and ``length``. Several of them must all
hold. Where a value to compare with is expected, ``{path: other}`` is the value at another path.
`connection_exporter.config.evaluation` evaluates them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BeforeValidator

from connection_exporter.config.patterns import CompiledPattern

Path = tuple[str | int, ...]
"""The steps from the root to a value: keys of objects, and positions in lists. The root's path is empty."""

COMPARISONS: Final = (
    *("==", "!=", "<", "<=", ">", ">=", "in", "not_in", "matches", "not_matches", "exists", "length", "path"),
)

_ORDERINGS: Final = ("<", "<=", ">", ">=")
_WANTED: Final = {
    **dict.fromkeys(_ORDERINGS, "a number or a string"),
    **dict.fromkeys(("in", "not_in"), "a list, such as [ok, degraded]"),
    **dict.fromkeys(("matches", "not_matches"), "a regular expression"),
    "exists": "true or false",
}
_ROOTS: Final = ("", "$", ".")
_STEP: Final = (
    r"""\.(?P<name>[^.\[\]"']+)|\.?\[(?P<index>-?\d{1,9})\]"""
    r"""|\.?\[(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\]"""
)
_EXAMPLE: Final = "write it as in data.items[0].state"


@dataclass(frozen=True, slots=True)
class OtherPath:
    """An operand: the value at another path of the same document."""

    written: str
    path: Path


Scalar = None | bool | int | float | str
Operand = Scalar | tuple[Scalar, ...] | CompiledPattern | OtherPath


class Condition(NamedTuple):
    """What must be true of the value at ``path``, or of its length; ``written`` is the path as in the config."""

    written: str
    path: Path
    comparison: str
    operand: Operand
    of_length: bool = False


def parse_conditions(given: object) -> tuple[Condition, ...]:
    """Read a mapping of paths to values or comparisons. Raises ValueError, whose text says what to write."""
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


def _conditions(written: str, value: object, *, of_length: bool = False) -> Iterator[Condition]:
    path = parse_path(written)
    comparisons = value if isinstance(value, Mapping) else {"==": value}
    if not comparisons:
        raise ValueError(f"{written}: a comparison is missing, such as {{'>=': 5}}")
    for name, operand in comparisons.items():
        if name == "length" and not of_length:
            yield from _conditions(written, operand, of_length=True)
        elif name == "path":  # {path: other} alone means that both values are equal
            yield Condition(written, path, "==", _other(written, comparisons["path"]), of_length)
        else:
            parsed = _operand(written, str(name), operand)
            if of_length and not _can_be_a_length(parsed):
                raise ValueError(
                    f"{written}: a length is compared with a number, as in {{length: {{'>': 3}}}}"
                )
            yield Condition(written, path, str(name), parsed, of_length)


def parse_path(written: str) -> Path:
    """Read a path; ``$`` and ``.`` are the root, and may begin any path. Raises ValueError."""
    if written in _ROOTS:
        return ()
    rest = written.removeprefix("$")
    if rest[0] not in ".[":
        if rest != written:
            raise ValueError(f'{written}: a name that begins with $ is written as in ["$ref"]')
        rest = f".{rest}"
    steps: list[str | int] = []
    at = 0
    while at < len(rest):
        step = re.compile(_STEP).match(rest, at)
        if step is None:
            raise ValueError(f"{written}: not a path: {_EXAMPLE}")
        if step["index"] is not None:
            steps.append(int(step["index"]))
        else:
            steps.append(step["name"] or re.sub(r"\\(.)", r"\1", step["quoted"][1:-1]))
        at = step.end()
    return tuple(steps)


def _operand(written: str, comparison: str, value: object) -> Operand:
    if comparison in ("==", "!=", *_ORDERINGS) and isinstance(value, Mapping) and value.keys() == {"path"}:
        return _other(written, value["path"])
    match comparison, value:
        case "==" | "!=", _:
            return _scalar(written, value)
        case "<" | "<=" | ">" | ">=", int() | float() | str() if not isinstance(value, bool):
            return value
        case "in" | "not_in", [_, *_]:
            return tuple(_scalar(written, item) for item in value)
        case "matches" | "not_matches", str():
            return _pattern(written, value)
        case "exists", bool():
            return value
    if comparison in _WANTED:
        raise ValueError(f"{written}: {comparison} needs {_WANTED[comparison]}")
    known = ", ".join(COMPARISONS)
    raise ValueError(f"{written}: unknown comparison {comparison!r}; known: {known}")


def _pattern(written: str, source: str) -> CompiledPattern:
    try:
        return CompiledPattern(source)
    except ValueError as error:
        raise ValueError(f"{written}: {error}") from None


def _other(written: str, path: object) -> OtherPath:
    if not isinstance(path, str):
        raise ValueError(f"{written}: path needs another path, such as {{path: data.wanted}}")
    return OtherPath(path, parse_path(path))


def _scalar(written: str, value: object) -> Scalar:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{written}: only strings, numbers, true, false and null can be compared with")


def _can_be_a_length(operand: object) -> bool:
    if isinstance(operand, tuple):
        return all(_can_be_a_length(item) for item in operand)
    return isinstance(operand, int | float | OtherPath) and not isinstance(operand, bool)
