"""Reads what a config says about statuses: 200, 2xx, 200-299, "<300", or a mapping of comparisons. Does no I/O."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import eq, ge, gt, le, lt, ne
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

FIRST: Final = 100
LAST: Final = 999
"""A status has three digits. RFC 9110 defines those up to 599, but servers send others, such as 999."""

_DEFINED: Final = frozenset((101, *range(200, 600)))
"""The statuses that end a response; others from 100 to 199 are interim."""

_COMPARISONS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "==": eq,
    "!=": ne,
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
}
_CLASS: Final = r"(?i)([1-9])xx"
_RANGE: Final = r"(?a)([1-9]\d\d)(?:\s*-\s*([1-9]\d\d))?"
_COMPARED: Final = r"(?a)([<>]=?|[!=]=)\s*([1-9]\d\d)"
_SCHEMA: Final = r"^([1-9][xX][xX]|[1-9]\d\d(\s*-\s*[1-9]\d\d)?|([<>]=?|[!=]=)\s*[1-9]\d\d)$"
_WANTED: Final = (
    "expected a status such as 200, a class such as 2xx, a range such as 200-299, "
    "or a comparison such as '<300'"
)


def _as_list(value: object) -> object:
    if value == []:
        raise ValueError(_WANTED)
    return value if isinstance(value, list) else [value]


def _check(value: object) -> object:
    if isinstance(value, Mapping):  # a number from a variable is text
        value = {name: int(other) if str(other).isdecimal() else other for name, other in value.items()}
    if isinstance(value, bool) or not isinstance(value, int | str | Mapping) or not matching([value]):
        raise ValueError(_WANTED)
    return value


StatusPattern = Annotated[
    int | str | dict[str, int],
    BeforeValidator(
        _check,
        json_schema_input_type=Annotated[int, Field(ge=FIRST, le=LAST)]
        | Annotated[str, Field(pattern=_SCHEMA)]
        | dict[Literal["==", "!=", "<", "<=", ">", ">="], int],
    ),
]
StatusPatterns = Annotated[
    list[StatusPattern],
    BeforeValidator(_as_list, json_schema_input_type=list[StatusPattern] | StatusPattern),
]
"""Statuses of which any is good, as written; `matching` reads them."""


def matching(patterns: Sequence[int | str | Mapping[str, int]]) -> frozenset[int]:
    """Return every status that one of the patterns allows. A pattern that cannot be read allows none."""
    return _matching(tuple(tuple(p.items()) if isinstance(p, Mapping) else p for p in patterns))


def described(patterns: Sequence[int | str | Mapping[str, int]]) -> str:
    """Return the patterns for a message."""
    return ", ".join(
        " and ".join(f"{name} {status}" for name, status in pattern.items())
        if isinstance(pattern, Mapping)
        else str(pattern)
        for pattern in patterns
    )


def undefined(patterns: Sequence[int | str | Mapping[str, int]]) -> str:
    """Return, for a message, the patterns that allow no status which HTTP defines."""
    return described([pattern for pattern in patterns if not matching([pattern]) & _DEFINED])


@lru_cache(maxsize=64, typed=True)
def _matching(patterns: tuple[int | str | tuple[tuple[str, int], ...], ...]) -> frozenset[int]:
    """Return one set for all services with equal patterns: that of the default takes 8 KiB."""
    written = (dict(pattern) if isinstance(pattern, tuple) else pattern for pattern in patterns)
    return frozenset(status for pattern in written for status in _allowed(pattern))


def _allowed(pattern: int | str | Mapping[str, int]) -> Iterable[int]:
    if isinstance(pattern, Mapping):
        return _compared(pattern)
    text = str(pattern).strip()
    if found := re.fullmatch(_CLASS, text):
        return range(int(found[1]) * 100, int(found[1]) * 100 + 100)
    if found := re.fullmatch(_RANGE, text):
        return range(int(found[1]), int(found[2] or found[1]) + 1)
    if found := re.fullmatch(_COMPARED, text):
        return _compared({found[1]: int(found[2])})
    return ()


def _compared(comparisons: Mapping[str, int]) -> list[int]:
    if not comparisons or any(name not in _COMPARISONS for name in comparisons):
        return []
    if any(type(status) is not int for status in comparisons.values()):
        return []
    tests = [(_COMPARISONS[name], other) for name, other in comparisons.items()]
    return [status for status in range(FIRST, LAST + 1) if all(test(status, other) for test, other in tests)]
