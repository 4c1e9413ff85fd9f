"""Expands ``${VAR}`` in strings after parsing, so that a value is never read as YAML."""

import re
from collections.abc import Mapping
from typing import Final

from connection_exporter.config.document import Document, Path, Tree

_PATTERN: Final = r"\$(?:(?P<escaped>\$)|\{(?P<name>[^}:]*)(?P<default>:-[^}]*)?\}|(?P<stray>\{))"
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"


class _UnreadableError(Exception):
    """Ends the search in a text: otherwise each brace without an end would cause another search through the rest."""


class Expanded(str):
    """A string that came at least in part from the environment. It may be a secret, so no error shows it."""

    __slots__ = ()


def expand(document: Document, environ: Mapping[str, str]) -> Tree:
    """Return the document's value with variables filled in; what is missing joins its mistakes."""
    return _walk(document.value, (), document, environ)


def unusable(value: str) -> bool:
    """Return whether a variable contains bytes that are not UTF-8, which neither metrics nor JSON can show."""
    return any("\ud800" <= character <= "\udfff" for character in value)


def _walk(value: Tree, path: Path, document: Document, environ: Mapping[str, str]) -> Tree:
    if isinstance(value, dict):
        return {key: _walk(item, (*path, key), document, environ) for key, item in value.items()}
    if isinstance(value, list):
        return [_walk(item, (*path, i), document, environ) for i, item in enumerate(value)]
    if isinstance(value, str) and "$" in value:
        return _fill(value, path, document, environ)
    return value


def _fill(text: str, path: Path, document: Document, environ: Mapping[str, str]) -> str:
    from_environment = False

    def replacement(found: re.Match[str]) -> str:
        nonlocal from_environment
        if found["escaped"]:
            return "$"
        name, default = found["name"], found["default"]
        if name is None or not re.fullmatch(_NAME, name):
            raise _UnreadableError(
                "a variable is written ${NAME} or ${NAME:-default}; for a dollar sign, write $$"
            )
        if default is not None and "${" in default:
            problem = f"the default of ${{{name}:-…}} cannot contain another variable: write its value"
            raise _UnreadableError(problem)
        from_environment = True
        value = environ.get(name)
        if not value and default is not None:
            return default[2:]
        if value is None:
            mistake(f"the environment variable {name} is not set: set it, or write ${{{name}:-default}}")
            return ""
        if unusable(value):
            mistake(f"the environment variable {name} is not UTF-8 text: set it again")
            return ""
        return value

    def mistake(what: str) -> None:
        document.report(path, what)

    try:
        filled = re.sub(_PATTERN, replacement, text)
    except _UnreadableError as error:
        mistake(str(error))
        return Expanded()
    return Expanded(filled) if from_environment else filled
