"""Kind postgresql: one connection held open, what a probe asks, and how the answers are judged."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Json, Observation, Session, Traits
from connection_exporter.kinds.postgresql.attributes import changed
from connection_exporter.kinds.postgresql.config import Attributes, PostgresqlConfig
from connection_exporter.kinds.postgresql.connection import Connection
from connection_exporter.kinds.postgresql.depth import COLUMNS, DEPTH, METRICS, judge, read_depth
from connection_exporter.kinds.postgresql.errors import BY_SQLSTATE
from connection_exporter.kinds.postgresql.hosts import Connector
from connection_exporter.kinds.postgresql.messages import (
    Violation,
    execute_prepared,
    prepare,
    query_one_row,
    simple_query,
)
from connection_exporter.kinds.postgresql.question import Answer, Question
from connection_exporter.net import Network
from connection_exporter.net.failures import REASONS

_DEPTH: Final = execute_prepared("depth")
_QUERY: Final = "the query"

_PGBOUNCER_CONSOLE: Final = "/bouncer"
"""The end of the version that PgBouncer's admin console gives. The console closes on anything but a simple query."""

_REFUSES_SET: Final = ("08P01", "0A000", "42601")
"""What other poolers' admin consoles may answer to SET: protocol violation, not supported, syntax error."""


class PostgresqlCheck:
    """One PostgreSQL server, or the first of several that is what the config asks for."""

    traits = Traits(
        reasons=REASONS
        | set(BY_SQLSTATE.values())
        | {Reason.QUERY, Reason.EXPECT, Reason.ROLE, Reason.SLOW, Reason.TOO_LARGE},
        metrics=METRICS,
    )

    def __init__(self, config: PostgresqlConfig, network: Network) -> None:
        self._config = config
        self._connector = Connector(config, network)

    @property
    def address(self) -> str:
        """The configured host:port or Unix socket; of several hosts, with commas between them."""
        return self._config.address

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """Connect and authenticate. Raises `Failure`."""
        connection, wanted = await self._connector.connect()
        try:
            session = PostgresqlSession(self._config, connection, wanted)
            await session.prepare()
            yield session
        finally:
            connection.wire.close()


class PostgresqlSession:
    """A session with PostgreSQL, whose end is noticed even while it is idle."""

    def __init__(self, config: PostgresqlConfig, connection: Connection, wanted: Attributes) -> None:
        self.lost = connection.wire.lost
        self.peer = connection.link.peer
        self.addresses = connection.link.addresses
        self._config = config
        self._connection = connection
        self._wire = connection.wire
        self._wanted = wanted
        self._depth: Question | None = None
        self._depth_error: str | None = None
        self._depth_read: tuple[Answer, dict[str, Json]] | None = None
        self._columns = 0 if config.expect.value is None else 1
        self._is_console = self._wire.parameters.get("server_version", "").endswith(_PGBOUNCER_CONSOLE)
        request = simple_query(config.query) if self._is_console else _query(config)
        self._query = Question(request, _QUERY, columns=self._columns)

    async def prepare(self) -> None:
        """Set what a session keeps; nothing of it would survive a pooler in transaction mode. Raises `Failure`.

        A server that knows less than PostgreSQL (a pooler, a proxy, a relative) goes without depth.
        """
        config = self._config
        if config.pooler or self._is_console:
            return
        requests = [simple_query(f"SET statement_timeout = {_statement_timeout(config)}")]
        if config.depth:
            requests.append(prepare("depth", DEPTH))
        for request in requests:
            question = Question(request, "SET")
            await self._wire.ask(question)
            if question.answer.error is not None:
                self._depth_error = str(question.answer.error)
                return
        if config.depth:
            self._depth = Question(_DEPTH, "the query for depth", columns=COLUMNS)

    async def probe(self) -> Observation:
        """Execute the query and the query for depth, in one round trip. Raises `Failure` when the session is gone."""
        depth = self._depth
        questions = (self._query,) if depth is None else (self._query, depth)
        await self._wire.ask(*questions)
        answer = self._query.answer
        if answer.error is not None and self._config.pooler and answer.error.state in _REFUSES_SET:
            answer = await self._ask_plainly(answer)
        details: dict[str, Json] = {
            **self._connection.details.current(),
            "server_version": self._wire.parameters.get("server_version"),
        }
        if self._depth_error is not None:
            details["depth_error"] = self._depth_error
        details["query_seconds"] = self._query.seconds
        if depth is not None:
            details.update(self._read_depth(depth.answer))
        if (problem := changed(self._connection, self._wanted)) is not None:
            raise Failure(Reason.ROLE, problem)  # as at the login, so that the other hosts are tried
        if answer.error is not None:
            reason = Reason.PERMISSION if answer.error.reason is Reason.PERMISSION else Reason.QUERY
            return Observation(reason, str(answer.error), details)
        return judge(self._config, answer, details)

    async def _ask_plainly(self, refused: Answer) -> Answer:
        """Ask by the bare query, the only form that an admin console takes. Keep to it if it is answered."""
        bare = Question(simple_query(self._config.query), _QUERY, columns=self._columns)
        if self._query.request == bare.request:
            return refused
        await self._wire.ask(bare)
        if bare.answer.error is None:
            self._query = bare
        return bare.answer

    def _read_depth(self, answer: Answer) -> dict[str, Json]:
        """Return what ``answer`` says, which is read once if it is repeated. Raises `Failure`."""
        if answer.error is not None:
            return {"depth_error": str(answer.error)}
        if self._depth_read is None or self._depth_read[0] is not answer:
            try:
                self._depth_read = answer, read_depth(answer.row)
            except Violation as violation:
                raise Failure(
                    violation.reason, f"{self._connection.where} {violation.message}"
                ) from violation
        return self._depth_read[1]


def _query(config: PostgresqlConfig) -> bytes:
    """Return the request of a probe.

    It uses the simple protocol, which every pooler passes on and which takes any number of statements, an empty query
    (`;`) included. Only where a value is expected is one statement executed, and one row fetched at most.
    """
    if config.expect.value is not None:
        return query_one_row(config.query)
    limit = f"SET LOCAL statement_timeout = {_statement_timeout(config)}; " if config.pooler else ""
    return simple_query(limit + config.query)


def _statement_timeout(config: PostgresqlConfig) -> int:
    """Return the milliseconds after which the server itself cancels a query.

    This is a little less than our own deadline, so that the session survives and the answer says what happened.
    """
    return max(int(config.timeout * 900), 1)
