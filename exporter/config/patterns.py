"""Owns regular expressions as people write them: for RE2, which never backtracks, whatever it is fed.

RE2 knows neither look-around nor backreferences (https://github.com/google/re2/wiki/Syntax); a pattern that
needs them is a mistake in the config.
"""

from typing import Annotated, Final

import re2
from pydantic import AfterValidator

_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False  # RE2 would print them to stderr itself


class CompiledPattern:
    """A pattern that is searched for in UTF-8 bytes."""

    __slots__ = ("_compiled", "source")

    def __init__(self, source: str) -> None:
        """Compile ``source``. Raises ValueError, which says what is wrong with it."""
        self.source = source
        try:
            self._compiled = re2.compile(source.encode(), _OPTIONS)
        except re2.error as error:
            told = error.args[0]
            text = told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
            raise ValueError(f"not a regular expression that RE2 knows: {text}") from None

    def found_in(self, text: bytes) -> bool:
        """Tell whether the pattern matches anywhere in ``text``."""
        return self._compiled.search(text) is not None


def _compiles(source: str) -> str:
    CompiledPattern(source)
    return source


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression; `CompiledPattern` makes it usable."""
