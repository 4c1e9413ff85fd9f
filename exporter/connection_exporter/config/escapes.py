"""Undoes the escapes that a text may contain: those of percent, backslash and HTML, to a depth of three."""

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

_DEPTH: Final = 3
_ESCAPES: Final = {
    "n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "e": "\x1b",
}  # fmt: skip
_UNDO: Final = (
    r"%([0-9A-Fa-f]{2})"
    r"|\\(?:u([dD][89abAB][0-9A-Fa-f]{2})\\u([dD][c-fC-F][0-9A-Fa-f]{2})"
    r"|(?:u|U[0-9A-Fa-f]{4})([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|([0-3][0-7]{2})|([^\n]))"
    r"|&(#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});"
)
_CONTROL: Final = r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+"


class View(NamedTuple):
    """A text after undoing escapes; ``begins`` and ``ends`` lead from each character to the original text."""

    text: str
    begins: list[int] | None
    ends: list[int] | None

    def original(self, begin: int, end: int) -> tuple[int, int]:
        """Return where a part of this text comes from."""
        if self.begins is None or self.ends is None:
            return begin, end
        return self.begins[begin], self.ends[end - 1]


def undone(text: str) -> str:
    """Return ``text`` after undoing its escapes once."""
    return re.sub(_UNDO, _undone, text)


def views(text: str) -> Iterator[View]:
    """Yield the text as it is, and after undoing escapes."""
    view = View(text, None, None)
    yield view
    if not text.isprintable() and (plain := _decoded(view, re.compile(_CONTROL), lambda _: "")) is not None:
        yield plain
    for _ in range(_DEPTH):
        decoded = _decoded(view, re.compile(_UNDO), _undone)
        if decoded is None or decoded.text == view.text:
            return
        view = decoded
        yield view


def _decoded(view: View, pattern: re.Pattern[str], undo: Callable[[re.Match[str]], str]) -> View | None:
    text, at = view.text, 0
    found = pattern.search(text)
    if found is None:
        return None
    old_begins = view.begins if view.begins is not None else range(len(text))
    old_ends = view.ends if view.ends is not None else range(1, len(text) + 1)
    parts: list[str] = []
    begins: list[int] = []
    ends: list[int] = []
    while found is not None:
        start, end = found.span()
        character = undo(found)
        parts += (text[at:start], character)
        begins += old_begins[at:start]
        ends += old_ends[at:start]
        if len(character) == 1:
            begins.append(old_begins[start])
            ends.append(old_ends[end - 1])
        else:
            begins += [old_begins[start]] * len(character)
            ends += [old_ends[end - 1]] * len(character)
        at = end
        found = pattern.search(text, at)
    return View("".join(parts) + text[at:], [*begins, *old_begins[at:]], [*ends, *old_ends[at:]])


def _undone(found: re.Match[str]) -> str:
    """Return the character that an escape represents."""
    kind = found.lastindex
    if kind in (1, 6):
        return chr(int(found[kind], 16))
    if kind == 3:  # JSON writes a character above U+FFFF as two surrogates
        return chr(0x10000 + ((int(found[2], 16) - 0xD800) << 10) + int(found[3], 16) - 0xDC00)
    if kind in (4, 5):
        code = int(found[0][2:].strip("{}"), 16)
        return chr(code) if code <= 0x10FFFF else found[0]
    if kind == 7:
        return chr(int(found[7], 8))
    if kind == 8:
        return _ESCAPES.get(found[8], found[8])
    name = found[9]
    if name[0] != "#":
        import html  # noqa: PLC0415 - 1.5 ms, for a table of all names

        return html.unescape(found[0])
    code = int(name.lstrip("#xX"), 16 if name[1] in "xX" else 10)  # html.unescape drops control characters
    return chr(code) if code <= 0x10FFFF else found[0]
