"""Owns what our own listener offers of TLS, and the context that is made from it."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from connection_exporter.net.pem import MISMATCHES, defect, words

VERSIONS: Final = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}


class UnusablePem(ValueError):
    """A certificate or a key cannot be used; ``key`` is cert, key or client_ca."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


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
    """Create a context. Takes milliseconds and reads files. Raises OSError (ssl.SSLError is one) and ValueError.

    `UnusablePem`, a ValueError, says which certificate or key cannot be used.
    """
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
        try:
            context.load_cert_chain(certificate, key, password=_no_passphrase)
        except ssl.SSLError as error:
            raise _unusable_chain(error, tls, certificate, key) from error
    if tls.client_ca is not None:
        with _path(tls.client_ca) as authorities:
            try:
                context.load_verify_locations(authorities)
            except ssl.SSLError as error:
                missing = defect(authorities.read_bytes(), "certificate")
                text = f"{_named(tls.client_ca)}{missing or f'cannot be used: {words(error)}'}"
                raise UnusablePem("client_ca", text) from error
    elif tls.client_certificate is not ssl.CERT_NONE:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = tls.client_certificate
    if tls.client_names:
        context.sslobject_class = _checking(tls.client_names)
    return context


def _unusable_chain(error: ssl.SSLError, tls: ServerTls, certificate: Path, key: Path) -> UnusablePem:
    """Return what is wrong with the certificate or its key, which are at these paths now."""
    if missing := defect(certificate.read_bytes(), "certificate"):
        return UnusablePem("cert", f"{_named(tls.certificate)}{missing}")
    if missing := defect(key.read_bytes(), "private key"):
        return UnusablePem("key", f"{_named(tls.key)}{missing}")
    if error.reason in MISMATCHES:
        return UnusablePem("key", f"{_named(tls.key)}does not belong to the certificate")
    return UnusablePem("cert", f"certificate and key cannot be used: {words(error)}")


def _named(pem: Path | str) -> str:
    return f"{pem} " if isinstance(pem, Path) else ""


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
