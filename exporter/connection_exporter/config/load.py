"""Reads a `Config` from a file or the environment. Errors are collected in the document, and raised together."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from connection_exporter.config.document import Document, Mistake, Path, Tree, parse
from connection_exporter.config.errors import ConfigError, read_text
from connection_exporter.config.expand import Expanded, expand, unusable
from connection_exporter.config.include import matching, merge, patterns_of, unmatched
from connection_exporter.config.reader import Kinds, Reader
from connection_exporter.config.service import ServiceConfig

if TYPE_CHECKING:
    from connection_exporter.config.alerting import AlertingConfig


@dataclass(frozen=True, slots=True)
class Config:
    """A valid config: where it came from, and each service's own, with the defaults filled in.

    ``notes`` are warnings about what is valid and has no effect, a sentence each.
    """

    source: str
    services: Mapping[str, ServiceConfig]
    alerting: "AlertingConfig | None" = None
    notes: tuple[str, ...] = ()
    files: tuple[FilePath, ...] = ()
    """The files that `include` has brought."""
    list_files: Callable[[], tuple[FilePath, ...]] | None = field(default=None, compare=False, repr=False)
    """Returns the files that `include` matches now; it blocks. ``None`` if there is no `include`."""
    mistake: Callable[[Path, str], Mistake] = field(
        default=lambda path, text: Mistake(None, path, text), compare=False, repr=False
    )
    """Returns an error at a value, with its file and line."""

    def without_lines(self) -> "Config":
        """Return a config whose errors have no lines. All that was written takes 1 KiB of each service."""
        return Config(self.source, self.services, self.alerting, self.notes, self.files, self.list_files)


def load(path: FilePath | str, kinds: Kinds, environ: Mapping[str, str] | None = None) -> Config:
    """Read a config file. Raises `ConfigError`."""
    path = FilePath(path)
    return load_text(read_text(path), kinds, source=str(path), environ=environ, folder=path.parent, file=path)


def load_text(
    text: str,
    kinds: Kinds,
    *,
    source: str = "config",
    environ: Mapping[str, str] | None = None,
    folder: FilePath | None = None,
    file: FilePath | None = None,
) -> Config:
    """Read a config from YAML text. Raises `ConfigError`, whose messages call the text ``source``.

    Relative paths in it are relative to ``folder``, or to the working directory. ``file`` is where the text comes from:
    patterns of `include` that match it do not include it again.
    """
    environ = os.environ if environ is None else environ
    document = parse(text)
    value = expand(document, environ)
    patterns = patterns_of(value, folder or FilePath(), document)
    list_files = partial(matching, patterns, but=file)
    if files := list_files():
        value = merge(document, value, files, source=source, environ=environ)
    first = tuple(document.mistakes)
    if document.value is None and first:
        raise ConfigError(source, first)
    reader = Reader(document, kinds, folder)
    services, alerting = reader.read(value, is_complete=not any(m.source for m in first)), reader.alerting
    if document.mistakes:
        raise ConfigError(source, [m for m in document.mistakes if m in first or not _follows(m, first)])
    return Config(
        source,
        services,
        alerting,
        notes=unmatched(patterns),
        files=files,
        list_files=list_files if patterns else None,
        mistake=document.mistake,
    )


def load_environment(environ: Mapping[str, str], kinds: Kinds) -> Config | None:
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
                document.mistakes.append(Mistake(None, ("services", name), "is not UTF-8 text: set it again"))
            else:
                services[name] = {"kind": kind, key: Expanded(value)}
    if not variables:
        return None
    read = Reader(document, kinds).read({"services": services}) if services else {}
    if document.mistakes:
        mistakes = (
            mistake._replace(path=(variables[str(mistake.path[1])],)) for mistake in document.mistakes
        )
        raise ConfigError("environment", mistakes)
    return Config("environment", read)


def _follows(mistake: Mistake, causes: Iterable[Mistake]) -> bool:
    """Return whether ``mistake`` was found only because a value of the same service could not be read."""
    covered = any(cause.path[: len(mistake.path)] == mistake.path for cause in causes)
    return covered and not mistake.text.startswith("unknown key")
