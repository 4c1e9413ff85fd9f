"""Hides the secrets of one service in whatever that service sends back.

A server may echo a secret whole or in part, and in another encoding. So a text is compared with the secrets as it
is and after undoing percent, backslash and HTML escapes, to a depth of three; and each secret is also known in
base64 (at each of the three alignments), in base32, in hex and in other spellings. Letter case does not matter. Eight
consecutive characters of a secret are enough to be hidden, so a secret that was cut does not leave its first half.
"""

import re
from base64 import b32encode, b64encode
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from pydantic import BaseModel

from connection_exporter.config.escapes import undone, views
from connection_exporter.config.secret import IssuedSecrets, SecretFile, leaves
from connection_exporter.config.secret_parts import Secret, secrets_of

REDACTED: Final = "[redacted]"

SHORTEST: Final = 4
"""Characters. A shorter secret is hidden only as a whole word: hiding each `a` would leave nothing to read."""

_RUN: Final = 8
_RUN_OF_CONTENT: Final = 24
"""Characters in a row that give a secret away: of a credential, and of a body or message that contains other things."""
_SEED: Final = 4
_LONGEST: Final = 64 * 1024
"""Characters of one secret that are known here. Only a body or a message can be longer."""
_SEEDS_ALIKE: Final = 8
_CACHED: Final = 16
_LONGEST_CACHED: Final = 200
"""Texts, and characters of each, whose result is kept: most details are the same at each probe. A text of 40 characters
takes 0.2 us then, and otherwise 12."""

_UNDO_URLSAFE: Final = str.maketrans("-_", "+/")
_CUT: Final = re.compile(r"…|\.\.\.|\Z")
_CUTS: Final = 20
_AFTER_CUT: Final = "\"'`)]}.… "


class _Needle(NamedTuple):
    """A spelling of a secret, folded; ``need`` of its characters in a row are hidden."""

    text: str
    need: int


class Redactor:
    """Hides the secrets of one service. They come from its config model, so no kind can forget one."""

    __slots__ = ("_index", "_known", "_learned", "_model", "_read")

    def __init__(self, model: BaseModel) -> None:
        self._model = model
        self._learned = tuple(
            value for _, value in leaves(model) if isinstance(value, SecretFile | IssuedSecrets)
        )
        self._read: tuple[tuple[str, ...], ...] = ()
        self._index: _Index | None = None
        self._known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """Return ``text`` with every secret replaced. Takes time in proportion to the text: cut it before."""
        if self._index is None or (self._learned and self._has_changed()):
            self._read = tuple(learned.values for learned in self._learned)
            self._index, self._known = _index_of(tuple(secrets_of(self._model))), {}
        if self._index.is_empty:  # as that of most services; to keep texts would take 0.4 KiB of each
            return text
        hidden = self._known.get(text)
        if hidden is None:
            hidden = self._index.hide(text)
            if len(text) <= _LONGEST_CACHED and not text.isdecimal():  # a number would soon displace a text
                if len(self._known) >= _CACHED:
                    self._known.clear()
                self._known[text] = hidden
        return hidden

    def _has_changed(self) -> bool:
        """Return whether a file has other content, or a server has issued a secret. Most services have neither."""
        return tuple(learned.values for learned in self._learned) != self._read


class _Index:
    """All spellings of some secrets, found by groups of four of their characters."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._seeds: dict[str, tuple[tuple[_Needle, int], ...]] = {}
        self._short: list[str] = []  # those of which the first characters are hidden at the end of a cut text
        alone: set[str] = set()
        seen: set[_Needle] = set()
        for secret in secrets:
            run = _RUN_OF_CONTENT if secret.content else _RUN
            if len(secret.text) < SHORTEST or secret.alone:
                if re.search(r"\w", secret.text):
                    alone.add(re.escape(_fold(secret.text)))
                continue
            for spelling in _spellings(secret.text[:_LONGEST]):
                folded = _fold(spelling)
                needle = _Needle(folded, min(len(folded), run))
                if len(folded) >= SHORTEST and needle not in seen:
                    seen.add(needle)
                    self._add(needle)
        self._alone = re.compile(rf"(?<!\w)(?:{'|'.join(sorted(alone))})(?!\w)") if alone else None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to hide."""
        return not self._seeds and self._alone is None

    def _add(self, needle: _Needle) -> None:
        # every run of `need` characters contains one of the groups that begin at each multiple of the stride
        stride = needle.need - _SEED + 1
        for at in range(0, len(needle.text) - _SEED + 1, stride):
            seed = needle.text[at : at + _SEED]
            alike = self._seeds.get(seed, ())
            if len(alike) < _SEEDS_ALIKE:
                self._seeds[seed] = (*alike, (needle, at))
        if needle.need <= _RUN:
            self._short.append(needle.text)

    def hide(self, text: str) -> str:
        """Return ``text`` with every run of characters replaced that gives a secret away."""
        if text.isdecimal():  # digits have neither case nor escapes: 4 us instead of 6
            return _replaced(text, list(self._found(text)))
        spans = [
            view.original(begin, end) for view in views(text) for begin, end in self._found(_fold(view.text))
        ]
        return _replaced(text, spans)

    def _found(self, folded: str) -> Iterator[tuple[int, int]]:
        """Yield what is to be hidden in a folded text: from where, and up to where."""
        seeds, furthest = self._seeds, 0
        for at in [i for i in range(len(folded) - _SEED + 1) if folded[i : i + _SEED] in seeds]:
            if at < furthest - _SEED:
                continue  # amid what is hidden already; another secret may begin in its last characters
            for needle, place in seeds[folded[at : at + _SEED]]:
                begin, end = _extended(folded, at, needle.text, place)
                if end - begin >= needle.need:
                    yield begin, end
                    furthest = max(furthest, end)
        for cut in islice(_CUT.finditer(folded), _CUTS):
            end = len(folded[: cut.start()].rstrip(_AFTER_CUT))
            for begin in range(max(end - _RUN + 1, 0), end - _SEED + 1):
                part = folded[begin:end]
                # each of them begins with a seed; to ask all of them took more than all the rest
                if part[:_SEED] in seeds and any(text.startswith(part) for text in self._short):
                    yield begin, end
                    break
        if self._alone is not None:
            yield from (found.span() for found in self._alone.finditer(folded))


_INDEXES: Final[WeakValueDictionary[tuple[Secret, ...], _Index]] = WeakValueDictionary()


def _index_of(secrets: tuple[Secret, ...]) -> _Index:
    """Return the index of some secrets. Services with equal ones share it: that of a password takes 20 KiB."""
    index = _INDEXES.get(secrets)
    if index is None:
        index = _INDEXES[secrets] = _Index(secrets)
    return index


def _extended(text: str, at: int, needle: str, place: int) -> tuple[int, int]:
    """Return the longest run around ``text[at:]`` that is the same as around ``needle[place:]``."""
    begin, end = at, at + _SEED
    back, forth = place - 1, place + _SEED
    while begin > 0 and back >= 0 and text[begin - 1] == needle[back]:
        begin, back = begin - 1, back - 1
    while end < len(text) and forth < len(needle) and text[end] == needle[forth]:
        end, forth = end + 1, forth + 1
    return begin, end


def _replaced(text: str, spans: list[tuple[int, int]]) -> str:
    parts: list[str] = []
    at = 0
    for begin, end in sorted(spans):
        if begin > at or not parts:
            parts += [text[at:begin], REDACTED]
        at = max(at, end)
    return "".join(parts) + text[at:] if parts else text


def _fold(text: str) -> str:
    """Return ``text`` for comparison, of the same length: without case, and base64 without its URL-safe alphabet."""
    lower = text.lower()
    if len(lower) != len(text):  # a few letters have a lower case of two characters
        lower = "".join(c if len(c.lower()) != 1 else c.lower() for c in text)
    return lower.translate(_UNDO_URLSAFE)


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret, and what it may become in transit that undoing escapes does not undo."""
    raw = secret.encode("utf-8", "replace")
    forms = {secret, secret.strip(), raw.decode("latin-1"), secret.upper(), secret.lower(), secret.casefold()}
    if not secret.isprintable():
        forms.add("".join(filter(str.isprintable, secret)))
    if (once := undone(secret)) != secret:
        forms |= {once, undone(once)}
    if " " in secret:
        forms |= {form.replace(" ", "+") for form in forms}  # forms (application/x-www-form-urlencoded)
    for quote in "\"'":
        if quote in secret:
            forms |= {form.replace(quote, quote * 2) for form in forms}  # SQL, CSV
    yield from forms
    if len(raw) >= SHORTEST:
        yield from (raw.hex(), raw.hex(" "), raw.hex(":"))  # in dumps, such as <Buffer 68 75> of Node.js
        yield b32encode(raw).decode().rstrip("=")
        for before in range(3):
            encoded = b64encode(b"\0" * before + raw).decode()
            # leave out the characters that also depend on the bytes before and after
            yield encoded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
