"""Owns the schema of the web config file: exporter-toolkit's, every key of it.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from exporter.config.durations import parse_duration
from exporter.config.service import FilePath, Strict
from exporter.net.server_tls import VERSIONS, ServerTls

_BCRYPT: Final = re.compile(r"\$2[abxy]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SLOW_COST: Final = 15
_HOW_TO_HASH: Final = "not a bcrypt hash: make one by `htpasswd -nBC 10 '' | tr -d ':\\n'`"

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


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket of ``burst`` requests, into which one more falls every ``interval`` seconds."""

    interval: float
    burst: int


def _hash(value: object) -> object:
    if not isinstance(value, str) or not _BCRYPT.fullmatch(value):
        raise ValueError(_HOW_TO_HASH)
    return value


def _user(name: str) -> str:
    if not name or ":" in name:
        raise ValueError("a user's name is not empty and has no colon (RFC 7617)")
    return name


def _cipher(name: str) -> str:
    if name not in _CIPHERS and name not in _TLS13_CIPHERS:
        raise ValueError(f"unknown cipher suite {name[:60]!r}: write it as in Go, {list(_CIPHERS)[-1]}")
    return name


def _header_value(value: str) -> str:
    if _CONTROL.search(value) or not value.isascii():
        raise ValueError("a header is plain ASCII, with no line break or other control character")
    return value


def _pause(value: object) -> float:
    return 0.0 if value in (0, "0") and not isinstance(value, bool) else parse_duration(value)


Hash = Annotated[SecretStr, BeforeValidator(_hash)]
User = Annotated[str, AfterValidator(_user)]
Cipher = Annotated[str, AfterValidator(_cipher)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]
Version = Literal["TLS10", "TLS11", "TLS12", "TLS13"]
ClientAuth = Literal[
    "NoClientCert",
    "RequestClientCert",
    "RequireAnyClientCert",
    "VerifyClientCertIfGiven",
    "RequireAndVerifyClientCert",
]


class _TlsServer(Strict):
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
    prefer_server_cipher_suites: bool = True
    curve_preferences: list[Literal["CurveP256", "CurveP384", "CurveP521", "X25519"]] = Field([])

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _one(self.cert, self.cert_file, "cert")
        _one(self.key, self.key_file, "key")
        verifies = self.client_auth_type in ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
        if self.client_ca is not None and self.client_ca_file is not None:
            raise ValueError("client_ca and client_ca_file are both given: keep one")
        authority = self.client_ca is not None or self.client_ca_file is not None
        if self.client_auth_type == "RequireAnyClientCert":
            raise ValueError(
                "client_auth_type: RequireAnyClientCert takes a certificate from anybody, which protects "
                "nothing and is not supported: use RequireAndVerifyClientCert"
            )
        if verifies and not authority:
            raise ValueError(f"client_auth_type: {self.client_auth_type} needs client_ca_file: add it")
        if authority and not verifies:
            raise ValueError(
                "client_ca_file: without client_auth_type nobody is asked for a certificate: add "
                "`client_auth_type: RequireAndVerifyClientCert`"
            )
        if self.client_allowed_sans and self.client_auth_type != "RequireAndVerifyClientCert":
            raise ValueError("client_allowed_sans: goes with `client_auth_type: RequireAndVerifyClientCert`")
        if VERSIONS[self.min_version] > VERSIONS[self.max_version]:
            raise ValueError("min_version: is above max_version: lower the one or raise the other")
        return self

    def options(self, folder: Path) -> ServerTls:
        """Return the same as the network layer knows it, paths relative to ``folder``."""
        modes = {
            "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
            "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
        }
        key = self.key.get_secret_value() if self.key else None
        return ServerTls(
            certificate=self.cert or _below(folder, self.cert_file),
            key=key or _below(folder, self.key_file),
            client_ca=self.client_ca
            or (_below(folder, self.client_ca_file) if self.client_ca_file else None),
            client_certificate=modes.get(self.client_auth_type, ssl.CERT_NONE),
            client_names=frozenset(self.client_allowed_sans),
            minimum=VERSIONS[self.min_version],
            maximum=VERSIONS[self.max_version],
            ciphers=tuple(_CIPHERS[name] for name in self.cipher_suites if name in _CIPHERS),
            server_chooses=self.prefer_server_cipher_suites,
        )

    def files(self, folder: Path) -> tuple[Path, ...]:
        """Return the files that are read for it."""
        return tuple(_below(folder, p) for p in (self.cert_file, self.key_file, self.client_ca_file) if p)


class _Headers(Strict):
    content_security_policy: HeaderValue = Field("", alias="Content-Security-Policy")
    frame_options: Literal["", "deny", "sameorigin"] = Field("", alias="X-Frame-Options")
    content_type_options: Literal["", "nosniff"] = Field("", alias="X-Content-Type-Options")
    xss_protection: HeaderValue = Field("", alias="X-XSS-Protection")
    strict_transport_security: HeaderValue = Field("", alias="Strict-Transport-Security")

    @property
    def in_force(self) -> dict[str, str]:
        """The headers that are set."""
        return {name: value for name, value in self.model_dump(by_alias=True).items() if value}


class _HttpServer(Strict):
    http2: bool | None = None
    headers: _Headers = _Headers()


class _RateLimit(Strict):
    interval: Annotated[float, BeforeValidator(_pause)] = 0.0
    burst: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _lets_somebody_pass(self) -> Self:
        if self.interval and not self.burst:
            raise ValueError("burst: 0 would let nobody pass: write 1 or more, or `interval: 0` for no limit")
        return self

    @property
    def in_force(self) -> RateLimit | None:
        """The limit; ``None`` where an interval of 0 turns it off."""
        return RateLimit(self.interval, self.burst) if self.interval else None


class WebFile(Strict):
    """The whole file. A section that is left empty is taken for one that is not there."""

    tls_server_config: _TlsServer | None = None
    http_server_config: _HttpServer = _HttpServer()
    basic_auth_users: dict[User, Hash] = Field({})
    rate_limit: _RateLimit = _RateLimit()

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, given: Any) -> Any:
        return {k: v for k, v in given.items() if v is not None} if isinstance(given, dict) else given

    @property
    def notes(self) -> list[str]:
        """What the file asks for and will not get, each with what happens instead."""
        notes = []
        tls = self.tls_server_config
        if self.http_server_config.http2:
            notes.append("http_server_config.http2: HTTP/1.1 is served, to every client")
        if tls and tls.curve_preferences:
            notes.append("tls_server_config.curve_preferences: not supported; OpenSSL chooses the curve")
        if tls and set(tls.cipher_suites) & set(_TLS13_CIPHERS):
            notes.append("tls_server_config.cipher_suites: those of TLS 1.3 are always on, as in Go")
        if tls and tls.client_auth_type == "RequestClientCert":
            notes.append("tls_server_config.client_auth_type: RequestClientCert has no effect")
        if not tls and self.basic_auth_users:
            notes.append(
                "basic_auth_users: without tls_server_config passwords cross the network in the clear"
            )
        slow = [u for u, h in self.basic_auth_users.items() if int(h.get_secret_value()[4:6]) >= _SLOW_COST]
        if slow:
            notes.append(
                f"basic_auth_users: the hash of {slow[0]} takes seconds to check: a cost of 10 to 12 is usual"
            )
        return notes


def _one(text: object, file: object, key: str) -> None:
    if (text is None) == (file is None):
        told = "are both given: keep one" if text is not None else "are both missing: give one"
        raise ValueError(f"{key} and {key}_file {told}")


def _below(folder: Path, path: Path | None) -> Path:
    assert path is not None, "the model has seen to it"
    return folder / path
