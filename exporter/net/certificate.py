"""Owns what a certificate tells about itself: when it expires. Must not judge whether to trust it.

Python parses a peer's certificate only where it was verified (`ssl.SSLSocket.getpeercert`), so the
few bytes that matter are read from its DER form here, which is there with ``verify: false`` as well.
"""

import ssl
from datetime import UTC, datetime
from typing import Final

from exporter.check import Metric, MetricType

CERTIFICATE_EXPIRY: Final = "certificate_expiry_timestamp_seconds"
"""The key in a check's details for the Unix time at which the certificate expires."""

CERTIFICATE_EXPIRY_METRIC: Final = Metric(
    "connection_tls_certificate_expiry_timestamp_seconds",
    "Unix time at which the certificate of the service expires.",
    MetricType.GAUGE,
    CERTIFICATE_EXPIRY,
)
"""The family that all kinds over TLS share."""

_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17


def certificate_expiry(tls: ssl.SSLObject) -> float | None:
    """Return the Unix time at which the peer's own certificate expires; ``None`` where none can be read."""
    der = tls.getpeercert(binary_form=True)
    if der is None:
        return None
    try:
        return _not_after(der)
    except (ValueError, IndexError):
        return None


def _not_after(der: bytes) -> float:
    """Walk to Certificate.tbsCertificate.validity.notAfter (RFC 5280, section 4.1)."""
    _, certificate, _ = _element(der)
    _, rest, _ = _element(certificate)
    tag, _, after = _element(rest)
    if tag == _VERSION:  # absent in version 1
        rest = after
    for _ in ("serialNumber", "signature", "issuer"):
        _, _, rest = _element(rest)
    tag, validity, _ = _element(rest)
    if tag != _SEQUENCE:
        raise ValueError("not a certificate")
    _, _, rest = _element(validity)
    tag, value, _ = _element(rest)
    # RFC 5280, section 4.1.2.5: seconds are always there, and the zone is always Z
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Split one DER element off: its tag, its content and what follows it (X.690, section 8.1)."""
    length = data[1]
    start = 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    end = start + length
    if end > len(data):
        raise ValueError("cut short")
    return data[0], data[start:end], data[end:]
