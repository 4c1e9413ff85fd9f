"""What a service asks of TLS. Imports no ssl, because every command reads the config."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

TlsVersion = Literal["1.0", "1.1", "1.2", "1.3"]


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """What a service asks of TLS. Files are looked at again at each connect, so that renewed ones are used.

    ``ca_file`` replaces the system's authorities. ``ciphers`` is a list of OpenSSL's for TLS 1.2 and older. Without
    ``min_version``, the oldest version is 1.2, or ``max_version`` if that is older. ``server_name`` replaces the host
    in SNI and in the check of the certificate.
    """

    verify: bool = True
    check_hostname: bool = True
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    key_password: str | None = field(default=None, repr=False)
    key_password_file: Path | None = None
    min_version: TlsVersion | None = None
    max_version: TlsVersion | None = None
    ciphers: str | None = None
    server_name: str | None = field(default=None, compare=False)  # contexts are the same for every name

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the context is made from."""
        paths = (self.ca_file, self.cert_file, self.key_file, self.key_password_file)
        return tuple(path for path in paths if path is not None)

    def for_another_server(self) -> "TlsOptions":
        """Return the options for a server that has another name, and must not learn who we are."""
        return replace(
            self, cert_file=None, key_file=None, key_password=None, key_password_file=None, server_name=None
        )
