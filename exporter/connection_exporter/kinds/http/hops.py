"""The requests of one probe, each with its response, and the details that follow from all of them."""

import time
from typing import Final, NamedTuple

from connection_exporter.kind import Json
from connection_exporter.kinds.http.request import Target
from connection_exporter.net import Endpoint
from connection_exporter.net.certificate import Certificate, certificate_details
from connection_exporter.net.http1.connection import HttpConnection
from connection_exporter.net.http1.response import Response

_DAY: Final = 86400.0


class Hop(NamedTuple):
    """One request of a probe, and its response. ``reused``: the connection had served a request before."""

    target: Target
    connection: HttpConnection
    response: Response
    reused: bool


def irregularities(hops: list[Hop]) -> tuple[str, ...]:
    """Return what was irregular in the responses, each once."""
    return tuple(dict.fromkeys(name for hop in hops for name in hop.response.irregular))


def details_of(hops: list[Hop], endpoint: Endpoint) -> dict[str, Json]:
    """Return the details of a probe. ``endpoint`` is that of its first request."""
    first, response = hops[0], hops[-1].response
    details: dict[str, Json] = {
        "status_code": response.status,
        "http_version": response.version,
        "body_bytes": len(response.body),
        "redirects": len(hops) - 1,
        "reused_connection": first.reused,
        "processing_seconds": response.processing_seconds,
        "transfer_seconds": response.transfer_seconds,
        **endpoint.details(first.connection.link),
    }
    # A session may be older than a renewed certificate, so the endpoint's counts for the configured origin.
    certificate = _add_others(details, hops, endpoint) if len(hops) > 1 else endpoint.certificate
    if certificate is not None:
        details["certificate_expiry_days"] = round((certificate.expires - time.time()) / _DAY, 1)
    return details


def _add_others(details: dict[str, Json], hops: list[Hop], endpoint: Endpoint) -> Certificate | None:
    """Make the phases those of all requests, and return the certificate that expires first."""
    details["processing_seconds"] = sum(hop.response.processing_seconds for hop in hops)
    details["transfer_seconds"] = sum(hop.response.transfer_seconds for hop in hops)
    first = hops[0].connection.link
    others = {hop.connection.link for hop in hops} - {first}
    if not others:
        return endpoint.certificate
    links = (first, *others)
    details["resolve_seconds"] = sum(link.resolve_seconds for link in links)
    details["connect_seconds"] = sum(link.connect_seconds for link in links)
    handshakes = [link.tls for link in links if link.tls is not None]
    if handshakes:
        details["tls_seconds"] = sum(handshake.seconds for handshake in handshakes)
        details["tls_version"], details["tls_cipher"] = handshakes[0].version, handshakes[0].cipher
    met = [endpoint.certificate, *(link.tls.certificate for link in others if link.tls is not None)]
    certificate = min(filter(None, met), key=lambda each: each.expires, default=None)
    if certificate is not None:
        details |= certificate_details(certificate)
    return certificate
