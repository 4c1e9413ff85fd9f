"""Owns the map of kinds: which config model and which check belong to each.

The check is named by its module and class and is imported only when a service of its kind is in use.
Kinds of other packages come from the entry-point group ``connection_exporter.checks``; an entry point
names a check class whose attribute ``Config`` is its model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final, cast

from exporter.config.kinds.http import HttpConfig
from exporter.config.kinds.postgresql import PostgresqlConfig
from exporter.config.kinds.process import ProcessConfig
from exporter.config.kinds.redis import RedisConfig
from exporter.config.kinds.websocket import WebsocketConfig
from exporter.config.service import ServiceConfig

ENTRY_POINTS: Final = "connection_exporter.checks"


class KindError(Exception):
    """A kind of an installed package that cannot be used; the message names the package and what is wrong."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind's config model, and where its check class is."""

    config: type[ServiceConfig]
    check: str

    def load(self) -> type:
        """Import and return the check class."""
        module, _, name = self.check.partition(":")
        return cast("type", getattr(import_module(module), name))


KINDS: Final[Mapping[str, Kind]] = {
    "postgresql": Kind(PostgresqlConfig, "exporter.checks.postgresql:PostgresqlCheck"),
    "redis": Kind(RedisConfig, "exporter.checks.redis:RedisCheck"),
    "process": Kind(ProcessConfig, "exporter.checks.process:ProcessCheck"),
    "http": Kind(HttpConfig, "exporter.checks.http:HttpCheck"),
    "websocket": Kind(WebsocketConfig, "exporter.checks.websocket:WebsocketCheck"),
}


def find_kind(name: str) -> Kind | None:
    """Return the kind called ``name``: ours, or that of an installed package, which is then imported.

    Raises `KindError` when that package is broken.
    """
    if name in KINDS:
        return KINDS[name]
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        return Kind(_config_of(entry), entry.value)
    return None


def _config_of(entry: EntryPoint) -> type[ServiceConfig]:
    """Import a package's check for its config model; what others wrote may fail in any way."""
    package = entry.dist.name if entry.dist else entry.module
    try:
        config = entry.load().Config
    except Exception as error:
        told = f"kind {entry.name!r} of {package} cannot be imported: {type(error).__name__}: {error}"
        raise KindError(told) from error
    if not (isinstance(config, type) and issubclass(config, ServiceConfig)):
        raise KindError(f"kind {entry.name!r} of {package} is broken: its Config is no ServiceConfig")
    return config


def kind_names() -> list[str]:
    """Return the names of all kinds that can be configured here."""
    return [*KINDS, *sorted(entry_points(group=ENTRY_POINTS).names - KINDS.keys())]
