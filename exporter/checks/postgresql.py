"""Owns kind postgresql: one connection held open, what it is asked, and what PostgreSQL's answers mean."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import asyncpg

from exporter.check import Failure, Json, Observation, Session, Traits
from exporter.checks.postgresql_errors import BY_SQLSTATE, BadAnswer, answers
from exporter.checks.postgresql_facts import DEPTH, METRICS, judge, read_depth
from exporter.checks.postgresql_link import DialingLoop
from exporter.checks.secret_file import reading
from exporter.config.kinds.postgresql import PostgresqlConfig
from exporter.core.health import Reason
from exporter.net import Network, TlsOptions
from exporter.net.certificate import CERTIFICATE_EXPIRY, certificate_expiry
from exporter.net.failures import REASONS

_NO_LIMIT: Final = 3600.0
"""Seconds. asyncpg wants a limit; the attempt's own deadline is far below."""


class PostgresqlCheck:
    """One PostgreSQL server."""

    Config = PostgresqlConfig
    traits = Traits(
        reasons=REASONS | set(BY_SQLSTATE.values()) | {Reason.QUERY, Reason.EXPECT, Reason.ROLE, Reason.SLOW},
        metrics=METRICS,
    )

    def __init__(self, config: PostgresqlConfig, network: Network) -> None:
        self._config = config
        self._network = network
        # of the last certificate met: a held session may be older than a renewed one
        self._certificate: dict[str, Json] = {}

    @property
    def address(self) -> str:
        """The configured host:port or Unix socket."""
        return self._config.address

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """Connect and authenticate. Raises `Failure`."""
        config = self._config
        dialer = DialingLoop(
            self._network,
            socket_path=config.socket_path,
            server_name=config.tls.server_name,
            where=config.address,
        )
        with reading("password_file"):
            password = config.read_password()
        began = time.monotonic()
        try:
            with answers(config.address, "answer the start of a session"):
                connection = await asyncpg.connect(  # type: ignore[call-overload]
                    host=config.host if config.socket_path is None else "localhost",
                    port=config.port,
                    user=config.login_user,
                    password=password,
                    database=config.database or config.login_user,
                    ssl=await self._ssl(),
                    timeout=_NO_LIMIT,
                    statement_cache_size=0,
                    server_settings={"application_name": "connection-exporter"},
                    loop=dialer,
                )
        except Failure as failure:
            raise dialer.ended or failure from failure
        except BadAnswer as bad:  # whatever the server says instead of letting us in, there is no session
            raise Failure(bad.reason, f"{config.address}: {bad.message}") from bad
        try:
            seconds = time.monotonic() - began - dialer.seconds
            self._certificate.clear()
            if dialer.tls is not None:  # with `prefer`, not every time
                self._certificate[CERTIFICATE_EXPIRY] = certificate_expiry(dialer.tls)
            held = _Held(config, connection, dialer, self._certificate, auth_seconds=max(seconds, 0.0))
            await held.prepare()
            yield held
        finally:
            connection.terminate()

    async def _ssl(self) -> Any:
        """Return asyncpg's ``ssl``: a mode in words, or a context of ours where TLS is a must."""
        config = self._config
        if config.socket_path is not None:
            return "disable"
        if config.sslmode in ("disable", "prefer"):
            return config.sslmode
        tls = config.tls
        return await self._network.tls_context(
            TlsOptions(
                verify=config.sslmode != "require" or tls.ca_file is not None,
                check_hostname=config.sslmode == "verify-full",
                ca_file=tls.ca_file,
                cert_file=tls.cert_file,
                key_file=tls.key_file,
            )
        )


class _Held:
    """A connection to PostgreSQL that is watched while it is idle."""

    def __init__(
        self,
        config: PostgresqlConfig,
        connection: Any,
        dialer: DialingLoop,
        certificate: Mapping[str, Json],
        *,
        auth_seconds: float,
    ) -> None:
        assert dialer.link is not None
        assert dialer.tap is not None
        self.lost = dialer.tap.lost
        self._config = config
        self._connection = connection
        self._link = dialer.link
        self._tap = dialer.tap
        self._depth: Any = None
        self._constant: dict[str, Json] = {
            "resolve_seconds": self._link.resolve_seconds,
            "connect_seconds": self._link.connect_seconds,
            "auth_seconds": auth_seconds,
            "server_version": connection.get_settings().server_version[:100],
        }
        self._certificate = certificate

    @property
    def peer(self) -> str | None:
        return self._link.peer

    @property
    def addresses(self) -> frozenset[str]:
        return self._link.addresses

    async def prepare(self) -> None:
        """Set what a session keeps; nothing of it would survive a pooler in transaction mode. Raises `Failure`.

        A server that knows less than PostgreSQL (a pooler, a proxy, a relative) goes without depth.
        """
        config = self._config
        if config.pooler:
            return
        try:
            with answers(config.address, "answer SET"):
                await self._connection.execute(f"SET statement_timeout = {_statement_timeout(config)}")
                if config.depth:
                    self._depth = await self._connection.prepare(DEPTH)
        except BadAnswer as bad:
            self._constant["depth_error"] = bad.message

    async def probe(self) -> Observation:
        """Execute the query, and ask for depth. Raises `Failure` when the session is gone."""
        self._tap.asking = True
        try:
            return await self._probe()
        except Failure as failure:
            # how the link ended says more than what asyncpg makes of it
            raise (self.lost.result() if self.lost.done() else failure) from failure
        finally:
            self._tap.asking = False

    async def _probe(self) -> Observation:
        config, details = self._config, {**self._constant, **self._certificate}
        began = time.monotonic()
        try:
            with answers(config.address, "answer the query"):
                value = await self._query()
        except BadAnswer as bad:
            return Observation(bad.reason, bad.message, details)
        details["query_seconds"] = time.monotonic() - began
        if self._depth is not None:
            try:
                with answers(config.address, "answer the query for depth"):
                    details.update(read_depth(await self._depth.fetchrow()))
            except BadAnswer as bad:
                details["depth_error"] = bad.message
        return judge(config, value, details)

    async def _query(self) -> object:
        """Execute the query: over the simple protocol, which every pooler passes on, unless its value counts."""
        config = self._config
        if config.expect.value is None:
            limit = f"SET LOCAL statement_timeout = {_statement_timeout(config)}; " if config.pooler else ""
            with suppress(AttributeError):  # asyncpg's, at the answer to an empty query: `;` is a ping
                await self._connection.execute(limit + config.query)
            return None
        if not config.pooler:
            return await self._connection.fetchval(config.query)
        async with self._connection.transaction():  # one server for parse and execute
            return await self._connection.fetchval(config.query)


def _statement_timeout(config: PostgresqlConfig) -> int:
    """Milliseconds after which the server itself gives up, a little before we do: it is alive, and says so."""
    return max(int(config.timeout * 900), 1)
