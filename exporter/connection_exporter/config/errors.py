"""Owns what is said about a config that is not valid: every error at once, each with its file, line and path."""

from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Final

from connection_exporter.config.document import MAX_BYTES, Mistake

_LONGEST_KEY: Final = 80


class ConfigError(Exception):
    """All errors in a config; ``str()`` has one line for each. ``source`` is the file of those that name no other.

    ``files`` are those that the config names and that cannot be used.
    """

    def __init__(self, source: str, mistakes: Iterable[Mistake], files: Iterable[FilePath] = ()) -> None:
        self.source = source
        self.files = tuple(files)
        self.mistakes = tuple(dict.fromkeys(sorted(mistakes, key=lambda m: (m.source or "", m.line or 0))))
        self.lines = tuple(_line(mistake.source or source, mistake) for mistake in self.mistakes)
        super().__init__("\n".join(self.lines))


def read_text(path: FilePath) -> str:
    """Return what is in a file, as much of it as is taken. Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            written = file.read(MAX_BYTES + 1)
        return written.decode("utf-8")
    except UnicodeDecodeError as error:
        line = written.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(path), [Mistake(line, (), "not UTF-8: save the file as UTF-8")]) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(str(path), [Mistake(None, (), f"cannot be read: {reason}")]) from None


def short_key(key: str) -> str:
    """Return a key for a message, cut if it is long, and quoted if it is not printable."""
    short = key if len(key) <= _LONGEST_KEY else key[:_LONGEST_KEY] + "…"
    return short if short and short.isprintable() else repr(short)


def _line(source: str, mistake: Mistake) -> str:
    place = f"{source}:{mistake.line}" if mistake.line else source
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{short_key(part)}" for part in mistake.path)
    return f"{place}: {path.lstrip('.')}: {mistake.text}" if path else f"{place}: {mistake.text}"
