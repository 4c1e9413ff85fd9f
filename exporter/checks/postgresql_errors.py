"""Owns what the errors of PostgreSQL, of asyncpg and of a pooler mean in our words."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import asyncpg

from exporter.check import Failure
from exporter.core.health import Reason
from exporter.net import translated

# https://www.postgresql.org/docs/current/errcodes-appendix.html
BY_SQLSTATE: Final[Mapping[str, Reason]] = {
    "08P01": Reason.PROTOCOL,
    "28000": Reason.AUTH,
    "28P01": Reason.AUTH,
    "3D000": Reason.MISSING,
    "42501": Reason.PERMISSION,
    "53300": Reason.SLOTS_FULL,
    "57P01": Reason.SHUTDOWN,
    "57P02": Reason.SHUTDOWN,
    "57P03": Reason.STARTING,
    "57P05": Reason.IDLE_CLOSED,
}
# PgBouncer's own words, which in many of its versions all have the state 08P01 (https://www.pgbouncer.org)
_BY_POOLERS_TEXT: Final = (
    ("no more connections allowed", Reason.SLOTS_FULL),
    ("no such database", Reason.MISSING),
    ("no such user", Reason.AUTH),
    ("server login has been failing", Reason.UNREACHABLE),
    ("query_wait_timeout", Reason.TIMEOUT),
)
_NO_SESSION: Final = ("08", "28", "3D", "53300", "57P")
"""Beginnings of the SQLSTATEs after which there is no session."""


class BadAnswer(Exception):
    """The server is there, and answered with an error."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def reason_of(state: str, text: str) -> Reason | None:
    """Return what an error means by its SQLSTATE, or by a pooler's own words; ``None`` if that is not known."""
    if state == "08P01":
        for words, reason in _BY_POOLERS_TEXT:
            if words in text:
                return reason
    return BY_SQLSTATE.get(state)


@contextmanager
def answers(where: str, waiting_for: str) -> Iterator[None]:
    """Map asyncpg's errors: to `Failure` where there is no session, to `BadAnswer` where there is one.

    ``waiting_for`` completes "… does not", should the deadline strike inside the block.
    """
    try:
        with translated(where), _refusal_of_tls(where):
            yield
    except asyncio.CancelledError as cancelled:
        if cancelled.__cause__ is not None:  # who was waited for has been said further down
            raise
        raise cancelled from Failure(Reason.TIMEOUT, f"{where} does not {waiting_for}")
    except asyncpg.PostgresError as error:
        state = error.sqlstate or ""
        reason = reason_of(state, str(error.args[0]) if error.args else "")
        if not state.startswith(_NO_SESSION):
            raise BadAnswer(reason or Reason.QUERY, _text(error)) from error
        raise Failure(reason or Reason.EOF, f"{where}: {_text(error)}") from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise Failure(Reason.PROTOCOL, f"{where}: {error}") from error
    except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
        # asyncpg decodes what it is sent without doubting it
        told = f"{where} does not speak PostgreSQL's protocol ({type(error).__name__})"
        raise Failure(Reason.PROTOCOL, told) from error


@contextmanager
def _refusal_of_tls(where: str) -> Iterator[None]:
    """Tell a server that does no TLS, for which asyncpg has a ConnectionError, from a reset."""
    try:
        yield
    except ConnectionError as error:
        if "rejected SSL upgrade" not in str(error):
            raise
        raise Failure(Reason.TLS, f"{where} does no TLS, which sslmode asks for") from error


def _text(error: asyncpg.PostgresError) -> str:
    return f"{error.args[0] if error.args else type(error).__name__} ({error.sqlstate})"
