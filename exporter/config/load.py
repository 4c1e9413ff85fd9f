"""Owns the way from a file, or from the environment, to a `Config`, with every mistake reported at once."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from exporter.config.document import MAX_BYTES, Document, Mistake, Path, Tree, parse
from exporter.config.expand import Expanded, expand, unusable
from exporter.config.explain import explain, nearest, unknown_key, with_typed_variables
from exporter.config.kinds import KINDS, Kind, KindError, find_kind, kind_names
from exporter.config.service import PolicyConfig, ServiceConfig

_Model = TypeVar("_Model", bound=BaseModel)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_TOP_KEYS: Final = ("defaults", "services")
_LONGEST_KEY: Final = 80

EXAMPLE: Final = """\
services:
  database:     {kind: postgresql, dsn: "postgresql://user@localhost:5432/app"}
  redis:        {kind: redis, url: "redis://localhost:6379/0"}
  bot_process:  {kind: process, pidfile: /run/bot.pid}
  external_api: {kind: http, url: "https://api.example.com/health"}
  websocket:    {kind: websocket, url: "wss://stream.example.com/ws"}
"""


@dataclass(frozen=True, slots=True)
class Config:
    """A valid config: where it came from, and each service's own, with the defaults filled in."""

    source: str
    services: Mapping[str, ServiceConfig]


class ConfigError(Exception):
    """Everything that is wrong with a config; ``str()`` has one line for each mistake."""

    def __init__(self, source: str, mistakes: Iterable[Mistake]) -> None:
        self.source = source
        self.mistakes = tuple(dict.fromkeys(sorted(mistakes, key=lambda m: m.line or 0)))
        self.lines = tuple(_line(source, mistake) for mistake in self.mistakes)
        super().__init__("\n".join(self.lines))


def load(path: FilePath | str, environ: Mapping[str, str] | None = None) -> Config:
    """Read a config file. Raises `ConfigError`."""
    return load_text(read_text(FilePath(path)), source=str(path), environ=environ)


def read_text(path: FilePath) -> str:
    """Return what is in a file, as much of it as is taken. Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            written = file.read(MAX_BYTES + 1)
        return written.decode("utf-8")
    except UnicodeDecodeError as error:
        line = written.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(path), [Mistake(line, (), "not UTF-8: save the file as UTF-8")]) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(str(path), [Mistake(None, (), f"cannot be read: {reason}")]) from None


def load_text(text: str, *, source: str = "config", environ: Mapping[str, str] | None = None) -> Config:
    """Read a config from YAML text; ``source`` names it in messages. Raises `ConfigError`."""
    document = parse(text)
    value = expand(document, os.environ if environ is None else environ)
    first = tuple(document.mistakes)
    if document.value is None and first:
        raise ConfigError(source, first)
    services = _Reader(document).read(value)
    if document.mistakes:
        raise ConfigError(source, [m for m in document.mistakes if m in first or not _follows(m, first)])
    return Config(source, services)


def load_environment(environ: Mapping[str, str]) -> Config | None:
    """Make a config from the five variables, where there is no file; ``None`` if none of them is set.

    Raises `ConfigError`.
    """
    services: dict[str, Tree] = {}
    variables: dict[str, str] = {}
    document = Document()
    for variable, name, kind, key in (
        ("DATABASE_URL", "database", "postgresql", "dsn"),
        ("REDIS_URL", "redis", "redis", "url"),
        (
            "BOT_PROCESS",
            "bot_process",
            "process",
            "pidfile" if "/" in environ.get("BOT_PROCESS", "") else "name",
        ),
        ("API_URL", "external_api", "http", "url"),
        ("WEBSOCKET_URL", "websocket", "websocket", "url"),
    ):
        if value := environ.get(variable):
            variables[name] = variable
            if unusable(value):
                document.mistakes.append(Mistake(None, ("services", name), "is not UTF-8 text: set it anew"))
            else:
                services[name] = {"kind": kind, key: Expanded(value)}
    if not variables:
        return None
    read = _Reader(document).read({"services": services}) if services else {}
    if document.mistakes:
        told = (replace(mistake, path=(variables[str(mistake.path[1])],)) for mistake in document.mistakes)
        raise ConfigError("environment", told)
    return Config("environment", read)


class _Reader:
    """Turns plain values into models; what is wrong goes to the document's mistakes."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._told_of_defaults: set[str] = set()

    def read(self, value: Tree) -> dict[str, ServiceConfig]:
        if not isinstance(value, dict):
            empty = "the file is empty" if value is None else "expected a mapping with `services`"
            self._mistake((), f"{empty}; for example:\n{_indented(EXAMPLE)}")
            return {}
        for key in value:
            if key not in _TOP_KEYS:
                self._mistake((key,), unknown_key(key, _TOP_KEYS))
        defaults = self._defaults(value.get("defaults"))
        services = value.get("services")
        if not isinstance(services, dict) or not services:
            wrong = "at least one service is needed"
            if services is not None and not isinstance(services, dict):
                wrong = "expected a mapping from names to services"
            self._mistake(("services",), f"{wrong}; for example:\n{_indented(EXAMPLE)}")
            return {}
        read = {name: self._service(name, given, defaults) for name, given in services.items()}
        return {name: service for name, service in read.items() if service is not None}

    def _defaults(self, given: Tree) -> dict[str, Tree]:
        if given is None:
            return {}
        if not isinstance(given, dict):
            self._mistake(("defaults",), "expected a mapping such as `interval: 30s`")
            return {}
        before = len(self._document.mistakes)
        if self._validate(PolicyConfig, given, ("defaults",)) is None:
            usable = {
                key: value
                for key, value in given.items()
                if key in PolicyConfig.model_fields and self._alone_is_valid(key, value)
            }
            if usable.keys() != given.keys():  # what does not fit together shows only without the rest
                self._validate(PolicyConfig, usable, ("defaults",))
            self._told_of_defaults = {mistake.text for mistake in self._document.mistakes[before:]}
            return usable
        return given

    def _alone_is_valid(self, key: str, value: Tree) -> bool:
        """Tell whether a default is right: one that is wrong is told once, not again for each service."""
        try:
            PolicyConfig.model_validate({key: value})
        except ValidationError:
            return False
        return True

    def _service(self, name: str, given: Tree, defaults: dict[str, Tree]) -> ServiceConfig | None:
        path = ("services", name)
        if not _NAME.fullmatch(name):
            self._mistake(
                path,
                "a name begins with a letter or _ and has up to 63 letters, digits, _ and - (no dots or spaces)",
            )
        if not isinstance(given, dict):
            self._mistake(path, "expected a mapping such as `{kind: http, url: …}`")
            return None
        kind = self._kind(given.get("kind"), path)
        if kind is None:
            return None
        usable = {key: value for key, value in defaults.items() if key in kind.config.model_fields}
        if kind.config.model_fields["canary"].default is None:
            usable.pop("canary", None)
        whole = {**usable, **given}
        try:
            service = self._validate(kind.config, whole, path)
            if service is None:
                self._check_apart(kind.config, whole, path)
        except Exception as error:
            if given["kind"] in KINDS:
                raise
            # what others wrote may fail in any way
            self._mistake(path, f"cannot be checked by its kind: unexpected {type(error).__name__}")
            return None
        return service

    def _check_apart(self, model: type[ServiceConfig], given: dict[str, Tree], path: Path) -> None:
        """Tell what does not fit together within the policy, and within the rest: a mistake in one hides the other."""
        policy = {key: value for key, value in given.items() if key in PolicyConfig.model_fields}
        try:
            PolicyConfig.model_validate(policy)
        except ValidationError as error:
            wrong = {detail["loc"][0] for detail in error.errors() if detail["loc"]}
            self._validate(PolicyConfig, {k: v for k, v in policy.items() if k not in wrong}, path)
        self._validate(model, {k: v for k, v in given.items() if k not in policy}, path)

    def _kind(self, name: Tree, path: Path) -> Kind | None:
        if name is None:
            self._mistake(path, f"`kind` is missing: add one of {', '.join(kind_names())}")
            return None
        try:
            kind = find_kind(name) if isinstance(name, str) else None
        except KindError as error:
            self._mistake((*path, "kind"), str(error))
            return None
        if kind is None:
            shown = f" {name[:40]!r}" if isinstance(name, str) and not isinstance(name, Expanded) else ""
            near = nearest(name, kind_names()) if isinstance(name, str) else None
            hint = f"did you mean {near!r}?" if near else f"known are {', '.join(kind_names())}"
            self._mistake((*path, "kind"), f"unknown kind{shown}: {hint}")
        return kind

    def _validate(self, model: type[_Model], given: dict[str, Tree], path: Path) -> _Model | None:
        try:
            return model.model_validate(given)
        except ValidationError as error:
            typed = with_typed_variables(given, error)
            if typed is not given:
                return self._validate(model, typed, path)
            for inside, text in explain(model, given, error):
                if text not in self._told_of_defaults:
                    self._mistake((*path, *inside), text)
            return None

    def _mistake(self, path: Path, text: str) -> None:
        self._document.mistakes.append(Mistake(self._document.line_of(path), path, text))


def _follows(mistake: Mistake, causes: Iterable[Mistake]) -> bool:
    """Tell whether ``mistake`` was found only because a value of the same service could not be read."""
    covered = any(cause.path[: len(mistake.path)] == mistake.path for cause in causes)
    return covered and not mistake.text.startswith("unknown key")


def _line(source: str, mistake: Mistake) -> str:
    place = f"{source}:{mistake.line}" if mistake.line else source
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{_shown(part)}" for part in mistake.path)
    return f"{place}: {path.lstrip('.')}: {mistake.text}" if path else f"{place}: {mistake.text}"


def _shown(key: str) -> str:
    short = key if len(key) <= _LONGEST_KEY else key[:_LONGEST_KEY] + "…"
    return short if short and short.isprintable() else repr(short)


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines()).rstrip()
