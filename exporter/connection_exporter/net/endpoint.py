"""Owns the connections of one service: how each one is made, and what every session over a network has in common.

A check holds one `Endpoint`, and its sessions and canaries connect through it:

    self._endpoint = Endpoint(network, host, port, where=config.address, tls=options)
    ...
    link, connection = await self._endpoint.connect(lambda: Connection(config))    # resolve, connect, TLS
    session.peer, session.addresses = link.peer, link.addresses
    self._details = LinkDetails(self._endpoint, link, auth_seconds=seconds)
    ...
    details = {**self._details.current(), "reply_code": code}                      # at each probe

A protocol that begins in plain text (postgresql, tcp with STARTTLS) sets up TLS by `Endpoint.start_tls`. A kind
that follows redirects (http) holds one `Endpoint` for each origin.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from connection_exporter.kind import Json
from connection_exporter.net.adopt import Secured, adopt, start_tls
from connection_exporter.net.certificate import Certificate, certificate_details, first_to_expire
from connection_exporter.net.dial import Handshake, Link, Network
from connection_exporter.net.pacing import PacedProtocol
from connection_exporter.net.proxy import Proxy
from connection_exporter.net.resumption import Resumption
from connection_exporter.net.tls_options import TlsOptions

_P = TypeVar("_P", bound=asyncio.Protocol)


class Endpoint:
    """One host and port, with TLS if ``tls`` is given, and the certificate that it presented last.

    ``where`` names the service in messages. With ``tls_later``, connections begin without TLS. A ``host`` that begins
    with ``/`` is a Unix socket. With ``proxy``, connections lead through a tunnel, or, if ``tunnel`` is false, to the
    proxy itself.
    """

    def __init__(
        self,
        network: Network,
        host: str,
        port: int,
        *,
        where: str,
        tls: TlsOptions | None = None,
        tls_later: bool = False,
        proxy: Proxy | None = None,
        tunnel: bool = True,
        canary: float | None = None,
    ) -> None:
        self._network = network
        self._host = host
        self._port = port
        self.where = f"{where} (through proxy {proxy.address})" if proxy is not None else where
        self._proxy = proxy
        self._tunnel = tunnel
        self._tls = tls if not tls_later else None
        self._resumption = Resumption(canary)
        self._server_name = (tls and tls.server_name) or host
        self.certificate: Certificate | None = None
        """The newest: a session may be older than a renewed one, so its details show that of a later canary."""

    async def connect(self, factory: Callable[[], _P]) -> tuple[Link, _P]:
        """Resolve, connect, set up TLS, and put the protocol that ``factory`` returns on the connection.

        Raises `Failure`, with everything closed.
        """
        context = await self._network.tls_context(self._tls) if self._tls is not None else None
        network, proxy = self._network, self._proxy
        if proxy is not None and not self._tunnel:
            link, _, protocol = await proxy.connect(network, factory)
            return link, protocol
        if self.certificate is not None and self.certificate.expires <= time.time():
            self._resumption.forget()  # a resumed handshake would hide that it has expired
        began = time.perf_counter()
        secured = None
        if context is not None:
            secured = Secured(context, self._server_name, self.where, network.pacer, self._resumption)
        if proxy is not None:
            link, transport, protocol = await proxy.tunnel(network, self._host, self._port, factory, secured)
        else:
            link = await network.dial(self._host, self._port)
            transport, protocol = await adopt(link, factory, where=self.where, secured=secured)
        if context is None:
            return link, protocol
        seconds = time.perf_counter() - began - link.resolve_seconds - link.connect_seconds
        return self._with_tls(link, transport, seconds=seconds), protocol

    async def start_tls(self, link: Link, protocol: PacedProtocol, context: ssl.SSLContext) -> Link:
        """Set up TLS on a connection that began without it, and have ``protocol`` continue over that.

        Raises `Failure`; the caller then closes the connection.
        """
        began = time.perf_counter()
        secured = Secured(context, self._server_name, self.where, self._network.pacer)
        transport = await start_tls(protocol.transport, protocol, secured)
        protocol.use(transport)
        return self._with_tls(link, transport, seconds=time.perf_counter() - began)

    def details(self, link: Link) -> dict[str, Json]:
        """Return the phases of ``link``, in seconds, its TLS, and the expiry of the last certificate (Unix time)."""
        details: dict[str, Json] = {
            "resolve_seconds": link.resolve_seconds,
            "connect_seconds": link.connect_seconds,
        }
        if link.tls is not None:
            details["tls_seconds"] = link.tls.seconds
            details["tls_version"] = link.tls.version
            details["tls_cipher"] = link.tls.cipher
            details |= certificate_details(self.certificate)
        if self._proxy is not None:
            details["proxy"] = self._proxy.address
        return details

    def _with_tls(self, link: Link, transport: asyncio.Transport, *, seconds: float) -> Link:
        """Return ``link`` with the result of its TLS handshake, and note the certificate."""
        tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
        if not tls.session_reused:
            self.certificate = first_to_expire(tls)
        cipher = tls.cipher()
        name = cipher[0] if cipher is not None else None
        return link._replace(tls=Handshake(seconds, tls.version(), name, self.certificate))


class LinkDetails:
    """The details of ``link``, and the ``others`` that last as long.

    They are made once, and again if ``endpoint`` has been presented another certificate.
    """

    __slots__ = ("_certificate", "_details", "_endpoint", "_link")

    def __init__(self, endpoint: Endpoint, link: Link, **others: Json) -> None:
        self._endpoint = endpoint
        self._link = link
        self._certificate = endpoint.certificate
        self._details: Mapping[str, Json] = {**endpoint.details(link), **others}

    def current(self) -> Mapping[str, Json]:
        """Return the details, which are the same object as before if nothing has changed."""
        if self._certificate is not self._endpoint.certificate:
            self._certificate = self._endpoint.certificate
            self._details = {**self._details, **self._endpoint.details(self._link)}
        return self._details
