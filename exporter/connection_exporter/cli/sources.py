"""Finds the settings: in the files that flags name, in the default file, or in the environment."""

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from connection_exporter.cli import DEFAULT_FILE
from connection_exporter.cli.named_files import unusable_files
from connection_exporter.config import EXAMPLE, Config, ConfigError
from connection_exporter.config.document import Mistake
from connection_exporter.config.shard import WHOLE, Shard
from connection_exporter.config.web import WebConfig, load_web
from connection_exporter.kinds import load, load_environment
from connection_exporter.runtime import settings
from connection_exporter.system.waiting import wait_for_thread

_LOOK_WITHIN: Final = 2.0
"""Seconds for a look at every `*_file`."""


def read_config(given: str | None, shard: Shard = WHOLE) -> Config:
    """Read the share of ``shard`` from the file ``given``, else the default file, else the environment.

    Raises ConfigError.
    """
    file = _file(given)
    config = load(file) if file is not None else load_environment(os.environ)
    if config is None:
        help_text = (
            f"there is no {DEFAULT_FILE} here, and none of DATABASE_URL, REDIS_URL, BOT_PROCESS, API_URL and "
            f"WEBSOCKET_URL is set.\nName a file with --config.file, or start with this {DEFAULT_FILE}:\n\n{EXAMPLE}"
        )
        raise ConfigError("no config", [Mistake(None, (), help_text)])
    config = shard.share_of(config)
    try:
        unusable = wait_for_thread(
            lambda: list(unusable_files(config)), name="look for files", within=_LOOK_WITHIN
        )
    except TimeoutError:  # a mount does not respond; the services that need it will report that
        unusable = []
    if unusable:
        mistakes, files = zip(*unusable, strict=True)
        raise ConfigError(config.source, mistakes, files)
    return config.without_lines()


def read_settings(given: str | None, web: Path | None, shard: Shard = WHOLE) -> settings.Settings:
    """Read the config and the web config, and report the errors of both. Raises BadSettings."""
    file = _file(given)
    return settings.read_settings(
        lambda: read_config(given, shard),
        lambda: load_web(web) if web is not None else WebConfig(),
        files=() if file is None else (file,),
    )


def load_settings(options: argparse.Namespace) -> settings.Settings | None:
    """Read the settings that the flags name, or print what is wrong with them and return ``None``."""
    try:
        return read_settings(options.config_file, options.web_config, options.shard)
    except settings.BadSettings as error:
        print(error, file=sys.stderr)
        return None


def _file(given: str | None) -> Path | None:
    if given is None and not Path(DEFAULT_FILE).exists():
        return None
    return Path(given or DEFAULT_FILE)
