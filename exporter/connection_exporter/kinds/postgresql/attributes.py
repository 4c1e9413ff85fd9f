"""Finds out whether a server is what ``target_session_attrs`` asks for, at the login and later.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TARGET-SESSION-ATTRS
"""

from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kinds.postgresql.config import Attributes
from connection_exporter.kinds.postgresql.connection import Connection, Passed
from connection_exporter.kinds.postgresql.messages import simple_query
from connection_exporter.kinds.postgresql.question import Question

_READ_ONLY: Final = ("default_transaction_read_only", "in_hot_standby")
_STANDBY: Final = ("in_hot_standby",)
"""What a server reports of itself, at the login and when it changes, since PostgreSQL 14. One that is on is enough."""

_CONDITIONS: Final[dict[str, tuple[tuple[str, ...], bool, str]]] = {
    "read-write": (_READ_ONLY, False, "the session is read-only"),
    "read-only": (_READ_ONLY, True, "the session is not read-only"),
    "primary": (_STANDBY, False, "the server is a standby"),
    "standby": (_STANDBY, True, "the server is not a standby"),
}
"""What has to be on or off, and what is said of a server where it is not."""

_QUERIES: Final = {
    _READ_ONLY: "SHOW transaction_read_only",
    _STANDBY: "SELECT pg_catalog.pg_is_in_recovery()",
}
"""What older servers, and poolers that report nothing, are asked instead."""


async def require(connection: Connection, wanted: Attributes) -> None:
    """Raise `Passed` (role) unless the server is as ``wanted``."""
    if wanted not in _CONDITIONS:
        return
    parameters, _, _ = _CONDITIONS[wanted]
    state = _reported(connection, parameters)
    if state is None:
        query = _QUERIES[parameters]
        question = Question(simple_query(query), query, columns=1)
        await connection.wire.ask(question)
        answer = question.answer
        if answer.error is not None or not answer.row:
            text = f"{connection.where} does not say whether it is {wanted}: {answer.error or 'no answer'}"
            raise Passed(Reason.ROLE, text)
        state = answer.row[0] in ("on", "t")
    if (problem := _problem(connection, wanted, state)) is not None:
        raise Passed(Reason.ROLE, problem)


def changed(connection: Connection, wanted: Attributes) -> str | None:
    """Return what has become wrong with a server since `require`; ``None`` if it is as ``wanted``, or does not say."""
    if wanted not in _CONDITIONS:
        return None
    state = _reported(connection, _CONDITIONS[wanted][0])
    return None if state is None else _problem(connection, wanted, state)


def _reported(connection: Connection, parameters: tuple[str, ...]) -> bool | None:
    values = [connection.wire.parameters.get(name) for name in parameters]
    return None if None in values else "on" in values


def _problem(connection: Connection, wanted: Attributes, state: bool) -> str | None:
    _, needed, text = _CONDITIONS[wanted]
    if state == needed:
        return None
    return f"{connection.where}: {text}, and target_session_attrs is {wanted}"
