"""Parses and formats durations such as 500ms, 30s, 5m and 1h30m, which always have a unit."""

import re
from typing import Final

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER: Final = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_PART: Final = re.compile(rf"({_NUMBER})(ms|s|m|h|d)")
_WHOLE: Final = re.compile(rf"(?:{_PART.pattern})+")
DURATION_PATTERN: Final = rf"^(?:{_PART.pattern})+$"
"""The durations that are accepted, for a JSON Schema."""

_LONGEST: Final = 366 * 86400.0
_LIKELY_MILLISECONDS: Final = 100
"""From here on, a number without a unit is as likely to be in milliseconds, as other tools have it."""

_TOO_LONG: Final = "a duration is at most 366d"
_WANTED: Final = "expected a duration such as 500ms, 30s or 5m"


def parse_duration(text: object) -> float:
    """Return ``text`` in seconds. Raises ValueError, whose text says what to write."""
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(_WANTED)
    written = str(text).strip()
    if re.fullmatch(_NUMBER, written):
        if float(written) == 0:  # zero is the same in each unit; the field has a limit
            return 0.0
        if float(written) <= _LONGEST:
            or_less = f" or {written}ms for milliseconds" if float(written) >= _LIKELY_MILLISECONDS else ""
            raise ValueError(f"a duration needs a unit: write {written}s for seconds{or_less}")
        raise ValueError(_TOO_LONG)
    if not _WHOLE.fullmatch(written):
        raise ValueError(_WANTED)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(written))
    if seconds > _LONGEST:
        raise ValueError(_TOO_LONG)
    return seconds


def format_duration(seconds: float) -> str:
    """Return ``seconds`` as one would write it: 0.5 is 500ms, 90 is 1m30s."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    parts = []
    for unit in ("d", "h", "m"):
        count, seconds = divmod(seconds, _UNITS[unit])
        if count:
            parts.append(f"{count:g}{unit}")
    if seconds or not parts:
        parts.append(f"{round(seconds, 3):g}s")
    return "".join(parts)
