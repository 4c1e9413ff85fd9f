"""Evaluates conditions on a JSON document: which ones do not hold, and what is there instead. Does no I/O.

Kinds share it: http for the body of a response, websocket for a message. The time is linear in the size of the
document; `work_per_byte` says how costly the conditions are, so that a kind can evaluate them in a thread.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import ge, gt, le, lt
from typing import Any, Final, NoReturn

from connection_exporter.config.conditions import Condition, OtherPath, Path
from connection_exporter.config.patterns import CompiledPattern

JSON_WORK: Final = 16
"""Units of work for each byte of JSON: 64 KiB of numbers, the most expensive input, take 4 ms. A unit is what an
instruction of a compiled pattern may take for each byte, at most 7 ns."""

_EXCERPT: Final = 100
_LOOKED_AT: Final = 1024
_ABSENT: Final = object()
_ORDERINGS: Final[Mapping[str, Callable[..., bool]]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_NEGATED: Final = {"!=": "==", "not_in": "in", "not_matches": "matches"}


def load_json(text: str) -> Any:
    """Parse a JSON document (RFC 8259), whose integers are exact. Raises ValueError, whatever makes it invalid.

    A byte order mark is ignored. Integers of more than 4,300 digits are invalid, and so is nesting of more than
    about 1,000 levels.
    """
    try:
        return _DECODER.decode(text.removeprefix("\ufeff"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def violated(conditions: Sequence[Condition], document: Any) -> Iterator[str]:
    """Yield a message for each condition that does not hold: the path, what is there, and what was expected."""
    for condition in conditions:
        value = _at(document, condition.path)
        operand = condition.operand
        if isinstance(operand, OtherPath):
            operand = _at(document, operand.path)
        compared = _length(value) if condition.of_length else value
        if not _holds(condition.comparison, compared, operand):
            yield f"json {_found(condition, value, compared)}, expected {_description(condition, operand)}"


def work_per_byte(conditions: Sequence[Condition]) -> int:
    """Return the units of work that parsing and evaluating may take for each byte of a document."""
    patterns = (c.operand.size for c in conditions if isinstance(c.operand, CompiledPattern))
    return JSON_WORK + sum(patterns) if conditions else 0


def excerpt(text: str) -> str:
    """Return ``text`` or its beginning, for a message."""
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)
"""`json.loads` would make one for each document, in 1.7 us: longer than a short document takes."""


def _at(document: Any, path: Path) -> Any:
    value = document
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step, _ABSENT)
        elif isinstance(step, int) and isinstance(value, list) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return _ABSENT
    return value


def _length(value: Any) -> Any:
    return len(value) if isinstance(value, list | dict | str) else _ABSENT


def _holds(comparison: str, value: Any, operand: Any) -> bool:
    """Compare. A value that does not exist, on either side, satisfies ``exists: false`` alone."""
    if comparison == "exists":
        return (value is not _ABSENT) is operand
    if value is _ABSENT or operand is _ABSENT:
        return False
    if comparison in _NEGATED:
        return not _holds(_NEGATED[comparison], value, operand)
    if comparison == "in":
        return any(_equal(value, item) for item in operand)
    if comparison == "matches":
        return isinstance(value, str) and operand.found_in(value.encode("utf-8", "replace"))
    if comparison == "==":
        return _equal(value, operand)
    comparable = (
        isinstance(value, str) if isinstance(operand, str) else _is_number(value) and _is_number(operand)
    )
    return comparable and _ORDERINGS[comparison](value, operand)


def _equal(value: Any, other: Any) -> bool:
    """Compare as JSON does: 1 equals 1.0, but neither true nor "1". Does not recurse."""
    pairs = [(value, other)]
    while pairs:
        one, two = pairs.pop()
        if _is_number(one) and _is_number(two):
            same = one == two
        elif type(one) is not type(two):
            same = False
        elif isinstance(one, dict):
            same = one.keys() == two.keys()
            pairs.extend((one[key], two[key]) for key in one if same)
        elif isinstance(one, list):
            same = len(one) == len(two)
            pairs.extend(zip(one, two, strict=False))
        else:
            same = one == two
        if not same:
            return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _found(condition: Condition, value: Any, compared: Any) -> str:
    """Say what is at the path of a condition."""
    if value is _ABSENT:
        return f"{condition.written} is missing"
    if compared is _ABSENT:
        return f"{condition.written} is {_named(value)}, which has no length"
    return f"{'length of ' if condition.of_length else ''}{condition.written} is {_named(compared)}"


def _named(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return excerpt(_as_json(value[:_LOOKED_AT] if isinstance(value, str) else value))


def _description(condition: Condition, operand: Any) -> str:
    """Describe what was expected; ``operand`` is the value with which the comparison was made."""
    comparison = condition.comparison
    if comparison == "exists":
        return "it to exist" if operand else "it not to exist"
    negation = "not " if comparison in _NEGATED else ""
    if isinstance(operand, CompiledPattern):
        return f"{'no' if negation else 'a'} match for {operand.source!r}"
    if isinstance(operand, tuple):
        return f"{'none' if negation else 'one'} of " + ", ".join(_as_json(item) for item in operand)
    sign = "" if comparison == "==" else f"{comparison} "
    if isinstance(condition.operand, OtherPath):
        found = "missing" if operand is _ABSENT else _named(operand)
        return f"{sign}{condition.operand.written} ({found})"
    return f"{sign}{_as_json(operand)}"


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
