"""Kind http: sends requests over a kept connection, follows redirects, and judges the responses.

There is no true session. It is up while the last attempt got a complete response. Either side may close the kept
connection between two probes, which is not a loss, so ``lost`` is never completed. A request that fails on a reused
connection before the first byte of a response is repeated once on a fresh one, and only that result counts.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Final

from connection_exporter.config.evaluation import excerpt
from connection_exporter.config.tls import TlsConfig
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Metric, MetricType, Observation, Session, Traits
from connection_exporter.kinds.http.config import HttpConfig
from connection_exporter.kinds.http.cookies import Cookies
from connection_exporter.kinds.http.expect import Expectation, Violation, status_text
from connection_exporter.kinds.http.hops import Hop, details_of, irregularities
from connection_exporter.kinds.http.origin import Origin
from connection_exporter.kinds.http.request import RedirectRefused, Requests, Target
from connection_exporter.kinds.tokens import token_source
from connection_exporter.net import Endpoint, Network
from connection_exporter.net.certificate import CERTIFICATE_EXPIRY_METRIC
from connection_exporter.net.failures import NO_THREADS, REASONS
from connection_exporter.net.http1.connection import HttpConnection
from connection_exporter.net.http1.head import with_irregularities
from connection_exporter.net.http1.known import KnownHead
from connection_exporter.net.http1.response import Response
from connection_exporter.system.threads import NoThread, start_in_thread

_PHASES: Final = {
    "resolve": "Time to resolve the name, when the connection in use was made.",
    "connect": "Time to connect, when the connection in use was made.",
    "tls": "Time for the TLS handshake, when the connection in use was made.",
    "processing": "Time from the request to the first byte of the response.",
    "transfer": "Time from the first byte of the response to its last.",
}
_METRICS: Final = (
    Metric("connection_http_status_code", "Status of the last response.", MetricType.GAUGE, "status_code"),
    *(
        Metric(f"connection_http_{phase}_duration_seconds", text, MetricType.GAUGE, f"{phase}_seconds")
        for phase, text in _PHASES.items()
    ),
    CERTIFICATE_EXPIRY_METRIC,
)
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MESSAGE_LIMIT: Final = 500


class HttpCheck:
    """One HTTP API."""

    traits = Traits(
        reasons=REASONS - {Reason.IDLE_CLOSED}
        | {Reason.AUTH, Reason.EXPECT, Reason.SLOW, Reason.REDIRECT, Reason.TOO_LARGE},
        metrics=_METRICS,
        holds_session=HttpConfig.HOLDS_SESSION,
    )

    def __init__(self, config: HttpConfig, network: Network) -> None:
        self.config = config
        self.requests = Requests(config, token_source(config, network))
        self.expectation = Expectation(config.expect, body_limit=config.body_limit)
        self.endpoint = self._endpoint_of(self.requests.first, network)
        self.known_head = KnownHead()
        """The usual head of the responses to the first request of a probe."""
        self._network = network
        self._judging: asyncio.Future[list[Violation]] | None = None

    @property
    def address(self) -> str:
        """The configured host:port or Unix socket."""
        return self.config.address

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """Connect to the configured origin; the first probe uses that connection. Raises `Failure`."""
        session = HttpSession(self, await self.open(self.requests.first))
        try:
            yield session
        finally:
            session.close()

    def open(self, target: Target) -> Awaitable[HttpConnection]:
        """Open a connection for ``target``. Raises `Failure`."""
        is_first = target is self.requests.first
        endpoint = self.endpoint if is_first else self._endpoint_of(target, self._network)
        return HttpConnection.open(endpoint, self._network.pacer)

    async def judge_in_thread(self, response: Response) -> list[Violation]:
        """Return the violated conditions, which are looked at in a thread. A service has only one.

        Raises `Failure`: internal where no thread can be started.
        """
        try:
            # A thread cannot be cancelled: this one may belong to a past attempt.
            while self._judging is not None and not self._judging.done():
                await asyncio.wait({self._judging})
            self._judging = start_in_thread(lambda: self.expectation.violations(response), name="expect")
            return await asyncio.shield(self._judging)
        except NoThread as error:
            raise Failure(Reason.INTERNAL, NO_THREADS) from error
        except asyncio.CancelledError as cancelled:
            late = Failure(
                Reason.TIMEOUT, f"{self.address} answered, but `expect` takes too long on this response"
            )
            raise cancelled from late

    def _endpoint_of(self, target: Target, network: Network) -> Endpoint:
        options, origin = (self.config.tls or TlsConfig()).options, target.origin
        if not target.trusted:
            options = options.for_another_server()
        return Endpoint(
            network,
            origin.written,
            origin.port,
            where=origin.address,
            tls=options if origin.tls else None,
            proxy=self.config.proxy.proxy if self.config.proxy is not None else None,
            tunnel=origin.tls,
            canary=self.config.canary,
        )


class HttpSession:
    """The kept connection, and those to which redirects led."""

    def __init__(self, check: HttpCheck, connection: HttpConnection) -> None:
        first = check.requests.first
        self.lost: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self._check = check
        self._first = (first.origin, first.trusted)
        self._connections = {self._first: connection}

    @property
    def peer(self) -> str | None:
        """The IP address that the configured origin's connection leads to."""
        return self._connections[self._first].link.peer

    @property
    def addresses(self) -> frozenset[str]:
        """All IP addresses that the configured name resolved to."""
        return self._connections[self._first].link.addresses

    async def probe(self) -> Observation:
        """Send the request, follow redirects if configured, and judge the last response. Raises `Failure`."""
        check = self._check
        hops = [await self._request(check.requests.first)]
        fault = await self._follow(hops)
        if len(self._connections) > 1:
            self._close_all_but({(hop.target.origin, hop.target.trusted) for hop in hops})
        response = hops[-1].response
        if fault is not None:
            violations = [fault]
        elif check.expectation.is_costly(response):
            violations = await check.judge_in_thread(response)
        else:
            violations = check.expectation.violations(response)
        details = details_of(hops, check.endpoint)
        irregular = irregularities(hops)
        if irregular:
            details["irregular"] = list(irregular)
        return Observation(
            reason=violations[0][0] if violations else None,
            message=with_irregularities(_message(violations), irregular) if violations else "",
            details=details,
            fresh=not hops[0].reused,
        )

    def close(self) -> None:
        """Close every connection without waiting."""
        for connection in self._connections.values():
            connection.abort()

    def _request(self, target: Target) -> Awaitable[Hop]:
        requests = self._check.requests
        if requests.unchanging is not None and target is requests.first:
            return self._send(target, requests.unchanging)
        return self._request_with_files(target)

    async def _request_with_files(self, target: Target) -> Hop:
        requests = self._check.requests
        content = await requests.content()
        hop = await self._send(target, target.wire(content))
        if requests.may_repeat(target, content, hop.response.status):
            hop = await self._send(target, target.wire(await requests.content()))
        return hop

    async def _send(self, target: Target, wire: bytes) -> Hop:
        key = (target.origin, target.trusted)
        kept = self._connections.get(key)
        if kept is not None and kept.usable:
            try:
                response = await self._exchange(kept, target, wire)
            except Failure:
                if kept.exchanges == 1 or not kept.silent:
                    raise
            else:
                return Hop(target, kept, response, kept.exchanges > 1)
        connection = self._connections[key] = await self._check.open(target)
        response = await self._exchange(connection, target, wire)
        return Hop(target, connection, response, reused=False)

    def _exchange(self, connection: HttpConnection, target: Target, wire: bytes) -> Awaitable[Response]:
        return connection.exchange(
            wire,
            body_limit=self._check.config.body_limit,
            bodyless=target.method == "HEAD",
            known=self._check.known_head if target is self._check.requests.first else None,
        )

    async def _follow(self, hops: list[Hop]) -> Violation | None:
        """Follow redirects from the first response, and add the hops. Return what is wrong with a redirect, if any."""
        cookies = Cookies()
        while isinstance(following := self._following(hops, cookies), Target):
            hops.append(await self._request(following))
        return following

    def _following(self, hops: list[Hop], cookies: Cookies) -> Target | Violation | None:
        """Decide what follows a response: another request, a redirect that is a fault, or nothing."""
        check, target, response = self._check, hops[-1].target, hops[-1].response
        proxy = check.config.proxy
        if response.status == 407 and proxy is not None and not target.origin.tls:
            return Reason.AUTH, f"proxy {proxy.proxy.address} wants a login: status {status_text(407)}"
        if response.status not in _REDIRECTS or check.expectation.accepts_status(response.status):
            return None
        locations = response.values("location")
        if not locations:
            return None
        location = locations[0].decode("latin-1")  # of several, curl and Go follow the first
        redirect = f"status {status_text(response.status)}, a redirect to"
        try:
            following = check.requests.redirected(target, status=response.status, location=location)
        except RedirectRefused as refused:
            return Reason.REDIRECT, f"{redirect} {refused}"
        redirect = f"{redirect} {excerpt(following.place)}"
        if not check.config.follow_redirects:
            return Reason.REDIRECT, f"{redirect}, but follow_redirects is off"
        cookies.take(target.url, response.values("set-cookie"))
        following = following._replace(cookies=cookies.value_for(following.url))
        if any(following.repeats(hop.target) for hop in hops):
            return Reason.REDIRECT, f"{redirect}: a loop"
        if len(hops) > check.config.max_redirects:
            return Reason.REDIRECT, f"{redirect}: more than {check.config.max_redirects} redirects"
        return following

    def _close_all_but(self, used: set[tuple[Origin, bool]]) -> None:
        for key in self._connections.keys() - used - {self._first}:
            self._connections.pop(key).abort()


def _message(violations: list[Violation]) -> str:
    # JSON may contain half a surrogate pair, which cannot be encoded in any of our responses
    text = "; ".join(text for _, text in violations).encode("utf-8", "replace").decode()
    return text if len(text) <= _MESSAGE_LIMIT else f"{text[:_MESSAGE_LIMIT]}…"
