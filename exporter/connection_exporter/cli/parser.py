"""Builds the parser of the command line: the commands, and the text of each `--help`. `flags` has the shared flags.

Imports little, so that `--help` and `--version` are quick. What a command does is in `connection_exporter.cli.main`.
"""

import argparse
from typing import TYPE_CHECKING, Final

from connection_exporter import __version__
from connection_exporter.cli import flags
from connection_exporter.cli.arguments import Parser

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[Parser]  # noqa: SLF001 - argparse has no public name

SHELLS: Final = ("bash", "zsh", "fish")
_VERSION: Final = f"connection-exporter {__version__}"


def build_parser(first: str | None = None) -> argparse.ArgumentParser:
    """Return the parser. The name of the command is in ``command`` of what it parses.

    If ``first``, the first argument, is a command, it knows no other: to build all eight takes 5 ms.
    """
    parser = Parser(
        prog="connection-exporter",
        description="""\
Hold a live connection to everything a system depends on, and report at once
when one breaks.""",
        epilog="""\
Without a command, `serve` is run. Each command has its own --help.

examples:
  connection-exporter demo             see it work, with five services of its own
  connection-exporter validate my.yml  check a config
  connection-exporter check my.yml     check each service once
  connection-exporter my.yml           monitor the services and serve the results""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_VERSION)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", prog=parser.prog)
    every = (_serve, _check, _validate, _watch, _demo, _assets, _schema, _completion)
    named = {add.__name__.removeprefix("_"): add for add in every}
    for add in (named[first],) if first in named else every:
        add(commands)
    return parser


def _command(
    commands: "_Commands", name: str, *, summary: str, about: str, examples: str
) -> argparse.ArgumentParser:
    """Add a command. The texts are shown as they are written here, so lines have at most 80 characters."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=about,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=name)
    return parser


def _serve(commands: "_Commands") -> None:
    parser = _command(
        commands,
        "serve",
        summary="monitor and serve until SIGINT or SIGTERM (the default)",
        about="""\
Monitor the services of a config, and serve their state to curl, Prometheus and
browsers, until SIGINT or SIGTERM. SIGHUP reloads the config, and so does a
change of the file. Exit status: 0 after a signal, 1 the exporter failed, or
cannot listen or use --storage.path, 2 bad config.""",
        examples="""\
  connection-exporter
  connection-exporter serve /etc/connection-exporter/connection-exporter.yml
  connection-exporter --web.listen-address=127.0.0.1:8000 --log.format=json
  DATABASE_URL=postgresql://app@db/app connection-exporter""",
    )
    parser.add_argument("--version", action="version", version=_VERSION)
    flags.add_config(parser)
    flags.add_web(parser)
    parser.add_argument(
        "--web.systemd-socket",
        dest="systemd_socket",
        action="store_true",
        help="listen on the sockets that systemd passes, instead of --web.listen-address (Linux only)",
    )
    flags.add_web_config(parser)
    parser.add_argument(
        "--web.enable-lifecycle",
        dest="lifecycle",
        action="store_true",
        help="allow POST /-/reload (SIGHUP and a change of the file always reload)",
    )
    flags.add_shard(parser)
    parser.add_argument(
        "--storage.path",
        dest="storage",
        type=flags.path_or_none,
        metavar="FOLDER",
        help="folder for transitions, which then survive a restart; created if absent (default: memory only)",
    )
    flags.add_log(parser)


def _check(commands: "_Commands") -> None:
    parser = _command(
        commands,
        "check",
        summary="make one attempt and one canary for each service, and print the result",
        about="""\
Make one attempt and one canary for each service, and print a table or JSON.
One failed attempt already means disconnected.
Exit status: 0 healthy, 1 degraded, 2 bad config, 3 partial or unknown.""",
        examples="""\
  connection-exporter check
  connection-exporter check my.yml
  connection-exporter check --format=json | jq .services.database.reason""",
    )
    flags.add_config(parser)
    flags.add_shard(parser)
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: %(default)s")
    flags.add_color(parser)


def _validate(commands: "_Commands") -> None:
    parser = _command(
        commands,
        "validate",
        summary="check the config; print its warnings and detection bounds",
        about="""\
Check a config without connecting to anything. Print how quickly each failure
would be detected, and a warning for each setting that will not work as
expected. Exit status: 0 valid, 2 bad config.""",
        examples="""\
  connection-exporter validate
  connection-exporter validate my.yml --web.config.file=web.yml""",
    )
    flags.add_config(parser)
    flags.add_shard(parser)
    parser.add_argument(
        "--web.listen-address",
        dest="listen",
        action="append",
        metavar="ADDRESS",
        type=flags.address,
        help="as for serve; used for warnings",
    )
    flags.add_web_config(parser)


def _watch(commands: "_Commands") -> None:
    parser = _command(
        commands,
        "watch",
        summary="show the live board of an exporter in the terminal",
        about="""\
Show the live board of a running exporter in the terminal; q or Ctrl-C ends it.
This needs the extra `terminal`: pip install 'connection-exporter[terminal]'.
Without it, or if the output is not a terminal, it prints a line for each
transition. Exit status: 0 ended by q, 1 the exporter could not be reached, 130
ended by Ctrl-C.""",
        examples="""\
  connection-exporter watch
  connection-exporter watch https://monitor.example.com
  connection-exporter watch | grep database""",
    )
    parser.add_argument(
        "url", nargs="?", default="http://localhost:8000", metavar="URL", help="default: %(default)s"
    )
    flags.add_color(parser)


def _demo(commands: "_Commands") -> None:
    parser = _command(
        commands,
        "demo",
        summary="start five real services, and monitor them",
        about="""\
Start PostgreSQL, Redis, an HTTP API, a WebSocket feed and a bot process on
127.0.0.1, and monitor them until Ctrl-C. Neither Docker nor root is needed, but
the extra `demo`: pip install 'connection-exporter[demo]'.""",
        examples="""\
  connection-exporter demo
  connection-exporter demo --chaos
  connection-exporter demo --web.listen-address=127.0.0.1:9000""",
    )
    parser.add_argument("--chaos", action="store_true", help="break the services in turn")
    flags.add_web(parser)
    flags.add_log(parser)


def _assets(commands: "_Commands") -> None:
    parser = _command(
        commands,
        "assets",
        summary="write the rules, dashboards and templates that ship with this version",
        about="""\
Write the Prometheus rules, the Grafana dashboards, Alertmanager's config and
templates, the runbooks and the JSON Schema of this version to a folder, and say
what to do with them. A file that you have changed is kept unless you give
--force. Exit status: 0 written, 1 a changed file is in the way.""",
        examples="""\
  connection-exporter assets monitoring
  connection-exporter assets --force monitoring   # after an upgrade""",
    )
    parser.add_argument(
        "folder", type=flags.folder, metavar="FOLDER", help="where to write; created if absent"
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that were changed")


def _schema(commands: "_Commands") -> None:
    _command(
        commands,
        "schema",
        summary="print the JSON Schema of the config file, for editors",
        about="""\
Print the JSON Schema of the config file, with the kinds that are installed
here. Editors that know YAML complete and check a config whose first line is
  # yaml-language-server: $schema=schema.json""",
        examples="  connection-exporter schema > schema.json",
    )


def _completion(commands: "_Commands") -> None:
    parser = _command(
        commands,
        "completion",
        summary="print a completion script for bash, zsh or fish",
        about="Print a completion script for a shell.",
        examples="""\
  source <(connection-exporter completion bash)
  connection-exporter completion bash \\
    > ~/.local/share/bash-completion/completions/connection-exporter
  connection-exporter completion zsh > "${fpath[1]}/_connection-exporter"
  connection-exporter completion fish \\
    > ~/.config/fish/completions/connection-exporter.fish""",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that the script is for")
