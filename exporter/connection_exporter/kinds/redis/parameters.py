"""Owns what the parameters of a Redis URL mean: those that have a key of ours, those without effect, and the refused.

Names are compared without case, hyphens and underscores, because clients spell them differently.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

_NUMBER: Final = "[0-9]{1,9}"
_KEYS: Final = {
    "db": "database", "database": "database", "virtualhost": "database",
    "user": "user", "username": "user", "authuser": "user",
    "password": "password", "auth": "password", "authpass": "password",
}  # fmt: skip
_TLS_KEYS: Final = {
    "sslcacerts": "ca_file", "sslcertfile": "cert_file", "sslkeyfile": "key_file", "sslpassword": "key_password",
    "sslciphers": "ciphers",
}  # fmt: skip
_TLS_ON: Final = ("ssl", "tls", "usessl", "usetls")
_VERIFIES: Final = {"sslcertreqs": True, "verifypeer": True, "rejectunauthorized": True, "skipverify": False}
"""Parameters that turn the check of the certificate on or off, and whether a true value means on."""

_TLS_OPTIONS: Final = (*_VERIFIES, *_TLS_KEYS, "sslcheckhostname")
_TRUE: Final = ("true", "1", "yes", "on", "full", "required", "optional", "certrequired", "certoptional")
_FALSE: Final = ("false", "0", "no", "off", "none", "certnone")

SENTINEL: Final = "url: for Sentinel write `sentinel: {master: …, nodes: [host:port, …]}` instead of a URL"
CLUSTER: Final = "url: write the URL of one node of the cluster, with `cluster: true` next to it"
_PLACE: Final = "url: write host and port before the parameters, or use the keys `host` and `port`"
_NAME_UNCHECKED: Final = (
    "url: the host name in a certificate is always checked: set `tls: {server_name: …}` to the name that the "
    "certificate has, or write `tls: {verify: false}`"
)
_REFUSED: Final = {
    **dict.fromkeys(
        ("mastername", "master", "mastergroup", "servicename", "sentinelmasterid", "sentinelmaster", "sentinels"),
        SENTINEL,
    ),
    **dict.fromkeys(("cluster", "clustermode", "addr"), CLUSTER),
    **dict.fromkeys(("host", "port", "path", "unixsocketpath"), _PLACE),
    "sslcadata": "url: write the certificate to a file, and its path as `tls: {ca_file: …}`",
    "sslcapath": "url: name one file with all certificates, as `tls: {ca_file: …}`",
}  # fmt: skip
"""Parameters that change where a client connects, or what it trusts, and that are not supported in this form."""

_IGNORED: Final = {
    name.replace("_", "").replace("-", "").lower(): name
    for name in (
        *("protocol", "client_name", "lib_name", "lib_version", "encoding", "encoding_errors"),
        *("timeout", "socket_timeout", "socket_connect_timeout", "connectTimeout", "commandTimeout", "dial_timeout"),
        *("read_timeout", "write_timeout", "pool_timeout", "conn_max_idle_time", "conn_max_lifetime", "idle_timeout"),
        *("socket_keepalive", "keepAlive", "health_check_interval", "socket_read_size", "decode_responses"),
        *("max_connections", "pool_size", "connection_limit", "min_idle_conns", "max_idle_conns", "max_active_conns"),
        *("retry_on_timeout", "retry_on_error", "max_retries", "maxRetriesPerRequest", "min_retry_backoff"),
        *("max_retry_backoff", "enableReadyCheck", "enableOfflineQueue", "lazyConnect", "family", "keyPrefix"),
        *("prefix", "persistent", "persistent_id", "weight", "alias", "readOnly", "pool_fifo", "visibility_timeout"),
        *("ssl_min_version", "identity_suffix", "context_timeout_enabled"),
    )
}  # fmt: skip


@dataclass(slots=True)
class Parameters:
    """What the parameters of a URL say: keys of our config, options of TLS, and warnings."""

    given: dict[str, str] = field(default_factory=dict)
    tls: dict[str, object] = field(default_factory=dict)
    tls_on: bool = False
    warnings: list[str] = field(default_factory=list)


def read_parameters(pairs: Mapping[str, str], *, tls: bool, has_login: bool) -> Parameters:
    """Return what ``pairs`` mean for a URL whose scheme turns on ``tls``. Raises ValueError."""
    read = Parameters(tls_on=tls)
    ignored: list[str] = []
    unknown = 0
    for name, value in pairs.items():
        plain = re.sub("[^a-z0-9]", "", name.lower())
        if plain in _REFUSED:
            raise ValueError(_REFUSED[plain])
        if plain in _KEYS:
            _take(read.given, _KEYS[plain], value)
        elif plain in _TLS_ON:
            read.tls_on = read.tls_on or _is_true(value)
        elif plain in _TLS_OPTIONS:
            read.tls.update(_tls_option(plain, value))
        elif plain in _IGNORED:
            ignored.append(_IGNORED[plain])
        elif "@" in name + value and not has_login:  # the rest of a password that is not escaped
            raise ValueError("url: in a password, write ? as %3F")
        else:
            unknown += 1
    if read.tls and not read.tls_on:
        ignored.append("options of TLS, since the URL does not turn it on")
        read.tls.clear()
    read.warnings = list(_warnings(ignored, unknown))
    return read


def _take(given: dict[str, str], key: str, value: str) -> None:
    if key == "database" and value and not re.fullmatch(_NUMBER, value):
        raise ValueError("url: the parameter for the database is not a number")
    if value and given.setdefault(key, value) != value:
        raise ValueError(f"url: the {key} is given twice with different values: keep one")


def _tls_option(plain: str, value: str) -> dict[str, object]:
    if plain in _TLS_KEYS:
        return {_TLS_KEYS[plain]: value}
    name_unchecked = plain == "sslcheckhostname" and not _is_true(value)
    if name_unchecked or (plain == "verifypeer" and value.lower() == "ca"):
        raise ValueError(_NAME_UNCHECKED)
    unchecked = plain in _VERIFIES and _is_true(value) is not _VERIFIES[plain]
    return {"verify": False} if unchecked else {}


def _is_true(value: str) -> bool:
    plain = value.lower().replace("_", "")
    if plain not in (*_TRUE, *_FALSE):
        raise ValueError("url: a parameter of TLS has a value that is neither true nor false")
    return plain in _TRUE


def _warnings(ignored: list[str], unknown: int) -> Iterator[str]:
    if ignored:
        yield f"url: ignored, because the exporter does not need it: {', '.join(ignored)}"
    if unknown:
        yield f"url: {unknown} unknown parameter{'s' * (unknown > 1)} ignored: check the spelling"
