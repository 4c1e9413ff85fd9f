"""Owns kind http: requests over a kept connection, redirects, and what the answers mean.

There is no true session. It is up while the last attempt got a complete answer; either side may close the
kept connection between two probes, which is no loss, so ``lost`` never completes. A request that dies on a
reused connection before the first byte of an answer is repeated once on a fresh one, and only that counts.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from exporter.check import Failure, Json, Metric, MetricType, Observation, Session, Traits
from exporter.checks.http_answer import Answer
from exporter.checks.http_connection import HttpConnection, Origin
from exporter.checks.http_expect import Expectation, Fault, named, shortened
from exporter.checks.http_request import Credentials, RedirectRefused, Requests, Target
from exporter.config.kinds.http import HttpConfig
from exporter.config.service import TlsConfig
from exporter.core.health import Reason
from exporter.net import Network, TlsOptions
from exporter.net.certificate import CERTIFICATE_EXPIRY, CERTIFICATE_EXPIRY_METRIC
from exporter.net.failures import REASONS

_PHASES: Final = {
    "resolve": "Time to resolve the name, when the connection in use was made.",
    "connect": "Time to connect, when the connection in use was made.",
    "tls": "Time for the TLS handshake, when the connection in use was made.",
    "processing": "Time from the request to the first byte of the answer.",
    "transfer": "Time from the first byte of the answer to its last.",
}
_METRICS: Final = (
    Metric("connection_http_status_code", "Status of the last answer.", MetricType.GAUGE, "status_code"),
    *(
        Metric(f"connection_http_{phase}_duration_seconds", text, MetricType.GAUGE, f"{phase}_seconds")
        for phase, text in _PHASES.items()
    ),
    CERTIFICATE_EXPIRY_METRIC,
)
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_DAY: Final = 86400.0
_MESSAGE_LIMIT: Final = 500


class HttpCheck:
    """One HTTP API."""

    Config = HttpConfig
    traits = Traits(
        reasons=REASONS - {Reason.IDLE_CLOSED}
        | {Reason.AUTH, Reason.EXPECT, Reason.SLOW, Reason.REDIRECT, Reason.TOO_LARGE},
        metrics=_METRICS,
        holds_session=False,
    )

    def __init__(self, config: HttpConfig, network: Network) -> None:
        self.config = config
        self.requests = Requests(config)
        self.credentials = Credentials(config)
        self.expectation = Expectation(
            config.expect, body_limit=config.body_limit, hide=self.credentials.redacted
        )
        self.certificate_expiry: float | None = None
        self._network = network

    @property
    def address(self) -> str:
        """The configured host:port or Unix socket."""
        return self.config.address

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """Connect to the configured origin; the first probe asks over that. Raises `Failure`."""
        kept = _Kept(self, await self.open(self.requests.first))
        try:
            yield kept
        finally:
            kept.close()

    async def open(self, target: Target) -> HttpConnection:
        """Open a connection for ``target``. Raises `Failure`."""
        tls = self.config.tls or TlsConfig()
        options = tls.options if target.trusted else TlsOptions(verify=tls.verify, ca_file=tls.ca_file)
        connection = await HttpConnection.open(
            self._network,
            target.origin,
            tls=options if target.origin.tls else None,
            server_name=tls.server_name if target.trusted else None,
        )
        if target is self.requests.first:
            # a canary's counts too: the kept connection may be older than a renewed certificate
            self.certificate_expiry = connection.certificate_expiry
        return connection


@dataclass(frozen=True, slots=True)
class _Hop:
    """One request of a probe, and what came of it."""

    target: Target
    connection: HttpConnection
    answer: Answer
    reused: bool


class _Kept:
    """The kept connection, and those that redirects led to."""

    def __init__(self, check: HttpCheck, connection: HttpConnection) -> None:
        first = check.requests.first
        self.lost: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self._check = check
        self._first = (first.origin, first.trusted)
        self._connections = {self._first: connection}

    @property
    def peer(self) -> str | None:
        return self._connections[self._first].link.peer

    @property
    def addresses(self) -> frozenset[str]:
        return self._connections[self._first].link.addresses

    async def probe(self) -> Observation:
        """Ask, and go where redirects lead if they are to be followed. Raises `Failure`."""
        hops: list[_Hop] = []
        onward: Target | Fault | None = self._check.requests.first
        while isinstance(onward, Target):
            hops.append(await self._ask(onward))
            onward = self._onward(hops)
        if len(self._connections) > 1:
            self._drop_all_but({(hop.target.origin, hop.target.trusted) for hop in hops})
        faults = self._check.expectation.faults(hops[-1].answer) if onward is None else [onward]
        return Observation(
            reason=faults[0][0] if faults else None,
            message=_message(faults),
            details=_details(hops, self._check.certificate_expiry),
            fresh=not hops[0].reused,
        )

    def close(self) -> None:
        """Close every connection at once."""
        for connection in self._connections.values():
            connection.abort()

    async def _ask(self, target: Target) -> _Hop:
        key = (target.origin, target.trusted)
        wire = target.wire(self._check.credentials.line())
        kept = self._connections.get(key)
        if kept is not None and kept.usable:
            try:
                return await self._exchange(kept, target, wire)
            except Failure:
                if kept.exchanges == 1 or not kept.silent:
                    raise
        connection = self._connections[key] = await self._check.open(target)
        return await self._exchange(connection, target, wire)

    async def _exchange(self, connection: HttpConnection, target: Target, wire: bytes) -> _Hop:
        reused = connection.exchanges > 0
        answer = await connection.exchange(
            wire,
            body_limit=self._check.config.body_limit,
            bodyless=target.method == "HEAD",
        )
        return _Hop(target, connection, answer, reused)

    def _onward(self, hops: list[_Hop]) -> Target | Fault | None:
        """Decide what follows an answer: another request, a redirect that is a fault, or nothing."""
        config, (target, answer) = self._check.config, (hops[-1].target, hops[-1].answer)
        if answer.status not in _REDIRECTS or self._check.expectation.accepts_status(answer.status):
            return None
        location = answer.header("location")
        if location is None:
            return None
        leads = f"status {named(answer.status)}, leading to"
        try:
            onward = self._check.requests.redirected(target, status=answer.status, location=location)
        except RedirectRefused as refused:
            return (Reason.REDIRECT, f"{leads} {refused}")
        place = shortened(self._check.credentials.redacted(onward.place))
        if not config.follow_redirects:
            return (Reason.REDIRECT, f"{leads} {place}; follow_redirects is off")
        if any((hop.target.method, hop.target.url) == (onward.method, onward.url) for hop in hops):
            return (Reason.REDIRECT, f"{leads} {place}: a loop")
        if len(hops) > config.max_redirects:
            return (Reason.REDIRECT, f"{leads} {place}: more than {config.max_redirects} redirects")
        return onward

    def _drop_all_but(self, used: set[tuple[Origin, bool]]) -> None:
        for key in self._connections.keys() - used - {self._first}:
            self._connections.pop(key).abort()


def _message(faults: list[Fault]) -> str:
    # JSON may hold half a surrogate pair, which no answer of ours could carry
    text = "; ".join(text for _, text in faults).encode("utf-8", "replace").decode()
    return text if len(text) <= _MESSAGE_LIMIT else f"{text[:_MESSAGE_LIMIT]}…"


def _details(hops: list[_Hop], expiry: float | None) -> dict[str, Json]:
    """Phases of several requests are added up; of the certificates met, the first to expire is told."""
    answer = hops[-1].answer
    connections = {hop.connection for hop in hops}
    details: dict[str, Json] = {
        "status_code": answer.status,
        "http_version": answer.version,
        "body_bytes": len(answer.body),
        "redirects": len(hops) - 1,
        "reused_connection": hops[0].reused,
        "resolve_seconds": sum(c.link.resolve_seconds for c in connections),
        "connect_seconds": sum(c.link.connect_seconds for c in connections),
        "processing_seconds": sum(hop.answer.processing_seconds for hop in hops),
        "transfer_seconds": sum(hop.answer.transfer_seconds for hop in hops),
    }
    over_tls = [c for c in connections if c.tls_seconds is not None]
    if over_tls:
        details["tls_seconds"] = sum(c.tls_seconds or 0.0 for c in over_tls)
        known = [c.certificate_expiry for c in over_tls if c is not hops[0].connection]
        first = min((e for e in (expiry, *known) if e is not None), default=None)
        if first is not None:
            details[CERTIFICATE_EXPIRY] = first
            details["certificate_expiry_days"] = round((first - time.time()) / _DAY, 1)
    return details
