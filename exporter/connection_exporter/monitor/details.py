"""Makes what a check reports fit to be shown: JSON, bounded, printable, and with the service's secrets hidden."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from math import isfinite
from types import MappingProxyType
from typing import Any, Final

from connection_exporter.kind import Json

Hide = Callable[[str], str]
"""Returns a text with every secret replaced; never raises."""

LONGEST_MESSAGE: Final = 1000
"""Characters. A server can answer an error of megabytes, and each message is kept and sent many times."""

MAX_KEYS: Final = 100
MAX_DEPTH: Final = 6
MAX_TEXT: Final = 8 * 1024
"""Keys of all mappings and items of all lists together, levels, and characters of all texts together, of one answer."""

NOTHING_SHOWN: Final[Mapping[str, Json]] = MappingProxyType({})

_NEW: Final = object()
_LONGEST_KEY: Final = 100
_SMALLEST, _LARGEST = -(2**63), 2**64
_HIDDEN_FROM: Final = 100_000
"""A smaller number is not compared with the secrets: a measurement would often equal a short PIN."""

_MARGIN: Final = 100
"""Characters that are looked at beyond a limit: enough for the longest beginning of a secret that `Hide` may miss,
seven characters of up to twelve each, as in JSON."""


class BadDetail(ValueError):
    """A detail that is not JSON; the message names its key and the problem."""


def presentable(text: object, hide: Hide = str, *, limit: int = LONGEST_MESSAGE) -> str:
    """Return a message on one line, of at most ``limit`` characters, with secrets and control characters replaced.

    Secrets are hidden before the text is cut, so that no half of one remains, and after it is cut to a window, so
    that the work is bounded.
    """
    if not isinstance(text, str):
        text = f"(a message of type {type(text).__name__})"
    if not text:
        return ""
    window = hide(text[: limit + _MARGIN])
    if len(text) > limit + _MARGIN:
        window = window[: max(len(window) - _MARGIN, 0)][:limit] + "…"
    elif len(window) > limit:
        window = f"{window[:limit]}…"
    return printable(window)


def printable(text: str) -> str:
    """Return a text on one line, with a mark for each control character, also those of writing direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() and c < "\x7f" else "\ufffd" for c in text)


def clean(
    details: Mapping[str, Any],
    hide: Hide,
    *,
    keep: AbstractSet[str],
    shown: Mapping[str, Json] = NOTHING_SHOWN,
) -> dict[str, Json]:
    """Return the details of an answer as they may be shown. Raises `BadDetail`.

    The keys in ``keep`` are those of the kind's metrics, which are never renamed or left out. ``shown`` are the details
    that are shown now: what is equal needs no second look. Details that may be shown as they are are returned
    themselves, if they are flat.
    """
    if type(details) is dict and _is_clean(details, hide, keep, shown):
        return details
    return _Cleaner(hide).mapping(details, (), keep)


def _is_clean(
    details: dict[str, Any], hide: Hide, keep: AbstractSet[str], shown: Mapping[str, Json] = NOTHING_SHOWN
) -> bool:
    """Return whether `_Cleaner` would change nothing. Most details pass, in a quarter of the time that it takes.

    Most values are the objects that are shown already, and need no second look: of 9 details of a process, one is new.
    """
    if len(details) > MAX_KEYS:
        return False
    has_new_text = False
    for key, value in details.items():
        known = shown.get(key, _NEW)
        # Redis makes new texts at each check: to compare them takes 7 us, to look at them 20.
        if known is value or (type(value) is str and known == value):
            continue
        kind = type(value)
        if key not in shown:
            if key not in keep and (type(key) is not str or not _is_clean_text(key, _LONGEST_KEY, hide)):
                return False
            has_new_text = True
        if kind is float:
            good = isfinite(value) and (value < _HIDDEN_FROM or key in keep)
        elif kind is int:
            good = 0 <= value < _HIDDEN_FROM or _is_clean_integer(value, hide)
        elif kind is str:
            good = _is_clean_text(value, LONGEST_MESSAGE, hide)
            has_new_text = True
        else:
            good = kind is bool or value is None
        if not good:
            return False
    return not has_new_text or _text_of(details, keep) < MAX_TEXT


def _text_of(details: dict[str, Any], keep: AbstractSet[str]) -> int:
    """Return the characters of all texts, and of all keys but those in ``keep``."""
    return sum(len(key) for key in details if key not in keep) + sum(
        len(value) for value in details.values() if type(value) is str
    )


def _is_clean_text(text: str, limit: int, hide: Hide) -> bool:
    return len(text) <= limit and hide(text) == text and text.isprintable()


def _is_clean_integer(number: int, hide: Hide) -> bool:
    if number < _HIDDEN_FROM:
        return number >= _SMALLEST
    return number < _LARGEST and hide(digits := str(number)) == digits


class _Cleaner:
    """Counts what one answer has used of its limits."""

    def __init__(self, hide: Hide) -> None:
        self._hide = hide
        self._keys = MAX_KEYS
        self._text = MAX_TEXT

    def mapping(
        self, given: Any, path: tuple[str, ...], keep: AbstractSet[str] = frozenset()
    ) -> dict[str, Json]:
        if not isinstance(given, Mapping):
            raise BadDetail(f"details are not a mapping but of type {type(given).__name__}")
        shown: dict[str, Json] = {}
        for key, value in given.items():
            if type(value) is float and key in keep and isfinite(value):  # most of what there is
                shown[key] = value
                continue
            if not isinstance(key, str):
                raise BadDetail(f"{self._named(path)} has a key of type {type(key).__name__}, not text")
            kept = key in keep
            if not kept and (self._keys <= 0 or self._text <= 0):
                continue
            self._keys -= 1
            name = key if kept else self._cut(key, _LONGEST_KEY)
            shown[name] = self._value(value, (*path, key))
        return shown

    def _value(self, value: Any, path: tuple[str, ...]) -> Json:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._cut(str(value), LONGEST_MESSAGE)
        if isinstance(value, int | float):
            return self._number(value, path)
        if isinstance(value, Mapping | list | tuple):
            if len(path) >= MAX_DEPTH:
                raise BadDetail(f"{self._named(path[:1])} is nested more than {MAX_DEPTH} levels deep")
            if isinstance(value, Mapping):
                return self.mapping(value, path)
            items: list[Json] = []
            for item in value[: max(self._keys, 0)]:
                self._keys -= 1
                items.append(self._value(item, (*path, "[]")))
            return items
        raise BadDetail(f"{self._named(path)} is not JSON but of type {type(value).__name__}")

    def _number(self, value: float, path: tuple[str, ...]) -> Json:
        if isinstance(value, float):
            if not isfinite(value):
                raise BadDetail(f"{self._named(path)} is not a finite number")
            value = float(value)
        elif not _SMALLEST <= value < _LARGEST:
            raise BadDetail(f"{self._named(path)} is an integer of more than 64 bits")
        else:
            value = int(value)
        if (
            value >= _HIDDEN_FROM
            and value == int(value)
            and not any(map(str.isdigit, self._hide(str(int(value)))))
        ):
            return None
        return value

    def _cut(self, text: str, limit: int) -> str:
        limit = min(limit, max(self._text, 0))
        shown = self._hide(text) if len(text) <= limit else ""
        if not shown or not shown.isprintable() or len(shown) > limit:
            shown = presentable(text, self._hide, limit=limit)
        self._text -= len(shown)
        return shown

    def _named(self, path: tuple[str, ...]) -> str:
        name = ".".join(path).replace(".[]", "[]")
        return f"detail {presentable(name, self._hide, limit=_LONGEST_KEY)!r}" if name else "details"
