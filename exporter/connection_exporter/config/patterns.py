"""Compiles the regular expressions of the config with RE2, which never backtracks.

RE2 knows neither look-around nor backreferences (https://github.com/google/re2/wiki/Syntax); a pattern that
needs them is an error in the config.
"""

from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

if TYPE_CHECKING:
    import re2


class CompiledPattern:
    """A pattern that is searched for in UTF-8 bytes."""

    __slots__ = ("_compiled", "_groups", "size", "source")

    def __init__(self, source: str) -> None:
        """Compile ``source``. Raises ValueError, which says what is wrong with it."""
        import re2  # noqa: PLC0415 - 2 ms and 2.4 MiB, which a config without patterns does without

        self.source = source
        try:
            self._compiled = re2.compile(source.encode(), _options())
        except re2.error as error:
            message = error.args[0]
            text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
            raise ValueError(f"not a valid regular expression (RE2): {text}") from None
        # At worst, a search takes time for each byte and instruction.
        self.size: int = self._compiled.programsize
        self._groups = {name.decode(): index for name, index in self._compiled.groupindex.items()}

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the named groups, ``(?P<name>…)``."""
        return tuple(self._groups)

    def found_in(self, text: bytes) -> bool:
        """Return whether the pattern matches anywhere in ``text``."""
        return self._compiled.search(text) is not None

    def groups_in(self, text: bytes) -> dict[str, str] | None:
        """Return what the named groups capture of the first match, or ``None`` if nothing in ``text`` matches."""
        found = self._compiled.search(text)
        if found is None:
            return None
        return {
            name: (found.group(index) or b"").decode("utf-8", "replace")
            for name, index in self._groups.items()
        }


@cache
def _options() -> "re2.Options":
    import re2  # noqa: PLC0415 - as above

    options = re2.Options()
    options.log_errors = False  # RE2 would print them to stderr itself
    return options


def _compiles(source: str) -> str:
    CompiledPattern(source)
    return source


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression; `CompiledPattern` makes it usable."""
