"""Reads which authentication methods ``require_auth`` allows. Authenticating itself is in `authentication`."""

from typing import Final

METHODS: Final = frozenset({"password", "md5", "gss", "sspi", "scram-sha-256", "none"})
"""Authentication methods as libpq's require_auth names them; ``none`` is a server that asks for nothing."""


def parse_methods(text: str | None) -> frozenset[str]:
    """Return the methods that a value of ``require_auth`` allows: those in the list, or all but those with a ``!``.

    Raises ValueError.
    """
    if not text:
        return METHODS
    words = [word.strip() for word in text.split(",")]
    negated = [word for word in words if word.startswith("!")]
    names = {word.removeprefix("!") for word in words}
    if not names <= METHODS or len(negated) not in (0, len(words)):
        raise ValueError(
            f"expected {', '.join(sorted(METHODS))}, or all of them with a ! before each one to refuse"
        )
    return METHODS - names if negated else frozenset(names)
