"""Owns what it means that a secret's file cannot be read when a session is made: no right to enter, and why."""

from collections.abc import Iterator
from contextlib import contextmanager

from exporter.check import Failure
from exporter.core.health import Reason


@contextmanager
def reading(key: str) -> Iterator[None]:
    """Turn the errors of reading the file that the config names by ``key`` into `Failure` (auth)."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise Failure(Reason.AUTH, f"{key} cannot be read: {why}") from error
