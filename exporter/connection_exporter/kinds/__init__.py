"""The kinds of services, one folder each, and the functions that load a config of any of them."""

from collections.abc import Mapping
from pathlib import Path

from connection_exporter.config import Config
from connection_exporter.config import load as _load
from connection_exporter.kinds.registry import Kind, Registry

__all__ = ["Kind", "load", "load_environment", "load_text"]

_REGISTRY = Registry()


def load(path: Path | str, environ: Mapping[str, str] | None = None) -> Config:
    """Read a config file. Raises `ConfigError`."""
    return _load.load(path, _REGISTRY, environ)


def load_text(text: str, *, source: str = "config", environ: Mapping[str, str] | None = None) -> Config:
    """Read a config from YAML text; ``source`` names it in messages. Raises `ConfigError`."""
    return _load.load_text(text, _REGISTRY, source=source, environ=environ)


def load_environment(environ: Mapping[str, str]) -> Config | None:
    """Build a config from the five variables; ``None`` if none of them is set. Raises `ConfigError`."""
    return _load.load_environment(environ, _REGISTRY)
