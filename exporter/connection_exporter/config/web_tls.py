"""Owns the section `tls_server_config` of the web config file, in the words of exporter-toolkit and of Go."""

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr

from connection_exporter.config.go import Boolean, Section
from connection_exporter.config.secret import FilePath
from connection_exporter.net.server_context import VERSIONS, ServerTls

_CURVES: Final = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}
_CIPHERS: Final[Mapping[str, str]] = {  # Go's names, https://pkg.go.dev/crypto/tls#CipherSuites
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
_TLS13_CIPHERS: Final = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")


def _cipher(name: str) -> str:
    if name not in _CIPHERS and name not in _TLS13_CIPHERS:
        raise ValueError(f"unknown cipher suite {name[:60]!r}: write it as in Go, {list(_CIPHERS)[-1]}")
    return name


Cipher = Annotated[str, AfterValidator(_cipher)]
Version = Literal["TLS10", "TLS11", "TLS12", "TLS13"]
_ANY_CERTIFICATE: Final = ("RequireAnyClientCert", "RequireClientCert")
_VERIFYING: Final = {
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
ClientAuth = Literal[
    "NoClientCert",
    "RequestClientCert",
    "RequireAnyClientCert",
    "RequireClientCert",
    "VerifyClientCertIfGiven",
    "RequireAndVerifyClientCert",
]


def _has_a_certificate(tls: "TlsServer") -> str | None:
    if not tls.is_enabled or tls.cert is not None or tls.cert_file is not None:
        return None
    return "cert and cert_file are both missing: give one"


def _has_a_key(tls: "TlsServer") -> str | None:
    if not tls.is_enabled or tls.key is not None or tls.key_file is not None:
        return None
    return "key and key_file are both missing: give one"


def _client_ca_is_used(tls: "TlsServer") -> str | None:
    if tls.has_client_ca and tls.client_auth_type == "NoClientCert":
        return (
            "client_ca_file: without client_auth_type nobody is asked for a certificate: add "
            "`client_auth_type: RequireAndVerifyClientCert`"
        )
    return None


def _names_are_checked(tls: "TlsServer") -> str | None:
    if tls.client_allowed_sans and tls.verify_mode is not ssl.CERT_REQUIRED:
        return "client_allowed_sans: needs `client_auth_type: RequireAndVerifyClientCert`"
    return None


def _versions_fit(tls: "TlsServer") -> str | None:
    if VERSIONS[tls.min_version] <= VERSIONS[tls.max_version]:
        return None
    return "min_version: is above max_version: lower one or raise the other"


class TlsServer(Section):
    """TLS of the listener."""

    RULES = (_has_a_certificate, _has_a_key, _client_ca_is_used, _names_are_checked, _versions_fit)

    cert: str | None = None
    key: SecretStr | None = None
    client_ca: str | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None
    client_ca_file: FilePath | None = None
    client_auth_type: ClientAuth = "NoClientCert"
    client_allowed_sans: list[str] = Field([])
    min_version: Version = "TLS12"
    max_version: Version = "TLS13"
    cipher_suites: list[Cipher] = Field([])
    prefer_server_cipher_suites: Boolean = True
    curve_preferences: list[Literal["CurveP256", "CurveP384", "CurveP521", "X25519"]] = Field([])

    @property
    def is_enabled(self) -> bool:
        """Whether there is to be TLS. As in the toolkit, keys such as `min_version` alone do not turn it on."""
        keys = ("cert", "cert_file", "key", "key_file", "client_ca", "client_ca_file", "client_auth_type")
        return any(self.is_written(key) for key in keys)

    @property
    def has_client_ca(self) -> bool:
        """Whether authorities for client certificates are given."""
        return self.client_ca is not None or self.client_ca_file is not None

    @property
    def verify_mode(self) -> ssl.VerifyMode:
        """What clients have to present. Python can verify a certificate or not ask for it, and nothing in between."""
        if self.client_auth_type in _ANY_CERTIFICATE and (self.has_client_ca or self.client_allowed_sans):
            return ssl.CERT_REQUIRED
        return _VERIFYING.get(self.client_auth_type, ssl.CERT_NONE)

    def written_as(self, key: str) -> str:
        """Return the key in force of ``cert``, ``key`` or ``client_ca``: that of a file, or of inline text."""
        return f"{key}_file" if getattr(self, f"{key}_file") is not None else key

    def options(self, folder: Path) -> ServerTls:
        """Return the same as the network layer knows it, paths relative to ``folder``. A file wins over inline text."""
        key = self.key.get_secret_value() if self.key else None
        return ServerTls(
            certificate=_pem(folder, self.cert_file, self.cert),
            key=_pem(folder, self.key_file, key),
            client_ca=_pem(folder, self.client_ca_file, self.client_ca) if self.has_client_ca else None,
            client_certificate=self.verify_mode,
            client_names=frozenset(self.client_allowed_sans),
            minimum=VERSIONS[self.min_version],
            maximum=VERSIONS[self.max_version],
            ciphers=tuple(_CIPHERS[name] for name in self.cipher_suites if name in _CIPHERS),
            server_chooses=self.prefer_server_cipher_suites,
            curve=_CURVES[self.curve_preferences[0]] if len(self.curve_preferences) == 1 else None,
        )

    def files(self, folder: Path) -> tuple[Path, ...]:
        """Return the files that are read for it."""
        return tuple(folder / path for path in (self.cert_file, self.key_file, self.client_ca_file) if path)

    @property
    def notes(self) -> Iterator[str]:
        """What is configured and cannot take effect, each with what happens instead."""
        for key in ("cert", "key", "client_ca"):
            if getattr(self, key) is not None and getattr(self, f"{key}_file") is not None:
                yield f"{key}: {key}_file is also given, and takes precedence"
        if len(self.curve_preferences) > 1:
            yield "curve_preferences: with several curves, OpenSSL chooses; only a single one takes effect"
        if set(self.cipher_suites) & set(_TLS13_CIPHERS):
            yield "cipher_suites: the suites of TLS 1.3 are always on, as in Go"
        if self.client_auth_type == "RequestClientCert":
            yield "client_auth_type: RequestClientCert has no effect: a certificate would not be verified"
        if self.client_auth_type in _ANY_CERTIFICATE:
            instead = (
                "the exporter verifies it, as with RequireAndVerifyClientCert"
                if self.verify_mode is ssl.CERT_REQUIRED
                else "no certificate is requested"
            )
            yield f"client_auth_type: {self.client_auth_type} accepts any certificate: {instead}"
        if self.verify_mode is not ssl.CERT_NONE and not self.has_client_ca:
            yield "client_auth_type: without client_ca_file, clients are verified by the system's authorities"


def _pem(folder: Path, file: Path | None, text: str | None) -> Path | str:
    assert file is not None or text is not None, "the rules have seen to it"
    return folder / file if file is not None else str(text)
