"""Owns the command line: flags in Prometheus' style, exit codes, and what is printed. Imports late, to be quick."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from exporter import __version__
from exporter.commands import DEFAULT_FILE

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.reload import Settings

BAD_CONFIG: Final = 2
_TAKEN_PATHS: Final = {
    *("/", "/health", "/health/detailed", "/health/force-check", "/events", "/-/healthy", "/-/ready"),
    *("/-/reload", "/config", "/openapi.json"),
}

Command = Callable[[argparse.Namespace], int]
_T = TypeVar("_T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; ``arguments`` are those after the program's name."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help", "--version")):
        given.insert(0, "serve")
    options = parser.parse_args(given)
    command: Command = options.command
    try:
        return command(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone, as with `| head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for the interpreter's last flush
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="connection-exporter",
        description="Hold a live connection to everything a system depends on, and tell at once when one breaks.",
        epilog="Without a command, `serve` is run. Each command has its own --help.",
    )
    version = f"connection-exporter {__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    serve = commands.add_parser("serve", help="watch and serve, until SIGINT or SIGTERM (the default)")
    serve.add_argument("--version", action="version", version=version)
    _add_config_flag(serve)
    _add_web_flags(serve)
    _add_web_config_flag(serve)
    serve.add_argument(
        "--web.enable-lifecycle",
        dest="lifecycle",
        action="store_true",
        help="allow POST /-/reload (SIGHUP and a change of the file reload at any rate)",
    )
    serve.add_argument(
        "--storage.path",
        dest="storage",
        type=Path,
        metavar="FOLDER",
        help="keep transitions here, so that they outlive a restart (default: they do not)",
    )
    _add_log_flags(serve)
    serve.set_defaults(command=_serve)

    check = commands.add_parser(
        "check",
        help="make one attempt and one canary each, and print the result",
        epilog="Exit status: 0 healthy, 1 degraded, 2 bad config, 3 partial or unknown.",
    )
    _add_config_flag(check)
    check.add_argument("--format", choices=("table", "json"), default="table", help="default: %(default)s")
    check.set_defaults(command=_check)

    validate = commands.add_parser(
        "validate", help="check the config; print its warnings and detection bounds"
    )
    _add_config_flag(validate)
    validate.add_argument(
        "--web.listen-address",
        dest="listen",
        action="append",
        metavar="ADDRESS",
        help="as for serve, for its warnings",
    )
    _add_web_config_flag(validate)
    validate.set_defaults(command=_validate)

    watch = commands.add_parser(
        "watch",
        help="show the live board of an exporter in the terminal",
        epilog="q or Ctrl-C ends it. Elsewhere than on a terminal it prints a line for each transition. Exit status: "
        "0 ended by q, 1 the exporter could not be reached, 130 ended by Ctrl-C.",
    )
    watch.add_argument(
        "url", nargs="?", default="http://localhost:8000", metavar="URL", help="default: %(default)s"
    )
    watch.set_defaults(command=_watch)

    demo = commands.add_parser("demo", help="start five real services of our own, and watch them")
    demo.add_argument("--chaos", action="store_true", help="break and mend them in turn")
    _add_web_flags(demo)
    _add_log_flags(demo)
    demo.set_defaults(command=_demo)
    return parser


def _add_config_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config.file",
        dest="config_file",
        metavar="FILE",
        help=f"config (default: {DEFAULT_FILE}; if there is none: DATABASE_URL, REDIS_URL, BOT_PROCESS, API_URL, "
        "WEBSOCKET_URL)",
    )


def _add_web_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--web.listen-address",
        dest="listen",
        action="append",
        metavar="ADDRESS",
        help="host:port to listen on; repeatable (default: :8000)",
    )
    parser.add_argument(
        "--web.telemetry-path",
        dest="telemetry_path",
        default="/metrics",
        metavar="PATH",
        type=_path,
        help="path of the metrics (default: %(default)s)",
    )
    parser.add_argument(
        "--web.cors.origin",
        dest="origins",
        action="append",
        default=[],
        metavar="ORIGIN",
        type=_origin,
        help="origin whose pages may force a check, such as https://grafana.example.com; repeatable",
    )


def _add_web_config_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--web.config.file",
        dest="web_config",
        type=Path,
        metavar="FILE",
        help="TLS, users and headers of the listener, in exporter-toolkit's schema",
    )


def _add_log_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log.level",
        dest="log_level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--log.format",
        dest="log_format",
        choices=("logfmt", "json"),
        default="logfmt",
        help="default: %(default)s",
    )


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} does not begin with /")
    if (text.rstrip("/") or "/") in _TAKEN_PATHS or text.startswith("/health/service/"):
        raise argparse.ArgumentTypeError(f"{text!r} has an answer of its own: choose another path")
    if "{" in text or "}" in text:
        raise argparse.ArgumentTypeError(f"{text!r} holds a brace: choose a path without")
    return text


def _origin(text: str) -> str:
    from exporter.publish.origins import is_origin

    if not is_origin(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an origin: write it as browsers do, such as https://grafana.example.com, "
            "with no path, no capitals and no default port"
        )
    return text


def _load(options: argparse.Namespace) -> "Config | None":
    """Load the config, or print what is wrong with it and return ``None``."""
    from exporter.commands.sources import read_config
    from exporter.config import ConfigError

    try:
        return read_config(options.config_file)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return None


def _load_settings(options: argparse.Namespace) -> "Settings | None":
    """Read the settings, or print what is wrong with them and return ``None``."""
    from exporter.commands.sources import read_settings
    from exporter.reload import BadSettings

    try:
        return read_settings(options.config_file, options.web_config)
    except BadSettings as error:
        print(error, file=sys.stderr)
        return None


def _serve(options: argparse.Namespace) -> int:
    # until there is a loop; not by SystemExit, which imports may swallow
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    settings = _load_settings(options)
    if settings is None:
        return BAD_CONFIG
    from exporter import app, logs
    from exporter.commands.sources import read_settings
    from exporter.publish.server import CannotListen, bind

    logs.configure(level=options.log_level, format=options.log_format)
    try:
        sockets = bind(options.listen or [":8000"])
    except CannotListen as error:
        print(f"connection-exporter: {error}", file=sys.stderr)
        return 1
    serving = app.run(
        settings,
        sockets,
        telemetry_path=options.telemetry_path,
        origins=options.origins,
        storage=options.storage,
        reread=lambda: read_settings(options.config_file, options.web_config),
        lifecycle=options.lifecycle,
    )
    _run(serving)
    return 0


def _check(options: argparse.Namespace) -> int:
    config = _load(options)
    if config is None:
        return BAD_CONFIG
    from exporter import logs
    from exporter.commands.check import check

    logs.configure(level="error")  # to standard error: standard output is the result's
    return _run(check(config, as_json=options.format == "json"))


def _validate(options: argparse.Namespace) -> int:
    settings = _load_settings(options)
    if settings is None:
        return BAD_CONFIG
    from exporter.commands.validate import validate

    return validate(settings.config, options.listen or [":8000"], notes=settings.web.notes)


def _watch(options: argparse.Namespace) -> int:
    from exporter.commands.watch import watch

    return _run(watch(options.url))


def _demo(options: argparse.Namespace) -> int:
    from exporter.commands.demo import demo

    return _run(demo(options))


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run on uvloop, which needs a sixth of asyncio's memory for TLS and half its time."""
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
