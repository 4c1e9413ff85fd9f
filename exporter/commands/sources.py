"""Owns where the settings come from: the files that flags name, the default one, or the environment."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from exporter import reload
from exporter.commands import DEFAULT_FILE
from exporter.config import EXAMPLE, Config, ConfigError, load, load_environment
from exporter.config.document import Mistake
from exporter.config.web import WebConfig, load_web


def read_config(given: str | None) -> Config:
    """Read the file ``given``, or the default one, or where there is none the environment. Raises ConfigError."""
    file = _file(given)
    config = load(file) if file is not None else load_environment(os.environ)
    if config is None:
        told = (
            f"there is no {DEFAULT_FILE} here, and none of DATABASE_URL, REDIS_URL, BOT_PROCESS, API_URL and "
            f"WEBSOCKET_URL is set.\nName a file by --config.file, or begin with this {DEFAULT_FILE}:\n\n{EXAMPLE}"
        )
        raise ConfigError("no config", [Mistake(None, (), told)])
    unreadable = [
        Mistake(None, ("services", name, *where), told)
        for name, service in config.services.items()
        for where, told in _unreadable_files(service)
    ]
    if unreadable:
        raise ConfigError(config.source, unreadable)
    return config


def _unreadable_files(model: BaseModel) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each `*_file` of a service that cannot be read now; later it is read again at each connect."""
    for key in type(model).model_fields:
        value = getattr(model, key)
        if isinstance(value, BaseModel):
            yield from (((key, *where), told) for where, told in _unreadable_files(value))
        elif key.endswith("_file") and isinstance(value, Path) and (reason := _unreadable(value)):
            yield (key,), f"{value} cannot be read: {reason.lower()}"


def _unreadable(path: Path) -> str | None:
    """Return why; without opening it, for that can block."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    if not stat.S_ISREG(mode):
        return os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "not a regular file"
    return None if os.access(path, os.R_OK) else os.strerror(errno.EACCES)


def read_settings(given: str | None, web: Path | None) -> reload.Settings:
    """Read the config and the web config, with the mistakes of both. Raises BadSettings."""
    file = _file(given)
    return reload.read_settings(
        lambda: read_config(given),
        lambda: load_web(web) if web is not None else WebConfig(),
        files=() if file is None else (file,),
    )


def _file(given: str | None) -> Path | None:
    if given is None and not Path(DEFAULT_FILE).exists():
        return None
    return Path(given or DEFAULT_FILE)
