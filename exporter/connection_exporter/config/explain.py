"""Turns pydantic's errors into texts that say what to write, and that never contain a value that may be secret.

A value is shown only where a number, a boolean or one of a few words was expected, and only as it
is written in the file: what came from a variable or a URL is not repeated.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from connection_exporter.config.document import Path, Tree
from connection_exporter.config.durations import format_duration
from connection_exporter.config.expand import Expanded
from connection_exporter.config.url import URL_KEYS

_WANTED: Final = {
    "bool_type": "true or false",
    "dict_type": "a mapping, as in {key: value}",
    "float_type": "a number",
    "int_type": "a whole number",
    "is_instance_of": "a path",
    "list_type": "a list, as in [a, b]",
    "model_type": "a mapping, as in {key: value}",
    "path_type": "a path",
    "string_type": "text",
    "string_too_short": "text that is not empty",
}
_LIMITS: Final = {
    "greater_than": "gt",
    "greater_than_equal": "ge",
    "less_than": "lt",
    "less_than_equal": "le",
}
_LIMIT_WORDS: Final = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
_SHOWN: Final = {"bool_type", "float_type", "int_type", "literal_error", *_LIMITS}
_NUMBER: Final = r"[-+]?[0-9]{1,18}(?:\.[0-9]{1,18})?"


def explain(
    model: type[BaseModel], given: dict[str, Tree], error: ValidationError
) -> Iterator[tuple[Path, str]]:
    """Yield each mistake in ``given``: its path below the model, and what to do about it."""
    wanted: dict[Path, list[str]] = {}
    shown: dict[Path, str] = {}
    broken_rules: list[tuple[Path, str]] = []
    for detail in error.errors(include_url=False):
        kind, where = detail["type"], _place(given, detail)
        if kind in ("value_error", "assertion_error"):
            yield _in_url(given, where, str(detail["ctx"]["error"]))
        elif kind == "broken_rule":
            broken_rules.append(_addressed(given, where, detail["msg"]))
        elif kind == "extra_forbidden":
            inner = _model_at(model, where[:-1])
            other = getattr(inner, "OTHER_NAMES", {}).get(where[-1])
            known = [field.alias or name for name, field in inner.model_fields.items()]
            yield where, f"unknown key: write `{other}`" if other else unknown_key(str(where[-1]), known)
        elif kind == "missing":
            yield where, "is missing: add it"
        else:
            written = _written(given, where)
            wanted.setdefault(where, []).append(_expected(detail, written))
            if (
                kind in _SHOWN
                and isinstance(written, str | int | float)
                and not isinstance(written, Expanded)
            ):
                shown[where] = f", not {_as_yaml(written)}"
    for where, expected in wanted.items():  # a union reports one error for each of its types
        *others, last = dict.fromkeys(expected)
        text = f"expected {', '.join(others)}{' or ' if others else ''}{last}{shown.get(where, '')}"
        yield _in_url(given, where, text)
    yield from broken_rules


def with_typed_variables(given: dict[str, Tree], error: ValidationError) -> dict[str, Tree]:
    """Return ``given`` with variables read as numbers, true or false where the model wants those.

    A variable is always text, and ``port: ${PORT}`` means the number. Returns ``given`` itself when there
    is nothing of that kind.
    """
    typed = given
    for detail in error.errors(include_url=False):
        text = _written(given, detail["loc"])
        if not isinstance(text, Expanded):
            continue
        if detail["type"] == "bool_type" and text in ("true", "false"):
            typed = _replaced(typed, detail["loc"], text == "true")
        elif detail["type"] in ("int_type", "float_type") and re.fullmatch(_NUMBER, text):
            typed = _replaced(typed, detail["loc"], float(text) if "." in text else int(text))
    return typed


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Say that ``key`` is not known, and which one was probably meant."""
    near = nearest(key, known)
    if near:
        return f"unknown key; did you mean {near!r}?"
    return f"unknown key: the known keys are {', '.join(known)}"


def nearest(word: str, known: Iterable[str], *, similarity: float = 0.55) -> str | None:
    """Return the word of ``known`` that was probably meant, if any is near; ``similarity`` is from 0 to 1."""
    import difflib  # noqa: PLC0415 - most configs have no error

    lowered = {k.lower(): k for k in known}
    found = difflib.get_close_matches(word[:100].lower(), lowered, n=1, cutoff=similarity)
    return lowered[found[0]] if found else None


def _place(given: Tree, detail: Any) -> Path:
    """Return the place of an error in the file, without pydantic's names for the branches of a union."""
    at: Any = given
    where: list[str | int] = []
    for part in detail["loc"]:
        if part == "[key]" or (detail["type"] != "missing" and at is detail["input"]):
            break
        where.append(part)
        at = _child(at, part)
    return tuple(where)


def _written(given: Tree, where: Iterable[str | int]) -> Tree:
    """Return the value at ``where``; ``None`` if there is none, as for a value that came from a URL."""
    at = given
    for part in where:
        at = _child(at, part)
    return at


def _child(value: Any, part: str | int) -> Any:
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None


def _replaced(value: Any, where: tuple[str | int, ...], leaf: Tree) -> Any:
    if not where:
        return leaf
    copy = value.copy()
    copy[where[0]] = _replaced(value[where[0]], where[1:], leaf)
    return copy


def _in_url(given: dict[str, Tree], where: Path, text: str) -> tuple[Path, str]:
    """Report what is wrong with a part of a URL at the key of the URL: the part has no key in the file."""
    key = next((key for key in URL_KEYS if key in given), None)
    part = ".".join(map(str, where))
    return ((key,), f"{part}: {text}") if key and where and where[0] not in given else (where, text)


def _addressed(given: dict[str, Tree], where: Path, text: str) -> tuple[Path, str]:
    """Move a key that a model's message begins with (``url: …``) into the path, which has its line."""
    key, colon, rest = text.partition(": ")
    return ((*where, key), rest) if colon and not where and key in given else (where, text)


def _expected(detail: Any, written: Tree) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _LIMITS:
        word = _LIMITS[kind]
        limit = context[word]
        duration = isinstance(limit, float) and (isinstance(written, str) or written == 0)
        return f"{_LIMIT_WORDS[word]} {format_duration(limit) if duration else limit}"
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "string_type" and isinstance(written, bool | int | float):
        return "text: put it in quotes"
    # The length of a secret, whose characters pydantic takes for items.
    if kind == "too_short" and context["field_type"] == "Value":
        return _WANTED["string_too_short"]
    if kind in ("too_short", "too_long"):
        word, limit = ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        return f"{word} {context[limit]} {'entry' if context[limit] == 1 else 'entries'}"
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters"
    text = str(detail["msg"])
    return _WANTED.get(kind) or text.removeprefix("Input should be ").removeprefix("a ").removeprefix("an ")


def _as_yaml(value: str | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value if not isinstance(value, str) or len(value) <= 40 else value[:40] + "…")


def _model_at(model: type[BaseModel], inside: Path) -> type[BaseModel]:
    """Return the model at ``inside`` below ``model``."""
    for part in inside:
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # an index into a list of models
        model = next(_models_in(field.annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)
