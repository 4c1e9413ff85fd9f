"""The entry point of the command line: finds the command and runs it. Each imports late, to start quickly."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from connection_exporter.cli import BAD_CONFIG
from connection_exporter.cli.parser import build_parser
from connection_exporter.system import collector
from connection_exporter.system.streams import reserve_standard_streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; ``arguments`` are those after the program's name."""
    reserve_standard_streams()
    collector.leave_at_exit()
    # The first model would look for pydantic's plugins in all installed packages: 8 ms where there are 150.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or belongs_to_serve(given[0]):
        given.insert(0, "serve")
    try:
        with collector.paused():
            options = build_parser(given[0]).parse_args(given)
            status = _COMMANDS[options.command](options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # BrokenPipeError: the reader of a pipe has gone, as with `| head`
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EDQUOT):
            raise
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - the interpreter flushes it at the end
        with suppress(OSError):
            if error.errno != errno.EPIPE:
                print(f"connection-exporter: cannot write the output: {error.strerror}", file=sys.stderr)
        return 1
    return status


def belongs_to_serve(first: str) -> bool:
    """Return whether the first argument is a flag or the config of ``serve``, whose name was left out."""
    if first.startswith("-"):
        return first not in ("-h", "--help", "--version")
    return "." in first or "/" in first  # no command has either


def allows_color(options: argparse.Namespace, environ: Mapping[str, str]) -> bool:
    """Return whether a terminal may be sent colors (https://no-color.org)."""
    return not options.no_color and not environ.get("NO_COLOR") and environ.get("TERM", "dumb") != "dumb"


def _serve(options: argparse.Namespace) -> int:
    from connection_exporter.cli.serve import serve

    return serve(options)


def _check(options: argparse.Namespace) -> int:
    from connection_exporter.cli.sources import read_config
    from connection_exporter.config import ConfigError

    try:
        config = read_config(options.config_file, options.shard)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIG
    from connection_exporter.cli.check import check
    from connection_exporter.cli.event_loop import leave, run
    from connection_exporter.runtime.logs import log_to_stderr

    with log_to_stderr(level="error", replace_streams=False):
        as_json, color = options.format == "json", allows_color(options, os.environ)
        status = run(check(config, as_json=as_json, color=color))
    return leave(status)


def _validate(options: argparse.Namespace) -> int:
    from connection_exporter.cli.sources import load_settings

    settings = load_settings(options)
    if settings is None:
        return BAD_CONFIG
    from connection_exporter.cli.validate import validate

    return validate(settings.config, options.listen or [":8000"], notes=settings.web.notes)


def _watch(options: argparse.Namespace) -> int:
    from connection_exporter.cli.event_loop import run
    from connection_exporter.cli.watch import watch

    return run(watch(options.url, color=allows_color(options, os.environ)))


def _demo(options: argparse.Namespace) -> int:
    from connection_exporter.cli.demo import demo
    from connection_exporter.cli.event_loop import run
    from connection_exporter.runtime.logs import log_to_stderr

    with log_to_stderr(level=options.log_level, format=options.log_format):
        return run(demo(options))


def _assets(options: argparse.Namespace) -> int:
    from connection_exporter.cli.assets import assets

    return assets(options.folder, force=options.force)


def _schema(_: argparse.Namespace) -> int:
    from connection_exporter.cli.schema import schema_text

    print(schema_text(), end="")
    return 0


def _completion(options: argparse.Namespace) -> int:
    from connection_exporter.cli.completion import completion

    print(completion(options.shell))
    return 0


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "serve": _serve,
    "check": _check,
    "validate": _validate,
    "watch": _watch,
    "demo": _demo,
    "assets": _assets,
    "schema": _schema,
    "completion": _completion,
}
