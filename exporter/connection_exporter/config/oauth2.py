"""The config of OAuth 2.0 with client credentials: where tokens come from, and with which secret."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr

from connection_exporter.config.http_login import CONTROL
from connection_exporter.config.secret import IssuedSecrets, SecretFile
from connection_exporter.config.strict import Strict, at_most_one
from connection_exporter.config.tls import TlsConfig
from connection_exporter.config.url import Url, parse_host, parse_url

_SCHEMES: Final = ("http", "https")
_SCOPE: Final = r"[\x21\x23-\x5b\x5d-\x7e]+"  # RFC 6749, section 3.3


def _token_url(url: str) -> str:
    read = parse_url(url.strip(), _SCHEMES, key="token_url")
    if read.user is not None or read.password is not None:
        raise ValueError(
            "a URL must not contain credentials here: write `client_id` and `client_secret_file`"
        )
    if not read.host:
        raise ValueError("the host is missing")
    parse_host(read.host)
    if CONTROL.search(url) or " " in url.strip():
        raise ValueError("a space or control character must be escaped")
    return url.strip()


def _scope(scope: str) -> str:
    if not re.fullmatch(_SCOPE, scope):
        raise ValueError("not a scope: write each one as an item of the list, without spaces and quotes")
    return scope


def _has_a_secret(config: "OAuth2Config") -> str | None:
    missing = config.client_secret is None and config.client_secret_file is None
    return "`client_secret_file` is missing: add it" if missing else None


def _tls_fits(config: "OAuth2Config") -> str | None:
    if config.tls is not None and config.endpoint.scheme == "http":
        return "tls needs https://: change token_url or remove tls"
    return None


class OAuth2Config(Strict):
    """OAuth 2.0 with client credentials (RFC 6749, section 4.4). The secret is read again for each request."""

    SHAPE = "{token_url: https://…, client_id: …, client_secret_file: …}"
    RULES = (at_most_one("client_secret", "client_secret_file"), _has_a_secret, _tls_fits)

    token_url: Annotated[str, AfterValidator(_token_url)] = Field(
        repr=False, description="http:// or https:// URL that issues tokens"
    )
    client_id: str = Field(min_length=1, description="name of this client at the token endpoint")
    client_secret: SecretStr | None = Field(
        None, description="secret of this client; better in `client_secret_file`"
    )
    client_secret_file: SecretFile | None = Field(None, description="file that contains the secret")
    scopes: list[Annotated[str, AfterValidator(_scope)]] = Field([], description="scopes to ask for")
    endpoint_params: dict[str, str] = Field(
        {}, repr=False, description="further parameters of the token request, as in {audience: https://…}"
    )
    tls: TlsConfig | None = Field(None, description="TLS to the token endpoint")

    _issued: IssuedSecrets = PrivateAttr(default_factory=IssuedSecrets)

    @property
    def endpoint(self) -> Url:
        """The parts of the URL."""
        return parse_url(self.token_url, _SCHEMES, key="token_url")

    def remember(self, token: str) -> None:
        """Have a token that was issued hidden like any other secret of the service."""
        self._issued.remember(token)
