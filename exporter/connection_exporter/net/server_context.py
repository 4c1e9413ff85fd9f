"""Owns what our own listener offers of TLS, and the context that is made from it."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

VERSIONS: Final = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What the listener offers and requires. A ``Path`` names a PEM file, a ``str`` is PEM itself.

    ``ciphers`` are OpenSSL's names, for TLS 1.2 and below; empty for OpenSSL's choice.
    """

    certificate: Path | str
    key: Path | str
    client_ca: Path | str | None = None
    client_certificate: ssl.VerifyMode = ssl.CERT_NONE
    client_names: frozenset[str] = frozenset()
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: tuple[str, ...] = ()
    server_chooses: bool = True
    curve: str | None = None
    """The only elliptic curve for key exchanges, by OpenSSL's name; ``None`` for OpenSSL's choice."""


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """Create a context. Takes milliseconds and reads files. Raises OSError (ssl.SSLError is one) and ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = tls.minimum, tls.maximum
    context.options |= ssl.OP_NO_RENEGOTIATION  # a client could otherwise have us sign again and again
    context.set_alpn_protocols(["http/1.1"])
    if not tls.server_chooses:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    ciphers = ":".join(tls.ciphers) or "DEFAULT"
    if tls.minimum < ssl.TLSVersion.TLSv1_2:
        ciphers += ":@SECLEVEL=0"  # OpenSSL 3 has no TLS 1.0 and 1.1 above level 0
    if ciphers != "DEFAULT":
        context.set_ciphers(ciphers)
    if tls.curve is not None:
        context.set_ecdh_curve(tls.curve)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as in Go, any certificate in client_ca is trusted
    with _path(tls.certificate) as certificate, _path(tls.key) as key:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    if tls.client_ca is not None:
        with _path(tls.client_ca) as authorities:
            context.load_verify_locations(authorities)
    elif tls.client_certificate is not ssl.CERT_NONE:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = tls.client_certificate
    if tls.client_names:
        context.sslobject_class = _checking(tls.client_names)
    return context


def _checking(names: frozenset[str]) -> type[ssl.SSLObject]:
    """Return the class of connections whose client certificate must have one of ``names``."""

    class Checked(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            alternatives: Any = (self.getpeercert() or {}).get("subjectAltName", ())
            if not names & {value for _, value in alternatives}:
                raise ssl.SSLError("the client certificate has none of the allowed names")

    return Checked


@contextmanager
def _path(pem: Path | str) -> Iterator[Path]:
    """Give PEM text a path, because OpenSSL reads only files; the key is not written to a disk."""
    if isinstance(pem, Path):
        pem.open("rb").close()  # OpenSSL's errors do not name the file
        yield pem
        return
    descriptor = os.memfd_create("pem")
    try:
        os.write(descriptor, pem.encode())
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _no_passphrase() -> str:
    raise ValueError("the key is protected by a passphrase: store it without one")
