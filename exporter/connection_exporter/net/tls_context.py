"""Makes one TLS context from options, and says which of its files cannot be used, and why. Imports no event loop."""

import codecs
import ssl
from pathlib import Path
from typing import Final

from connection_exporter.core.failure import Failure
from connection_exporter.core.health import Reason
from connection_exporter.net.pem import MISMATCHES, defect, words
from connection_exporter.net.tls_options import TlsOptions
from connection_exporter.system.files import read_regular_file

_LARGEST_FILE: Final = 4 * 1024 * 1024
"""Bytes. The system's CA bundle has 220 KB."""

_VERSIONS: Final = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
_LOWEST: Final = "1.2"


class UnusableFile(Failure):
    """A file cannot be used; ``key`` is that of the file in the config, with which the message begins."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(Reason.TLS, message)
        self.key = key


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
    if options.verify and options.ca_file is None:
        context.load_default_certs()
    for load in _LOADERS:
        load(context, options)
    return context


def unusable_files(options: TlsOptions) -> list[UnusableFile]:
    """Return what is wrong with the files of ``options``, at most one problem of each side's. Blocks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _set_versions(context, options)  # the level of security decides which certificates are too weak
    found: list[UnusableFile] = []
    for load in _LOADERS:
        try:
            load(context, options)
        except UnusableFile as problem:
            found.append(problem)
        except Failure:  # removed at this moment, as while it is renewed: the next connection will tell
            continue
    return found


def read_tls_file(path: Path) -> bytes:
    """Return the content of a file of a context. Blocks. Raises `Failure` (tls)."""
    try:
        return read_regular_file(path, most=_LARGEST_FILE)
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise Failure(Reason.TLS, f"{path} cannot be read: {text}") from error


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
    try:
        context.set_ciphers(ciphers + level)
    except ssl.SSLError as error:
        text = "tls.ciphers cannot be used: expected a list of ciphers as `openssl ciphers` takes it"
        raise Failure(Reason.TLS, f"{text}: {error}") from error


def _load_authorities(context: ssl.SSLContext, options: TlsOptions) -> None:
    if options.ca_file is None:
        return
    try:
        context.load_verify_locations(options.ca_file)
    except (OSError, ValueError) as error:
        missing = defect(read_tls_file(options.ca_file), "certificate")
        text = f"ca_file {options.ca_file} {missing or f'cannot be used: {words(error)}'}"
        raise UnusableFile("ca_file", text) from error


def _load_client_certificate(context: ssl.SSLContext, options: TlsOptions) -> None:
    if (certificate := options.cert_file) is None:
        return
    key_of_key = "key_file" if options.key_file else "cert_file"
    key = f"key_file {options.key_file}" if options.key_file else f"the key in cert_file {certificate}"
    asked = False

    def password() -> str | bytes:
        """Return the passphrase; called only for an encrypted key. Without this, OpenSSL asks on the terminal."""
        nonlocal asked
        asked = True
        if options.key_password is not None:
            return options.key_password
        if options.key_password_file is None:
            raise UnusableFile(key_of_key, f"{key} has a passphrase: add tls.key_password_file")
        return read_tls_file(options.key_password_file).removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")

    try:
        context.load_cert_chain(certificate, options.key_file, password=password)
    except (OSError, ValueError) as error:
        if asked:
            source = options.key_password_file or "key_password"
            text = f"{key} cannot be decrypted with the passphrase in {source}"
            raise UnusableFile(key_of_key, text) from error
        if isinstance(error, ssl.SSLError) and error.reason in MISMATCHES:
            raise UnusableFile(key_of_key, f"{key} does not belong to cert_file {certificate}") from error
        if missing := defect(read_tls_file(certificate), "certificate"):
            raise UnusableFile("cert_file", f"cert_file {certificate} {missing}") from error
        if missing := defect(read_tls_file(options.key_file or certificate), "private key"):
            hint = "" if options.key_file else ", or key_file"
            text = f"{key_of_key} {options.key_file or certificate} {missing}{hint}"
            raise UnusableFile(key_of_key, text) from error
        text = f"cert_file {certificate} and {key} cannot be used: {words(error)}"
        raise UnusableFile("cert_file", text) from error


_LOADERS: Final = (_load_authorities, _load_client_certificate)
