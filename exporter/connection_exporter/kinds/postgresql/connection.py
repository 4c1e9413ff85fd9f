"""Makes a connection to one host: dial, TLS as `sslmode` says, and the login.

Nothing is read from the environment or from files of our own account: no `PG*` variables, no `~/.pgpass`, no
`~/.postgresql`. The config is all there is.
"""

import asyncio
import ssl
import time
from dataclasses import replace
from typing import Final, NamedTuple

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.postgresql.config import PostgresqlConfig
from connection_exporter.kinds.postgresql.login import log_in
from connection_exporter.kinds.postgresql.messages import SSL_REQUEST, malformed
from connection_exporter.kinds.postgresql.methods import parse_methods
from connection_exporter.kinds.postgresql.targets import Target
from connection_exporter.kinds.postgresql.wire import Refused, Wire
from connection_exporter.net import Endpoint, Link, LinkDetails, Network, TlsOptions

_TRIES: Final = {"disable": (False,), "allow": (False, True), "prefer": (True, False)}
"""Whether to ask for TLS, in each try. The other modes ask for it once, and need it."""

_STARTING: Final = "57P03"


class Passed(Failure):
    """A host that is passed over: libpq goes on to the next one, and not after any other failure."""


class Connection(NamedTuple):
    """A connection that is logged in."""

    wire: Wire
    link: Link
    where: str
    details: LinkDetails
    """Those of the link, the host, and the duration of TLS and authentication."""


class HostConnector:
    """Makes the connections of one service to one of its hosts."""

    def __init__(self, config: PostgresqlConfig, network: Network, target: Target) -> None:
        self._config = config
        self._network = network
        self._target = target
        self.where = target.name
        self._tls = _tls_options(config, target)
        self._endpoint = Endpoint(
            network, target.dialed, target.port, where=self.where, tls=self._tls, tls_later=True
        )

    async def connect(self) -> Connection:
        """Connect and log in. Raises `Failure`, with everything closed; `Passed` where another host may be tried."""
        password = await self._config.read_password_for(self._target)
        first, *others = (False,) if self._target.is_socket else _TRIES.get(self._config.sslmode, (True,))
        try:
            return await self._try(password, tls=first)
        except Failure as failure:
            if not others or not _depends_on_tls(failure):
                raise
            before = failure
        try:
            return await self._try(password, tls=others[0])
        except (Refused, _HandshakeFailed) as failure:
            raise _both(before, failure) from failure

    async def _try(self, password: str | None, *, tls: bool) -> Connection:
        config = self._config
        context = await self._network.tls_context(self._tls) if tls else None
        try:
            link, wire = await self._endpoint.connect(lambda: Wire(self.where, self._network.pacer))
        except Failure as failure:
            raise Passed(failure.reason, failure.message) from failure
        began = time.perf_counter()
        try:
            if context is not None and await self._server_has_tls(wire):
                link = await self._start_tls(wire, link, context)
            else:
                self._endpoint.certificate = None
            await log_in(
                wire,
                self.where,
                user=config.login_user,
                password=password,
                database=config.login_database,
                methods=parse_methods(config.require_auth),
            )
        except BaseException as error:
            wire.close()
            if isinstance(error, Refused) and error.error.state == _STARTING:
                raise Passed(error.reason, error.message) from error
            if isinstance(error, asyncio.CancelledError) and error.__cause__ is None:
                silent = f"{self.where} does not answer the start of a session"
                raise error from Failure(Reason.TIMEOUT, silent)
            raise
        seconds = time.perf_counter() - began
        details = LinkDetails(self._endpoint, link, host=self.where, auth_seconds=seconds)
        return Connection(wire, link, self.where, details)

    async def _server_has_tls(self, wire: Wire) -> bool:
        """Ask for TLS. Raises `Failure` where `sslmode` needs it and the server does not have it."""
        answer = await wire.request_tls(SSL_REQUEST)
        if answer == b"S":
            return True
        if answer == b"E":  # before TLS it may come from anybody, so its text is not shown (CVE-2024-10977)
            raise Failure(Reason.PROTOCOL, f"{self.where} answers SSLRequest with an error: see its log")
        if answer != b"N":
            violation = malformed(f"{answer!r} answers no SSLRequest")
            raise Failure(violation.reason, f"{self.where} {violation.message}")
        if self._config.sslmode in _TRIES:
            return False
        raise Failure(Reason.TLS, f"{self.where} has no TLS, and sslmode is {self._config.sslmode}")

    async def _start_tls(self, wire: Wire, link: Link, context: ssl.SSLContext) -> Link:
        try:
            return await self._endpoint.start_tls(link, wire, context)
        except Failure as failure:
            raise _HandshakeFailed(failure.reason, failure.message) from failure


def _tls_options(config: PostgresqlConfig, target: Target) -> TlsOptions:
    """Return what `sslmode` asks of TLS. As in libpq, a CA file has the authority verified in every mode."""
    mode, tls = config.sslmode, config.tls
    return replace(
        tls.options,
        verify=tls.verify and (mode.startswith("verify") or tls.ca_file is not None),
        check_hostname=mode == "verify-full",
        server_name=tls.server_name or target.host,
    )


class _HandshakeFailed(Failure):
    """The TLS handshake failed."""


def _depends_on_tls(failure: Failure) -> bool:
    """Return whether a login may succeed with TLS if it failed without, or the other way round.

    A wrong password stays wrong, and counts towards a lock of the account. 28000 is pg_hba.conf's refusal.
    """
    if isinstance(failure, Refused):
        return failure.error.state == "28000" or failure.reason is Reason.TLS
    return isinstance(failure, _HandshakeFailed)


def _both(before: Failure, after: Failure) -> Failure:
    """Return what is wrong with and without TLS. If it was TLS that failed, a refusal without it is not the reason."""
    not_allowed = isinstance(after, Refused) and _depends_on_tls(after)
    reason = before.reason if not_allowed and isinstance(before, _HandshakeFailed) else after.reason
    return Failure(reason, "; ".join(dict.fromkeys((before.message, after.message))))
