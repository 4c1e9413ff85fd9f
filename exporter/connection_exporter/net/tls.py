"""Makes TLS contexts for connections to services: once per content, in a thread, shared by all with equal options.

A context costs 25 ms and nearly a megabyte, so one per service would stall the event loop and fill the memory.
"""

import codecs
import hashlib
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net.failures import NO_THREADS
from connection_exporter.net.tls_options import TlsOptions
from connection_exporter.system.files import Stamp, is_recent, read_regular_file, stamp_of
from connection_exporter.system.local_files import LocalFiles
from connection_exporter.system.threads import NoThread, SharedWork, WorkDied

MOST_CONTEXTS: Final = 128
"""Contexts that are kept. Of one more, the least recently used is dropped: it may belong to a removed service."""

_LARGEST_FILE: Final = 4 * 1024 * 1024
"""Bytes. The system's CA bundle has 220 KB."""


_VERSIONS: Final = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
_LOWEST: Final = "1.2"


@dataclass(slots=True, eq=False)
class _Made:
    """A context, and the files that it is made from.

    ``stamps`` is ``None`` if the files may change and keep their stamps. ``used`` is when the context was last used.
    """

    context: ssl.SSLContext
    digest: bytes
    files: tuple[Path, ...]
    places: LocalFiles
    stamps: tuple[Stamp, ...] | None
    used: float = 0.0

    @property
    def is_current(self) -> bool:
        """Whether the files are known not to have changed. Never blocks, so it is false on a remote file system."""
        return not self.files or (
            self.stamps is not None
            and self.places.are_local
            and self.stamps == tuple([stamp_of(path) for path in self.files])
        )


class TlsContexts:
    """The current context for each set of options. Belongs to one event loop."""

    def __init__(self) -> None:
        self._made: dict[TlsOptions, _Made] = {}
        self._work: SharedWork[TlsOptions, _Made] = SharedWork()

    async def get(self, options: TlsOptions) -> ssl.SSLContext:
        """Return the shared context for ``options``; a new one if the content of its files has changed.

        Raises `Failure`: tls if a file cannot be used, internal where no thread can be started.
        """
        made = known = self._made.get(options)
        if made is None or not made.is_current:
            try:
                made = await self._work.run(options, lambda: _current(options, known), name="tls context")
            except NoThread as error:
                raise Failure(Reason.INTERNAL, NO_THREADS) from error
            except WorkDied as error:
                raise Failure(Reason.INTERNAL, f"no TLS context: {error}") from error
            self._made[options] = made
        made.used = time.monotonic()
        if len(self._made) > MOST_CONTEXTS:
            del self._made[min(self._made, key=lambda key: self._made[key].used)]
        return made.context


def _current(options: TlsOptions, known: _Made | None) -> _Made:
    """Return the context of ``known`` if it was made from what the files contain now, otherwise a new one. Blocks."""
    files = options.files
    places = known.places if known is not None else LocalFiles(*files)
    places.locate()
    stamps = tuple([stamp_of(path) for path in files])  # before the look, so that no change is missed
    is_settled = all(stamp and not is_recent(stamp) for stamp in stamps)  # now: the look may take long
    digest = hashlib.blake2b(b"".join(hashlib.blake2b(_content(path)).digest() for path in files)).digest()
    context = known.context if known is not None and known.digest == digest else make_context(options)
    return _Made(context, digest, files, places, stamps if is_settled else None)


def _content(path: Path) -> bytes:
    try:
        return read_regular_file(path, most=_LARGEST_FILE)
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise Failure(Reason.TLS, f"{path} cannot be read: {text}") from error


def make_context(options: TlsOptions) -> ssl.SSLContext:
    """Make a context that accepts what curl accepts, on every version of Python.

    `ssl.create_default_context` differs: since 3.13 it is strict about the extensions of authorities, and before that
    it takes no chain that ends at an intermediate certificate. Python's list of ciphers is shorter than OpenSSL's.

    Blocks for 25 ms. Raises `Failure` (tls) if a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.options |= ssl.OP_NO_RENEGOTIATION  # a server could otherwise make us shake hands again and again
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = options.verify and options.check_hostname
    context.verify_mode = ssl.CERT_REQUIRED if options.verify else ssl.CERT_NONE
    _set_versions(context, options)
    if options.ca_file is not None:
        with _explained(f"ca_file {options.ca_file}", "expected certificates (PEM)"):
            context.load_verify_locations(options.ca_file)
    elif options.verify:
        context.load_default_certs()
    if options.cert_file is not None:
        _load_client_certificate(context, options, options.cert_file)
    return context


def _set_versions(context: ssl.SSLContext, options: TlsOptions) -> None:
    """Set the versions and the ciphers, with the level of security that they need (SSL_CTX_set_security_level(3)).

    OpenSSL 3 has TLS 1.0 and 1.1 only at level 0. Otherwise it is 2, the default of current versions of OpenSSL,
    whatever this one was built with.
    """
    lowest = options.min_version or min(_LOWEST, options.max_version or _LOWEST)
    context.minimum_version = _VERSIONS[lowest]
    if options.max_version is not None:
        context.maximum_version = _VERSIONS[options.max_version]
    ciphers = options.ciphers or "DEFAULT"
    level = "" if "@SECLEVEL" in ciphers else f":@SECLEVEL={0 if lowest < _LOWEST else 2}"
    with _explained("tls.ciphers", "expected a list of ciphers as `openssl ciphers` takes it"):
        context.set_ciphers(ciphers + level)


def _load_client_certificate(context: ssl.SSLContext, options: TlsOptions, certificate: Path) -> None:
    key = f"key_file {options.key_file}" if options.key_file else f"the key in cert_file {certificate}"
    asked = False

    def password() -> str | bytes:
        """Return the passphrase; called only for an encrypted key. Without this, OpenSSL asks on the terminal."""
        nonlocal asked
        asked = True
        if options.key_password is not None:
            return options.key_password
        if options.key_password_file is None:
            raise Failure(Reason.TLS, f"{key} has a passphrase: add tls.key_password_file")
        return _content(options.key_password_file).removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")

    try:
        context.load_cert_chain(certificate, options.key_file, password=password)
    except (OSError, ValueError) as error:
        if asked:
            source = options.key_password_file or "key_password"
            raise Failure(Reason.TLS, f"{key} cannot be decrypted with the passphrase in {source}") from error
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise Failure(Reason.TLS, f"{key} does not belong to cert_file {certificate}") from error
        text = f"cert_file {certificate} and {key} cannot be used: expected a certificate and its key (PEM): {error}"
        raise Failure(Reason.TLS, text) from error


@contextmanager
def _explained(what: str, expected: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise Failure(Reason.TLS, f"{what} cannot be used: {expected}: {error}") from error
