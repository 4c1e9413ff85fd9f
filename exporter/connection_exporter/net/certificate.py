"""Reads the certificates of a service: which of them expires first. Must not judge whether to trust them.

Python parses a peer's certificate only if it was verified, and never the others of its chain
(`ssl.SSLSocket.getpeercert`). So the few fields that matter are read from the DER form here.
"""

import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, NamedTuple

from connection_exporter.kind import Json, Metric, MetricType

CERTIFICATE_EXPIRY: Final = "certificate_expiry_timestamp_seconds"
"""The key in a check's details for the Unix time at which the first certificate of the chain expires."""

CERTIFICATE_SUBJECT: Final = "certificate_subject"
"""The key for the subject of that certificate."""

CERTIFICATE_EXPIRY_METRIC: Final = Metric(
    "connection_tls_certificate_expiry_timestamp_seconds",
    "Unix time at which the first certificate in the chain of the service expires.",
    MetricType.GAUGE,
    CERTIFICATE_EXPIRY,
)
"""The family that all kinds over TLS share."""

_MOST: Final = 32
"""Certificates of a chain that are read. OpenSSL takes 100 KiB, and 500 small ones would take 20 ms."""

_OBJECT: Final = 0x06
_SEQUENCE: Final = 0x30
_UTC_TIME: Final = 0x17
_DNS_NAME: Final = 0x82
_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3
_ENCODINGS: Final = {0x14: "latin-1", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}
"""Of the string types that are not ASCII or UTF-8: TeletexString, UniversalString, BMPString."""

_ATTRIBUTES: Final = {  # RFC 4514, section 3
    b"\x55\x04\x03": "CN",
    b"\x55\x04\x06": "C",
    b"\x55\x04\x07": "L",
    b"\x55\x04\x08": "ST",
    b"\x55\x04\x0a": "O",
    b"\x55\x04\x0b": "OU",
}
_MOST_PARTS: Final = 100
"""Parts of a subject, extensions and alternative names that are read of one certificate."""

_MOST_IN_PART: Final = 10
_ALTERNATIVE_NAMES: Final = b"\x55\x1d\x11"  # RFC 5280, section 4.2.1.6


class Certificate(NamedTuple):
    """When a certificate expires (Unix time), and its subject, such as ``CN=R3,O=Let's Encrypt,C=US``.

    A certificate without a subject is called by its first DNS name.
    """

    expires: float
    subject: str


def first_to_expire(tls: ssl.SSLObject) -> Certificate | None:
    """Return the certificate that expires first: of the chain that was verified, or else of what the server sent.

    A server may send certificates that are not needed, such as an old root. ``None`` if none can be read.
    """
    found = []
    for der in _chain(tls):
        try:
            found.append(parse_certificate(der))
        except (ValueError, IndexError):
            continue
    return min(found, key=lambda certificate: certificate.expires, default=None)


def certificate_details(certificate: Certificate | None) -> dict[str, Json]:
    """Return the details of a check about ``certificate``."""
    if certificate is None:
        return {CERTIFICATE_EXPIRY: None, CERTIFICATE_SUBJECT: None}
    return {CERTIFICATE_EXPIRY: certificate.expires, CERTIFICATE_SUBJECT: certificate.subject}


if sys.version_info >= (3, 13):

    def _chain(tls: ssl.SSLObject) -> list[bytes]:
        verified = tls.context.verify_mode is not ssl.CERT_NONE
        return (tls.get_verified_chain() if verified else tls.get_unverified_chain())[:_MOST]

else:

    def _chain(tls: ssl.SSLObject) -> list[bytes]:
        """Use what Python 3.13 makes public. 3.11 and 3.12 get security fixes alone, so their private names stay."""
        inner: Any = tls._sslobj  # type: ignore[attr-defined]  # noqa: SLF001
        verified = tls.context.verify_mode is not ssl.CERT_NONE
        chain = inner.get_verified_chain() if verified else inner.get_unverified_chain()
        return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in (chain or ())[:_MOST]]


def parse_certificate(der: bytes) -> Certificate:
    """Return what a certificate in DER form says (RFC 5280, section 4.1). Raises ValueError or IndexError."""
    fields = list(_elements(_first(_first(der))))
    if fields[0][0] == _VERSION:  # absent in version 1
        fields = fields[1:]
    _serial, _signature, _issuer, validity, subject, _key, *rest = fields
    _, not_after = _elements(validity[1])
    name = _name(subject[1]) or next(_dns_names(rest), "")
    return Certificate(_time(*not_after), name)


def _time(tag: int, value: bytes) -> float:
    # RFC 5280, section 4.1.2.5: seconds are always there, and the zone is always Z
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _name(name: bytes) -> str:
    """Return a Name as RFC 4514 writes it, the most specific part first, without its escapes."""
    parts = []
    for _, names in islice(_elements(name), _MOST_PARTS):
        for _, pair in islice(_elements(names), _MOST_IN_PART):
            (tag, attribute), (kind, value) = _elements(pair)
            if tag == _OBJECT and attribute in _ATTRIBUTES:
                text = value.decode(_ENCODINGS.get(kind, "utf-8"), "replace")
                parts.append(f"{_ATTRIBUTES[attribute]}={text}")
    return ",".join(reversed(parts))


def _dns_names(fields: list[tuple[int, bytes]]) -> Iterator[str]:
    for tag, content in fields:
        if tag == _EXTENSIONS:
            for _, extension in islice(_elements(_first(content)), _MOST_PARTS):
                (_, identifier), *_, (_, value) = _elements(extension)
                if identifier == _ALTERNATIVE_NAMES:
                    names = islice(_elements(_first(value)), _MOST_PARTS)
                    yield from (name.decode("latin-1") for kind, name in names if kind == _DNS_NAME)


def _first(data: bytes) -> bytes:
    """Return the content of the sequence at the beginning of ``data``."""
    tag, content = next(_elements(data), (0, b""))
    if tag != _SEQUENCE:
        raise ValueError("not a sequence")
    return content


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each DER element in ``data`` (X.690, section 8.1)."""
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            start, at = at, at + (length & 0x7F)
            length = int.from_bytes(data[start:at], "big")
        if at + length > len(data):
            raise ValueError("cut short")
        yield tag, data[at : at + length]
        at += length
