"""An endpoint connects, and remembers the certificate that the service presented last."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from connection_exporter.net import Endpoint, LinkDetails, Network, TlsOptions
from connection_exporter.net.certificate import CERTIFICATE_EXPIRY
from support.certificates import presenting
from support.streams import serving


async def read_to_the_end(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


class Quiet(asyncio.Protocol):
    """Keeps its transport."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport


async def test_without_tls_the_details_are_resolve_and_connect() -> None:
    """No TLS phase and no certificate where there is no TLS."""
    async with serving(read_to_the_end) as port:
        endpoint = Endpoint(Network(), "127.0.0.1", port, where="it")
        link, connection = await endpoint.connect(Quiet)
        assert link.peer == "127.0.0.1"
        assert link.addresses == {"127.0.0.1"}
        assert endpoint.details(link).keys() == {"resolve_seconds", "connect_seconds"}
        connection.transport.abort()


async def test_a_session_shows_the_certificate_that_a_later_connection_was_presented(
    authority: trustme.CA, ca_file: Path
) -> None:
    """A session may be older than a renewed certificate; the renewed one counts."""
    first, renewed = (datetime.now(UTC).replace(microsecond=0) + timedelta(days=days) for days in (30, 90))
    context = presenting(authority.issue_cert("localhost", not_after=first))
    async with serving(read_to_the_end, tls=context) as port:
        options = TlsOptions(ca_file=ca_file, server_name="localhost")
        endpoint = Endpoint(Network(), "127.0.0.1", port, where="it", tls=options)
        held, one = await endpoint.connect(Quiet)
        assert held.tls is not None
        assert held.tls.seconds > 0
        assert endpoint.details(held)[CERTIFICATE_EXPIRY] == first.timestamp()
        details = LinkDetails(endpoint, held, auth_seconds=0.5)
        before = details.current()
        assert before == {**endpoint.details(held), "auth_seconds": 0.5}
        assert details.current() is before
        authority.issue_cert("localhost", not_after=renewed).configure_cert(context)
        _, two = await endpoint.connect(Quiet)
        assert endpoint.details(held)[CERTIFICATE_EXPIRY] == renewed.timestamp()
        assert details.current() == {**endpoint.details(held), "auth_seconds": 0.5}
        assert before[CERTIFICATE_EXPIRY] == first.timestamp()
        for connection in (one, two):
            connection.transport.abort()
