"""Owns TLS as our own listener offers it: a context from files, and one that can be exchanged while it serves."""

import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from weakref import WeakKeyDictionary

VERSIONS: Final = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}


_SURELY_OVER: Final = 10.0
"""Seconds after which the listener has ended a handshake, though asyncio may not have let go of it."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What the listener offers and asks. A ``Path`` names a PEM file, a ``str`` is PEM itself.

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


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """Make a context. Takes milliseconds and reads files. Raises OSError (ssl.SSLError is one) and ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = tls.minimum, tls.maximum
    context.set_alpn_protocols(["http/1.1"])
    if not tls.server_chooses:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if tls.ciphers:
        context.set_ciphers(":".join(tls.ciphers))
    with _path(tls.certificate) as certificate, _path(tls.key) as key:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    if tls.client_ca is not None:
        with _path(tls.client_ca) as authorities:
            context.load_verify_locations(authorities)
    context.verify_mode = tls.client_certificate
    if tls.client_names:
        context.sslobject_class = _checking(tls.client_names)
    return context


class LiveContext(ssl.SSLContext):
    """A context for a listener: each new connection gets whatever ``current`` is by then.

    A client that never ends its handshake is no connection yet to whoever counts those, but has an open file of ours:
    no more than ``most()`` handshakes are under way at a time.
    """

    current: ssl.SSLContext
    most: Callable[[], int]
    _begun: WeakKeyDictionary[ssl.SSLObject, float]
    _refusing: ssl.SSLContext

    @classmethod
    def of(cls, current: ssl.SSLContext, *, most: Callable[[], int]) -> Self:
        """Make one that gives ``current``, for now."""
        live = cls(ssl.PROTOCOL_TLS_SERVER)
        live.current, live.most, live._begun = current, most, WeakKeyDictionary()
        live._refusing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        live._refusing.sslobject_class = _Refused
        return live

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Begin a handshake, as asyncio and uvloop do for each connection; where there are too many, one that fails."""
        if self.handshakes() >= self.most():
            return self._refusing.wrap_bio(*args, **options)
        begun = self.current.wrap_bio(*args, **options)
        self._begun[begun] = time.monotonic()
        return begun

    def handshakes(self) -> int:
        """Return how many are under way, and forget those that have ended: well, or by the listener's deadline."""
        late = time.monotonic() - _SURELY_OVER
        for one, since in list(self._begun.items()):
            if one.version() is not None or since < late:
                del self._begun[one]
        return len(self._begun)


class _Refused(ssl.SSLObject):
    """A connection that is closed: raising earlier would have asyncio forget its socket."""

    def do_handshake(self) -> None:
        raise ssl.SSLError("too many handshakes are under way")


def _checking(names: frozenset[str]) -> type[ssl.SSLObject]:
    """Return the class of connections whose client certificate has to have one of ``names``."""

    class Checked(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            alternatives: Any = (self.getpeercert() or {}).get("subjectAltName", ())
            if not names & {value for _, value in alternatives}:
                raise ssl.SSLError("the client certificate has none of the names that are allowed")

    return Checked


@contextmanager
def _path(pem: Path | str) -> Iterator[Path]:
    """Give PEM a path, which is all that OpenSSL takes, without writing a key to any disk."""
    if isinstance(pem, Path):
        yield pem
        return
    descriptor = os.memfd_create("pem")
    try:
        os.write(descriptor, pem.encode())
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _no_passphrase() -> str:
    raise ValueError("the key is protected by a passphrase, and nobody is there to type it: store it without")
