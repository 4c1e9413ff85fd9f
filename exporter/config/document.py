"""Owns YAML as we read it: strict, with a line for every key, and nothing in it that can surprise or explode.

Booleans are YAML 1.2's ``true`` and ``false`` alone, so that ``canary: off`` and a service named ``on``
mean what they say. A duplicate key is an error. Aliases are refused: nobody needs them here, and a few
lines of them can stand for gigabytes. Nesting is measured before anything recurses: libyaml's composer
may overflow the C stack at a hundred thousand brackets, and take the process with it.
"""

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import yaml

Path = tuple[str | int, ...]
Tree = None | bool | int | float | str | list["Tree"] | dict[str, "Tree"]

MAX_BYTES: Final = 8 * 1024 * 1024
"""Ten thousand services take about 2 MB."""

MAX_DEPTH: Final = 32
_TOO_DEEP: Final = f"nested more than {MAX_DEPTH} levels deep"

_ENOUGH: Final = 10
"""Of one sort of mistake: a file full of aliases needs no line for each."""

_BOOL: Final = re.compile(r"true|false")
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT: Final = re.compile(r"[-+]?[0-9]*\.[0-9]+(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+\.")
_NULL: Final = re.compile(r"null|~|")
_NOT_YAML: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TEXT: Final = "tag:yaml.org,2002:str"
_PLAIN: Final = "plain"


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong in a config: where, and what to do about it."""

    line: int | None
    path: Path
    text: str


@dataclass(slots=True)
class Document:
    """A parsed file: plain values, the line of each, and what is wrong with its YAML."""

    value: Tree = None
    lines: dict[Path, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def line_of(self, path: Path) -> int | None:
        """Return the line of ``path``, or of the nearest part above it that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def parse(text: str) -> Document:
    """Parse one YAML document. Never raises: mistakes are in the result, with their lines."""
    document = Document()
    if len(text) > MAX_BYTES:
        document.mistakes.append(Mistake(None, (), f"larger than {MAX_BYTES // 2**20} MiB"))
        return document
    try:
        document.mistakes.extend(_refused(text))
        root = None if document.mistakes else yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        document.mistakes.append(_syntax(error, text))
    except (yaml.YAMLError, UnicodeEncodeError):
        document.mistakes.append(_unprintable(text))
    else:
        if root is not None:
            document.value = _Builder(document).build(root, ())
    return document


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Composes nodes only: what a scalar means is decided below."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[object]]] = {}

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: Any) -> str:
        """Tell a plain scalar, whose meaning is open, from one that is quoted or tagged ``!!str``."""
        plain = kind is yaml.ScalarNode and implicit[0]
        return _PLAIN if plain else str(super().resolve(kind, value, implicit))


def _refused(text: str) -> list[Mistake]:
    """Find what we do not take although it is YAML. Goes through the events, and so never recurses."""
    found: list[Mistake] = []
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else None
        if getattr(event, "anchor", None) is not None:  # &name or *name
            told = (
                "YAML anchors (&name), aliases (*name) and merge keys (<<) are not supported: write the value "
                "out, or use `defaults`; a text that begins with & or * needs quotes"
            )
            found.append(Mistake(line, (), told))
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent):
            if event.tag not in (None, "!", _TEXT):
                told = (
                    "YAML tags (!name) are not supported: remove it; a text that begins with ! needs quotes"
                )
                found.append(Mistake(line, (), told))
            depth += isinstance(event, yaml.CollectionStartEvent)
            if depth > MAX_DEPTH:
                return [*found, Mistake(line, (), _TOO_DEEP)]
        if len(found) >= _ENOUGH:
            break
    return found


_HINTS: Final = {
    "\t": "indent with spaces, not with tabs",
    "@": "a text that begins with @ needs quotes",
    "`": "a text that begins with ` needs quotes",
    "%": "a text that begins with % needs quotes",
    ":": "a text with a colon and a space in it needs quotes",
}


def _syntax(error: yaml.MarkedYAMLError, text: str) -> Mistake:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "cannot be read"
    if "another document" in problem:
        return Mistake(
            mark.line + 1 if mark else None, (), "a second document (---) begins: a file holds one"
        )
    if "nesting depth" in problem:  # newer versions of libyaml have a limit of their own, far above ours
        return Mistake(mark.line + 1 if mark else None, (), _TOO_DEEP)
    lines = text.splitlines()
    if mark and mark.line < len(lines):
        hint = _HINTS.get(lines[mark.line][mark.column : mark.column + 1])
        problem += f" ({hint})" if hint else ""
    began = error.context_mark
    if began and mark and began.line != mark.line:
        problem += f", {error.context} that begins on line {began.line + 1}"
    return Mistake(mark.line + 1 if mark else None, (), f"not YAML: {problem}")


def _unprintable(text: str) -> Mistake:
    """Say where the character stands that YAML takes nowhere, not even in quotes."""
    found = _NOT_YAML.search(text)
    line = text.count("\n", 0, found.start()) + 1 if found else None
    code = f" U+{ord(found[0]):04X}" if found else ""
    return Mistake(line, (), f"not YAML: the control character{code} cannot stand in a text file: remove it")


class _Builder:
    """Turns nodes into plain values, noting lines and mistakes on the way."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def build(self, node: yaml.Node, path: Path) -> Tree:
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(n, (*path, i)) for i, n in enumerate(node.value)]
        return self._mapping(node, path)

    def _mapping(self, node: yaml.Node, path: Path) -> Tree:
        mapping: dict[str, Tree] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._mistake(line, path, "a key must be a plain word")
                continue
            key = str(key_node.value)
            if key == "<<":
                self._mistake(line, path, "YAML merge keys (<<) are not supported: use `defaults`")
                continue
            if key in mapping:
                first = self._document.lines[(*path, key)]
                self._mistake(line, (*path, key), f"stands twice (first on line {first}): remove one")
                continue
            self._document.lines[(*path, key)] = line
            mapping[key] = self.build(value_node, (*path, key))
        return mapping

    def _mistake(self, line: int, path: Path, text: str) -> None:
        self._document.mistakes.append(Mistake(line, path, text))


def _scalar(node: yaml.ScalarNode) -> Tree:
    text = str(node.value)
    if node.tag != _PLAIN:
        return text
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
