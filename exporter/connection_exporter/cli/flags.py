"""Owns the flags that several commands share, and what their values may be. Imports little, as the parser does."""

import argparse
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from connection_exporter.cli import DEFAULT_FILE
from connection_exporter.web.routes import TELEMETRY, is_taken

if TYPE_CHECKING:
    from connection_exporter.config.shard import Shard


def add_color(parser: argparse.ArgumentParser) -> None:
    """Accept `--no-color`."""
    parser.add_argument("--no-color", action="store_true", help="no colors (NO_COLOR does the same)")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Accept the config as a flag and as an argument, whose default must not replace the value of the flag."""
    parser.add_argument(
        "--config.file",
        dest="config_file",
        metavar="FILE",
        help=f"config (default: {DEFAULT_FILE}; if there is none: DATABASE_URL, REDIS_URL, BOT_PROCESS, API_URL, "
        "WEBSOCKET_URL)",
    )
    parser.add_argument(
        "config_file",
        nargs="?",
        default=argparse.SUPPRESS,
        metavar="FILE",
        help="the same as --config.file=FILE",
    )


def add_shard(parser: argparse.ArgumentParser) -> None:
    """Accept a share of the services; its default is an environment variable."""
    parser.add_argument(
        "--shard",
        default=os.environ.get("CONNECTION_EXPORTER_SHARD")
        or "1",  # text, so that argparse checks it as it does a flag
        metavar="K/N",
        type=_shard,
        help="monitor part K of N of the services, counted from 0; N alone takes K from a StatefulSet pod's host name "
        "(default: CONNECTION_EXPORTER_SHARD, or all services)",
    )


def add_web(parser: argparse.ArgumentParser) -> None:
    """Accept where to listen, the path of the metrics, and origins."""
    parser.add_argument(
        "--web.listen-address",
        dest="listen",
        action="append",
        metavar="ADDRESS",
        type=address,
        help="host:port to listen on; repeatable (default: :8000)",
    )
    parser.add_argument(
        "--web.telemetry-path",
        dest="telemetry_path",
        default=TELEMETRY,
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


def add_web_config(parser: argparse.ArgumentParser) -> None:
    """Accept the web config file. An empty path means none, as in Prometheus' exporters."""
    parser.add_argument(
        "--web.config.file",
        dest="web_config",
        type=path_or_none,
        metavar="FILE",
        help="TLS, users and headers of the listener, in exporter-toolkit's schema; empty for none",
    )


def address(text: str) -> str:
    """Return an address to listen on as it is written, if it can be one."""
    from connection_exporter.web.server import CannotListen, parse_address

    try:
        parse_address(text)
    except CannotListen as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def path_or_none(text: str) -> Path | None:
    """Return a path, or ``None`` for an empty text, which `Path` takes for the current folder."""
    return Path(text) if text else None


def folder(text: str) -> Path:
    """Return the path of a folder to write to. An empty one is a mistake, as of a script without the variable."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: name a folder, or write . for the current one")
    return Path(text)


def add_log(parser: argparse.ArgumentParser) -> None:
    """Accept the level and the format of the log."""
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
    if is_taken(text):
        raise argparse.ArgumentTypeError(f"{text!r} is the path of another route: choose a different one")
    if "{" in text or "}" in text:
        raise argparse.ArgumentTypeError(f"{text!r} contains a brace: choose a path without one")
    return text


def _shard(text: str) -> "Shard":
    from connection_exporter.config.shard import parse_shard

    try:
        return parse_shard(text, socket.gethostname())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _origin(text: str) -> str:
    from connection_exporter.web.requests import is_origin

    if not is_origin(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an origin: write it as browsers do, such as https://grafana.example.com, "
            "with no path, no capitals and no default port"
        )
    return text
