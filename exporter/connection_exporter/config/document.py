"""Parses YAML strictly: with a line for every key, and without features that surprise or use unbounded memory.

Booleans are YAML 1.2's ``true`` and ``false`` alone, so that ``canary: off`` and a service named ``on``
mean what they say. A duplicate key is an error. Aliases are refused, because a few
lines of them can expand to gigabytes. Nesting is measured before anything recurses: libyaml's composer
may overflow the C stack at a hundred thousand brackets, and take the process with it.
"""

import re
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path as FilePath
from typing import Any, ClassVar, Final, NamedTuple

import yaml

Path = tuple[str | int, ...]
Tree = None | bool | int | float | str | list["Tree"] | dict[str, "Tree"]

MAX_BYTES: Final = 8 * 1024 * 1024
"""Ten thousand services take about 2 MB."""

MAX_EXPANDED: Final = 10_000
"""Values in a file whose aliases are expanded: a few lines of them can mean gigabytes."""

MAX_DEPTH: Final = 32
_TOO_DEEP: Final = f"nested more than {MAX_DEPTH} levels deep"

_ENOUGH: Final = 10
"""Errors of one sort that are reported: a file full of aliases needs no line for each."""

_BOOL: Final = re.compile(r"true|false")
_INT: Final = re.compile(r"[-+]?[0-9]{1,1000}")  # Python converts no more than 4,300 digits
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NULL: Final = re.compile(r"null|~|")
_NOT_YAML: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TEXT: Final = "tag:yaml.org,2002:str"
_PLAIN: Final = "plain"


class Mistake(NamedTuple):
    """One error in a config: its place, and what to do about it."""

    line: int | None
    path: Path
    text: str
    source: str | None = None
    """The file, if it is not the one that the config was read from."""


@dataclass(slots=True, eq=False)
class Document:
    """A parsed file: plain values, the line of each, and what is wrong with its YAML."""

    value: Tree = None
    lines: dict[Path, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    sources: dict[str, FilePath] = field(default_factory=dict)
    """The files of the services that other files have brought."""

    def source_of(self, path: Path) -> str | None:
        """Return the file in which ``path`` is, if another one has brought it."""
        name = str(path[1]) if len(path) > 1 and path[0] == "services" else None
        return str(self.sources[name]) if name in self.sources else None

    def line_of(self, path: Path) -> int | None:
        """Return the line of ``path``, or of the nearest parent of it that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def mistake(self, path: Path, text: str) -> Mistake:
        """Return an error at ``path``, with its file and line."""
        return Mistake(self.line_of(path), path, text, self.source_of(path))

    def report(self, path: Path, text: str) -> None:
        """Add an error at ``path``."""
        self.mistakes.append(self.mistake(path, text))


def parse(text: str, *, as_go: bool = False) -> Document:
    """Parse one YAML document. Never raises: mistakes are in the result, with their lines.

    ``as_go`` reads it as exporter-toolkit does, for files that other programs read too: with anchors, aliases and merge
    keys, and with every scalar as text, since in Go the type of a field decides what a scalar means.
    """
    document = Document()
    if len(text) > MAX_BYTES:
        document.mistakes.append(Mistake(None, (), f"larger than {MAX_BYTES // 2**20} MiB"))
        return document
    try:
        document.mistakes.extend(_refused(text, anchors=as_go))
        root = None if document.mistakes else yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        document.mistakes.append(_syntax(error, text))
    except (yaml.YAMLError, UnicodeEncodeError):
        document.mistakes.append(_unprintable(text))
    else:
        if root is not None:
            document.value = _Builder(document, as_go=as_go).build(root, ())
    return document


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Composes nodes only: what a scalar means is decided below."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[object]]] = {}

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: Any) -> str:
        """Distinguish a plain scalar, which may be a number, from one that is quoted or tagged ``!!str``."""
        plain = kind is yaml.ScalarNode and implicit[0]
        return _PLAIN if plain else str(super().resolve(kind, value, implicit))


def _refused(text: str, *, anchors: bool) -> list[Mistake]:
    """Find valid YAML that is not supported here. Reads the stream of events, so it does not recurse."""
    found: list[Mistake] = []
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else None
        if not anchors and getattr(event, "anchor", None) is not None:  # &name or *name
            problem = (
                "YAML anchors (&name), aliases (*name) and merge keys (<<) are not supported: write the value "
                "out, or use `defaults`; a text that begins with & or * needs quotes"
            )
            found.append(Mistake(line, (), problem))
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent):
            if event.tag not in (None, "!", _TEXT):
                problem = "YAML tags (!name) are not supported: remove the tag; a text that begins with ! needs quotes"
                found.append(Mistake(line, (), problem))
            depth += isinstance(event, yaml.CollectionStartEvent)
            if depth > MAX_DEPTH:
                return [*found, Mistake(line, (), _TOO_DEEP)]
        if len(found) >= _ENOUGH:
            break
    return found


NO_SPACE: Final = "a space is missing after the colon: write `key: value`"
_KEY_AND_VALUE: Final = r"\s*(?:- )?[A-Za-z_][A-Za-z0-9_-]*:(?!//)[^\s:]"
_KEY_ALONE: Final = r"\s*(?:- )?[A-Za-z_][A-Za-z0-9_-]*"
_HINTS: Final = {
    "\t": "indent with spaces, not with tabs",
    "@": "a text that begins with @ needs quotes",
    "`": "a text that begins with ` needs quotes",
    "%": "a text that begins with % needs quotes",
    ">": "a text that begins with > needs quotes",
    "|": "a text that begins with | needs quotes",
    ":": "a text with a colon and a space in it needs quotes",
}


def _syntax(error: yaml.MarkedYAMLError, text: str) -> Mistake:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "cannot be read"
    if "another document" in problem:
        return Mistake(
            mark.line + 1 if mark else None,
            (),
            "a second document (---) begins here: a file can contain only one",
        )
    if "nesting depth" in problem:  # newer versions of libyaml have a limit of their own, far above ours
        return Mistake(mark.line + 1 if mark else None, (), _TOO_DEEP)
    lines = text.splitlines()
    for line in _suspects(error):
        if 0 <= line < len(lines) and lacks_space(lines[line]):
            return Mistake(line + 1, (), NO_SPACE)
    if mark and mark.line < len(lines):
        # As in `status: >300`:
        in_block = error.context == "while scanning a block scalar" and error.context_mark
        at = in_block or mark
        hint = _HINTS.get(lines[at.line][at.column : at.column + 1])
        if lines[at.line].startswith("${", at.column - 1):  # as in `{password: ${PASSWORD}}`
            hint = 'a variable inside braces or brackets needs quotes, as in "${NAME}"'
        elif re.fullmatch(_KEY_ALONE, lines[at.line][: at.column]) and problem.startswith("mapping values"):
            hint = "indented deeper than the line before it, which has a value already: line up the keys"
        elif problem == "found unknown escape character":  # as in `body: "\d+"`
            hint = "in double quotes, a backslash begins an escape: write single quotes"
        problem += f" ({hint})" if hint else ""
    began = error.context_mark
    if began and mark and began.line != mark.line:
        problem += f", {error.context} that begins on line {began.line + 1}"
    return Mistake(mark.line + 1 if mark else None, (), f"not YAML: {problem}")


def _suspects(error: yaml.MarkedYAMLError) -> list[int]:
    """Return the lines in which the cause of an error about a mapping may be."""
    if error.problem is None or not re.search("expected ':'|mapping values", error.problem):
        return []
    marks = [mark.line for mark in (error.context_mark, error.problem_mark) if mark is not None]
    return [*marks, *(line - 1 for line in marks)]


def lacks_space(line: str) -> bool:
    """Return whether a line is a key and a value without the space after the colon, as in ``port:6379``."""
    return re.match(_KEY_AND_VALUE, line) is not None


def _unprintable(text: str) -> Mistake:
    """Report the character that YAML allows nowhere, not even in quotes."""
    found = _NOT_YAML.search(text)
    line = text.count("\n", 0, found.start()) + 1 if found else None
    if found and found[0] == "\0":  # UTF-16 without a byte order mark, which is valid UTF-8
        return Mistake(line, (), "not UTF-8: save the file as UTF-8")
    code = f" U+{ord(found[0]):04X}" if found else ""
    return Mistake(line, (), f"not YAML: the control character{code} is not allowed in YAML: remove it")


class _Builder:
    """Turns nodes into plain values and collects their lines and errors."""

    def __init__(self, document: Document, *, as_go: bool) -> None:
        self._document = document
        self._as_go = as_go
        self._built = 0

    def build(self, node: yaml.Node, path: Path) -> Tree:
        self._built += 1
        if self._as_go and (self._built > MAX_EXPANDED or len(path) > MAX_DEPTH):
            if self._built <= MAX_EXPANDED + 1:  # once
                self._mistake(node.start_mark.line + 1, (), "the aliases expand to too much: write it out")
                self._built = MAX_EXPANDED + 1
            return None
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return _text(node) if self._as_go else _scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(n, (*path, i)) for i, n in enumerate(node.value)]
        return self._mapping(node, path)

    def _mapping(self, node: yaml.Node, path: Path) -> Tree:
        mapping: dict[str, Tree] = {}
        merged: dict[str, Tree] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._mistake(line, path, "a key must be a plain word")
                continue
            key = str(key_node.value)
            if key == "<<" and self._as_go:
                merged = self._merged(value_node, path, line)
                continue
            if key == "<<":
                self._mistake(line, path, "YAML merge keys (<<) are not supported: use `defaults`")
                continue
            if key in mapping:
                first = self._document.lines[(*path, key)]
                self._mistake(line, (*path, key), f"duplicate key (first on line {first}): remove one")
                continue
            if ":" in key and key_node.tag == _PLAIN and _is_empty(value_node):
                name = key.partition(":")[0]  # what follows may be a password
                self._mistake(line, (*path, name), NO_SPACE)
                continue
            self._document.lines[(*path, key)] = line
            mapping[key] = self.build(value_node, (*path, key))
        return {**merged, **mapping}

    def _merged(self, node: yaml.Node, path: Path, line: int) -> dict[str, Tree]:
        """Return the keys that ``<<`` brings in. The first of several mappings wins."""
        built = self.build(node, (*path, "<<"))
        merged: dict[str, Tree] = {}
        for source in reversed(built if isinstance(built, list) else [built]):
            if isinstance(source, dict):
                merged.update(source)
            elif source is not None:
                self._mistake(line, path, "a merge key (<<) takes a mapping, or a list of mappings")
        return merged

    def _mistake(self, line: int, path: Path, text: str) -> None:
        self._document.mistakes.append(Mistake(line, path, text))


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _PLAIN and not node.value


def _text(node: yaml.ScalarNode) -> str | None:
    text = str(node.value)
    return None if node.tag == _PLAIN and _NULL.fullmatch(text.lower()) else text


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
    if _FLOAT.fullmatch(text) and isfinite(number := float(text)):
        return number
    return text
