"""The config of direct alerting: which Alertmanagers get alerts, and the address of this exporter in them."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from connection_exporter.config.http_login import CONTROL, HttpLogin
from connection_exporter.config.tls import TlsConfig
from connection_exporter.config.url import parse_url, place_of
from connection_exporter.net.names import to_ascii

MOST_ALERTMANAGERS: Final = 20


def _base_url(url: str) -> str:
    """Return an http URL in its usual form, without a slash at its end. Raises ValueError."""
    read = parse_url(url.strip(), ("http", "https"), key="url")
    if read.user is not None or read.password is not None:
        raise ValueError("a URL must not contain credentials here: write `user` and `password_file`")
    if not read.host:
        raise ValueError("the host is missing")
    if read.query or "?" in url or "#" in url or CONTROL.search(url) or " " in read.path:
        raise ValueError("expected only a scheme, a host, a port and a path, as in http://host:9093")
    port = "" if read.port is None else f":{read.port}"
    host = to_ascii(read.host)
    return f"{read.scheme}://{f'[{host}]' if ':' in host else host}{port}{read.path.rstrip('/')}"


BaseUrl = Annotated[str, AfterValidator(_base_url)]


def _alertmanagers_differ(config: "AlertingConfig") -> str | None:
    if len(set(map(place_of, config.alertmanagers))) == len(config.alertmanagers):
        return None
    return "alertmanagers: the same host and port is listed twice: remove one"


def _tls_is_used(config: "AlertingConfig") -> str | None:
    if config.tls is None or any(url.startswith("https:") for url in config.alertmanagers):
        return None
    return "tls needs an https URL: change alertmanagers or remove tls"


class AlertingConfig(HttpLogin):
    """Where alerts are sent directly. Files are read again for each request."""

    SHAPE = '{alertmanagers: ["http://alertmanager:9093"], external_url: "http://monitor.example.com:8000"}'
    RULES = (_alertmanagers_differ, _tls_is_used)

    alertmanagers: Annotated[list[BaseUrl], Field(min_length=1, max_length=MOST_ALERTMANAGERS)] = Field(
        description="URL of every Alertmanager, and of each member of a cluster; never of a load balancer"
    )
    external_url: BaseUrl | None = Field(
        None, description="URL at which people reach this exporter; alerts link to it"
    )
    tls: TlsConfig | None = Field(None, description="TLS towards Alertmanagers with an https URL")
