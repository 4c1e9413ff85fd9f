"""The command ``completion``: prints a script with which a shell completes our commands and flags."""

import argparse
from collections.abc import Iterator

import shtab

from connection_exporter.cli.parser import build_parser

_FILES = {"FILE": shtab.FILE, "FOLDER": shtab.DIRECTORY}


def completion(shell: str) -> str:
    """Return the script for ``shell``, which is one of `connection_exporter.cli.parser.SHELLS`."""
    parser = build_parser()
    for action in _actions(parser):
        if action.metavar in _FILES:
            action.complete = _FILES[action.metavar]  # type: ignore[attr-defined]  # where shtab looks for it
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the actions of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
