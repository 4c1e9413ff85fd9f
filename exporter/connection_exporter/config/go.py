"""Owns how Go programs read YAML, where that differs from ours: for files in the schema of exporter-toolkit."""

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, model_validator

from connection_exporter.config.durations import parse_duration
from connection_exporter.config.strict import Strict

_INTEGER: Final = re.compile("[-+]?[0-9]{1,18}")
_SMALL: Final = re.compile("([0-9]{1,12}(?:[.][0-9]{1,12})?)(ns|us|µs|μs)")
_SMALL_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6}
_BOOLEANS: Final = {
    **dict.fromkeys(("y", "yes", "on", "true"), True),
    **dict.fromkeys(("n", "no", "off", "false"), False),
}
"""YAML 1.1's, which Go's parser knows."""


def _boolean(value: object) -> object:
    return _BOOLEANS.get(value.lower(), value) if isinstance(value, str) else value


def _integer(value: object) -> object:
    return int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value


def _pause(value: object) -> float:
    """Return a duration in seconds. A number has no unit in Go: it is nanoseconds."""
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value) / 1e9
    if isinstance(value, str) and (found := _SMALL.fullmatch(value)):
        return float(found[1]) * _SMALL_UNITS[found[2]]
    return parse_duration(value)


Boolean = Annotated[bool, BeforeValidator(_boolean)]
Integer = Annotated[int, BeforeValidator(_integer)]
Pause = Annotated[float, BeforeValidator(_pause)]


class Section(Strict):
    """A part of the file. A key without a value, or with an empty one, counts as absent."""

    NULL_IS_ABSENT = True

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {key: value for key, value in given.items() if value is not None and value != ""}
