"""Owns what is said about a wrong argument: one line, with what was probably meant, and where the help is."""

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

_INVALID_CHOICE: Final = r"invalid choice: '([^']*)' \(choose from (.*)\)"
_BAD_ARGUMENT: Final = 2


class Parser(argparse.ArgumentParser):
    """A parser of the program or of a command, which reports its own errors without the list of all flags.

    A flag must be written in full: a part of a name would mean another flag, or none, after an upgrade.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given, allow_abbrev=False)

    def parse_known_args(  # type: ignore[override]  # argparse's overloads are for namespaces of other types
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments. Those that are not known are errors of this command, and not of the program."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            near = _nearest(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{near}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and exit with status 2."""
        if choice := re.search(_INVALID_CHOICE, message):
            message += _nearest(choice[1], re.findall(r"[\w-]+", choice[2]))
        self.exit(_BAD_ARGUMENT, f"{self.prog}: error: {message}\nSee {self.prog} --help\n")


def _nearest(word: str, known: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 - most arguments are right

    found = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.7)
    return f": did you mean {found[0]}?" if found else ""
