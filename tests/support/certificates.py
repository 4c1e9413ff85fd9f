"""Certificates with any extensions and dates, as real authorities issue them (those of trustme are all correct)."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

LATER: Final = datetime.now(UTC).replace(microsecond=0) + timedelta(days=365)
CA: Final = (x509.BasicConstraints(ca=True, path_length=None), True)
"""An extension, and whether it is critical."""

Extension = tuple[x509.ExtensionType, bool]


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key. ``issuer`` is ``None`` for one that is signed by itself."""

    content: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    issuer: "Certificate | None"

    @property
    def pem(self) -> bytes:
        return self.content.public_bytes(Encoding.PEM)

    def key_pem(self, passphrase: bytes | None = None, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
        encryption: KeySerializationEncryption = NoEncryption()
        if passphrase is not None:
            encryption = BestAvailableEncryption(passphrase)
        return self.key.private_bytes(Encoding.PEM, form, encryption)

    def write(self, path: Path, *others: "Certificate") -> Path:
        path.write_bytes(b"".join(each.pem for each in (self, *others)))
        return path


def issue(
    *names: str,
    issuer: Certificate | None = None,
    extensions: tuple[Extension, ...] = (),
    not_after: datetime = LATER,
    subject: str = "",
    name: x509.Name | None = None,
) -> Certificate:
    """Issue a certificate for names and addresses; without an ``issuer``, it is signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else [])
        if name is None
        else name
    )
    begins = datetime.now(UTC) - timedelta(days=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(issuer.content.subject if issuer is not None else own)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(begins, not_after - timedelta(days=1)))
        .not_valid_after(not_after)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general(each) for each in names]), False
        )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signer = issuer.key if issuer is not None else key
    return Certificate(builder.sign(signer, hashes.SHA256()), key, issuer)


def presenting(leaf: trustme.LeafCert) -> ssl.SSLContext:
    """Return the context of a server that presents a certificate of trustme's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


def server_context(folder: Path, *chain: Certificate) -> ssl.SSLContext:
    """Return the context of a server that presents ``chain``, its own certificate first."""
    key = folder / "server.key"
    key.write_bytes(chain[0].key_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain[0].write(folder / "server.pem", *chain[1:]), key)
    return context


@contextmanager
def tls_server(context: ssl.SSLContext) -> Iterator[int]:
    """Echo what each client sends, from a thread, and yield the port.

    Unlike asyncio's server, a blocking one sends OpenSSL's alert when a handshake fails.
    """

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            secured = context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
            clients.append(secured)
            with suppress(OSError), secured:
                secured.do_handshake()
                while data := secured.recv(4096):
                    secured.sendall(data)

    clients: list[ssl.SSLSocket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        for each in (listener, *clients):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        thread.join(20)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
