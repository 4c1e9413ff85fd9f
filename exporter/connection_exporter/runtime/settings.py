"""Owns the settings: the config and the web config, which are valid together or not at all. Imports no asyncio."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from connection_exporter.config import Config, ConfigError
from connection_exporter.config.web import WebConfig


class Settings(NamedTuple):
    """Everything that can be replaced while the exporter runs. ``files`` are those that it was read from."""

    config: Config
    web: WebConfig = WebConfig()
    files: tuple[Path, ...] = ()


class BadSettings(Exception):
    """Every mistake in all files together."""

    def __init__(self, mistakes: Iterable[str], files: Iterable[Path] = ()) -> None:
        self.mistakes = tuple(mistakes)
        self.files = tuple(files)
        super().__init__("\n".join(self.mistakes))


def read_settings(
    read_config: Callable[[], Config], read_web: Callable[[], WebConfig], *, files: tuple[Path, ...] = ()
) -> Settings:
    """Read everything, or raise `BadSettings` with every mistake."""
    mistakes: list[str] = []
    wrong: dict[Path, None] = {}
    settings = Settings(Config("", {}), files=files)
    try:
        config = read_config()
        settings = settings._replace(config=config, files=(*files, *config.files))
    except ConfigError as error:
        mistakes.extend(error.lines)
        wrong.update((Path(mistake.source), None) for mistake in error.mistakes if mistake.source)
        wrong.update(dict.fromkeys(error.files))
    try:
        web = read_web()
        settings = settings._replace(web=web, files=(*settings.files, *web.files))
    except ConfigError as error:
        mistakes.extend(error.lines)
    if mistakes:
        raise BadSettings(mistakes, wrong)
    return settings
