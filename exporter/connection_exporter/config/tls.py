"""The config of TLS towards a service, which all kinds and alerting share."""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from connection_exporter.config.secret import FilePath
from connection_exporter.config.strict import Rule, Strict, at_most_one
from connection_exporter.config.url import parse_host
from connection_exporter.net.tls_options import TlsOptions, TlsVersion

_VERSION: Final = r"(?i)(?:TLS\s*v?)?1[._]?([0-3])"


def _version(value: object) -> object:
    """Accept ``1.2``, which YAML reads as a number, and what others write: TLSv1.2 and TLS12."""
    found = re.fullmatch(_VERSION, str(value)) if isinstance(value, str | float) else None
    return f"1.{found[1]}" if found else value


def _ciphers(text: str) -> str:
    import ssl  # noqa: PLC0415 - 3 ms: few services choose ciphers

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(text)
    except ssl.SSLError:
        raise ValueError(
            "OpenSSL knows no such cipher for TLS 1.2 and older: write a list as for `openssl ciphers`"
        ) from None
    return text


def _server_name(name: str) -> str:
    try:
        if not name.startswith("/"):
            return parse_host(name)
    except ValueError:
        pass
    raise ValueError("not a host name")


Version = Annotated[TlsVersion, BeforeValidator(_version)]


def _key_has_certificate(tls: "TlsConfig") -> str | None:
    for key in ("key_file", "key_password", "key_password_file"):
        if getattr(tls, key) is not None and tls.cert_file is None:
            return f"{key} needs cert_file: give both, or neither"
    return None


def _versions_fit(tls: "TlsConfig") -> str | None:
    lowest, highest = tls.min_version, tls.max_version
    if lowest is None or highest is None or lowest <= highest:
        return None
    return f"min_version {lowest} is higher than max_version {highest}: lower one or raise the other"


INSECURE: Final = ("insecure", "insecure_skip_verify", "skip_verify")
"""What other tools call ``verify: false``."""


class TlsConfig(Strict):
    """TLS towards a service. Files are read again for each connection."""

    SHAPE = "{verify: true, ca_file: …}, or {} for the defaults"
    OTHER_NAMES: ClassVar[Mapping[str, str]] = dict.fromkeys(INSECURE, "verify: false")
    RULES: ClassVar[tuple[Rule, ...]] = (
        _key_has_certificate,
        at_most_one("key_password", "key_password_file"),
        _versions_fit,
    )

    verify: bool = Field(True, description="check certificate and host name; `false` accepts anything")
    ca_file: FilePath | None = Field(
        None,
        description="certificates to trust, instead of the system's: a root, an intermediate or the server's own",
    )
    cert_file: FilePath | None = Field(None, description="client certificate, with its chain (PEM)")
    key_file: FilePath | None = Field(
        None, description="private key of cert_file, if it is in a separate file"
    )
    key_password: SecretStr | None = Field(
        None, description="passphrase of the private key; better in `key_password_file`"
    )
    key_password_file: FilePath | None = Field(
        None, description="file that contains the passphrase of the private key"
    )
    server_name: Annotated[str, AfterValidator(_server_name)] | None = Field(
        None, description="name to ask for (SNI) and to check in the certificate, if it is not the host"
    )
    min_version: Version | None = Field(
        None, description="oldest version to accept; by default 1.2, or max_version if that is older"
    )
    max_version: Version | None = Field(None, description="newest version to offer")
    ciphers: Annotated[str, AfterValidator(_ciphers)] | None = Field(
        None, min_length=1, description="ciphers for TLS 1.2 and older, in the notation of OpenSSL"
    )

    @property
    def options(self) -> TlsOptions:
        """The options as a value of the network layer."""
        password = self.key_password
        return TlsOptions(
            verify=self.verify,
            ca_file=self.ca_file,
            cert_file=self.cert_file,
            key_file=self.key_file,
            key_password=password.get_secret_value() if password is not None else None,
            key_password_file=self.key_password_file,
            min_version=self.min_version,
            max_version=self.max_version,
            ciphers=self.ciphers,
            server_name=self.server_name,
        )
