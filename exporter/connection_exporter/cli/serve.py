"""The command ``serve``: reads the settings, listens, and runs the application until a signal."""

import argparse
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from connection_exporter.cli import BAD_CONFIG
from connection_exporter.system.waiting import wait_for_thread

if TYPE_CHECKING:
    from connection_exporter.runtime.settings import Settings

_MAKE_WITHIN: Final = 2.0
"""Seconds in which the folder of `--storage.path` is made, which may be on a mount that does not respond."""


def serve(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM, and return the exit status."""
    # Until there is something to reload; its default ends the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Until there is a loop. Not by SystemExit, which an import may swallow.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    settings = wait_for_thread(lambda: _load(options), name="load")  # so that SIGTERM still works
    if settings is None:
        return BAD_CONFIG
    from connection_exporter import app
    from connection_exporter.cli.event_loop import leave, run_until_done
    from connection_exporter.cli.sources import read_settings
    from connection_exporter.runtime.logs import log_to_stderr
    from connection_exporter.web.server import CannotListen, bind
    from connection_exporter.web.systemd import inherited

    if options.storage is not None and (problem := _unusable_folder(options.storage)) is not None:
        print(f"connection-exporter: --storage.path={options.storage}: {problem}", file=sys.stderr)
        return 1
    try:
        sockets = inherited() if options.systemd_socket else bind(options.listen or [":8000"])
    except CannotListen as error:
        print(f"connection-exporter: {error}", file=sys.stderr)
        return 1
    with log_to_stderr(level=options.log_level, format=options.log_format) as log:
        serving = app.run(
            settings,
            sockets,
            telemetry_path=options.telemetry_path,
            origins=options.origins,
            storage=options.storage,
            reread=lambda: read_settings(options.config_file, options.web_config, options.shard),
            shard=options.shard,
            lifecycle=options.lifecycle,
            lines_dropped=lambda: log.dropped,
        )
        status = 0
        try:
            run_until_done(serving)
        except Exception as error:  # noqa: BLE001 - the interpreter would wait for a full pipe to take the traceback
            traceback.print_exception(error)
            status = 1
    return leave(status)


def _unusable_folder(folder: Path) -> str | None:
    """Return why transitions cannot be stored in a folder, which is made if it is absent."""
    from connection_exporter.runtime.history import make_folder

    try:
        wait_for_thread(lambda: make_folder(folder), name="make folder", within=_MAKE_WITHIN)
    except TimeoutError:  # a mount does not respond: the log will say so if that lasts
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        return f"cannot be used as a folder: {(reason or str(error)).lower()}"
    return None


def _load(options: argparse.Namespace) -> "Settings | None":
    from connection_exporter.cli.sources import load_settings

    return load_settings(options)
