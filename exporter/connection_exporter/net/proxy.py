"""Owns the way to a service through an HTTP proxy: the connection to the proxy, and the tunnel that CONNECT opens.

Must not know a config. A request for an ``http://`` URL needs no tunnel: the proxy reads the whole URL in it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeVar

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net.adopt import Secured, adopt, hand_over
from connection_exporter.net.dial import Link, Network
from connection_exporter.net.failures import failure_from
from connection_exporter.net.http1.head import Head
from connection_exporter.net.http1.reader import SLICE, HeadReader
from connection_exporter.net.names import header_host, host_and_port
from connection_exporter.net.pacing import PacedProtocol, Pacer
from connection_exporter.net.tls_options import TlsOptions

_P = TypeVar("_P", bound=asyncio.Protocol)

_BY_STATUS: Final = {
    407: Reason.AUTH,
    403: Reason.REFUSED,  # by a rule of the proxy
    502: Reason.REFUSED,
    503: Reason.REFUSED,  # squid, tinyproxy and envoy answer so when the service does not accept the connection
    504: Reason.TIMEOUT,
}


class Proxy(NamedTuple):
    """An HTTP proxy, itself over TLS if ``tls`` is given.

    ``login`` returns the value of Proxy-Authorization, if any; it may raise `Failure`.
    """

    host: str
    port: int
    login: Callable[[], Awaitable[str | None]]
    tls: TlsOptions | None = None

    @property
    def address(self) -> str:
        """``host:port``."""
        return host_and_port(self.host, self.port)

    async def authorization(self) -> str | None:
        """Return the value of Proxy-Authorization, if any. Raises `Failure`, whose message names the proxy."""
        with named("proxy"):
            return await self.login()

    async def connect(
        self, network: Network, factory: Callable[[], _P]
    ) -> tuple[Link, asyncio.Transport, _P]:
        """Connect to the proxy itself. Raises `Failure`, whose message names it."""
        with named("proxy"):
            secured = None
            if self.tls is not None:
                context, name = await network.tls_context(self.tls), self.tls.server_name or self.host
                secured = Secured(context, name, self.address, network.pacer)
            link = await network.dial(self.host, self.port)
            transport, protocol = await adopt(link, factory, where=self.address, secured=secured)
        return link, transport, protocol

    async def tunnel(
        self, network: Network, host: str, port: int, factory: Callable[[], _P], secured: Secured | None
    ) -> tuple[Link, asyncio.Transport, _P]:
        """Connect to a service through the proxy (RFC 9110, section 9.3.6). Raises `Failure`.

        ``secured`` is TLS to the service. The link leads to the proxy; its duration of connecting includes the time
        until the tunnel was open.
        """
        authorization = await self.authorization()
        began = time.perf_counter()
        service = host_and_port(header_host(host), port)
        link, transport, opening = await self.connect(
            network, lambda: _Opening(self.address, service, network.pacer)
        )
        try:
            await opening.open_tunnel(authorization)
            link = link._replace(connect_seconds=time.perf_counter() - began - link.resolve_seconds)
            transport, protocol = await hand_over(transport, factory, secured)
        except BaseException:
            transport.abort()
            raise
        return link, transport, protocol


class _Opening(PacedProtocol):
    """A connection to a proxy until its tunnel to ``service`` is open."""

    def __init__(self, address: str, service: str, pacer: Pacer) -> None:
        self._ended: Failure | None = None
        self._where = f"proxy {address}"
        super().__init__(pacer)
        self._service = service
        self._heads = HeadReader(self._where)
        self._response: asyncio.Future[Head | Failure] = asyncio.get_running_loop().create_future()

    async def open_tunnel(self, authorization: str | None) -> None:
        """Ask for the tunnel. Raises `Failure`."""
        service = self._service
        lines = [f"CONNECT {service} HTTP/1.1", f"Host: {service}"]
        if authorization is not None:
            lines.append(f"Proxy-Authorization: {authorization}")
        if not self.transport.is_closing():  # uvloop raises RuntimeError
            self.transport.write("\r\n".join([*lines, "", ""]).encode())
        try:
            response = await self._response
        except asyncio.CancelledError as cancelled:
            late = f"{self._where} has not connected to {service} in time"
            raise cancelled from Failure(Reason.TIMEOUT, late)
        if isinstance(response, Failure):
            raise response
        if 200 <= response.status < 300:
            if self._ended is not None:
                raise self._ended
            return
        problem = f"does not connect to {service}: status {response.shown_status}"
        if response.status == 407 and authorization is None:
            problem += "; add `user` and `password_file` to `proxy`"
        raise self._failure(_BY_STATUS.get(response.status, Reason.PROTOCOL), problem)

    def _slice_size(self) -> int:
        return SLICE

    def _parse(self, data: bytes) -> None:
        if self._response.done():
            self._ended = self._too_early()
            return
        try:
            found = self._heads.feed(data)
        except Failure as failure:
            self._response.set_result(failure)
            return
        if found is not None:
            head, rest = found
            if rest and 200 <= head.status < 300:
                self._ended = self._too_early()
            self._response.set_result(head)

    def _end_of(self, exc: Exception | None) -> None:
        failure = failure_from(exc, self._where) if exc is not None else None
        text = f"closed the connection instead of connecting to {self._service}"
        self._ended = self._ended or failure or self._failure(Reason.EOF, text)
        if not self._response.done():
            self._response.set_result(self._ended)

    def _too_early(self) -> Failure:
        return self._failure(Reason.PROTOCOL, "sent data before the service could")

    def _failure(self, reason: Reason, problem: str) -> Failure:
        return Failure(reason, f"{self._where} {problem}")


@contextmanager
def named(name: str) -> Iterator[None]:
    """Begin the message of each `Failure` inside the block with ``name``, unless the exporter itself is at fault."""
    try:
        yield
    except Failure as failure:
        raise _with_name(failure, name) from failure
    except asyncio.CancelledError as cancelled:
        cause = cancelled.__cause__
        raise cancelled from (_with_name(cause, name) if isinstance(cause, Failure) else cause)


def _with_name(failure: Failure, name: str) -> Failure:
    if failure.reason is Reason.INTERNAL:
        return failure
    return Failure(failure.reason, f"{name} {failure.message}")
