"""Owns what a Redis URL means: every form that redis-cli, redis_exporter and the common clients accept.

Sources: redis-cli (parseRedisUri in https://github.com/redis/redis/blob/unstable/src/cli_common.c), redis-py's
``from_url``, go-redis' ``ParseURL``, ioredis, Lettuce's ``RedisURI``, phpredis and Celery. No error or warning contains
any part of the URL: a parameter is named only if its name is known.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import unquote

from connection_exporter.config.url import parse_url
from connection_exporter.kinds.redis.parameters import CLUSTER, SENTINEL, read_parameters

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PLAIN: Final = ("redis", "valkey", "tcp")
_TLS: Final = ("rediss", "valkeys", "tls", "redis+ssl", "redis+tls")
_SOCKET: Final = ("unix", "redis-socket", "redis+socket", "redis+unix")
_FORMS: Final = (
    "redis://host:port/database, rediss:// for TLS, valkey://, valkeys://, tcp://, unix:///path, or host:port"
)
_PATH: Final = re.compile("/?[0-9]{0,9}/?")
_DOTNET: Final = re.compile(r"[^@/?,]*,\s*[A-Za-z]+=.*", re.DOTALL)
_Parts = Mapping[str, str | int | None]


class RedisUrl(NamedTuple):
    """A URL as keys of our config. ``tls`` is true if the URL asks for TLS."""

    given: Mapping[str, object]
    tls: bool
    warnings: tuple[str, ...]


def read_url(url: str) -> RedisUrl:
    """Return what ``url`` means. Raises ValueError, whose text begins with ``url``."""
    url = url.strip()
    if not url:
        raise ValueError(f"url: is empty: expected {_FORMS}")
    scheme, rest = _scheme(url)
    if "sentinel" in scheme:
        raise ValueError(SENTINEL)
    if "cluster" in scheme:
        raise ValueError(CLUSTER)
    if scheme not in (*_PLAIN, *_TLS, *_SOCKET):
        raise ValueError(f"url: expected {_FORMS}")
    parts, query = _socket(rest) if scheme in _SOCKET else _host(rest)
    has_login = parts["user"] is not None or parts["password"] is not None
    read = read_parameters(_pairs(query), tls=scheme in _TLS, has_login=has_login)
    given = _with_login(_merged(parts, read.given))
    if any("\ufffd" in str(value) for value in given.values()) and "\ufffd" not in url:
        raise ValueError("url: a percent escape is not UTF-8: only text in UTF-8 can be configured")
    return RedisUrl({**given, **({"tls": read.tls} if read.tls else {})}, read.tls_on, tuple(read.warnings))


def _scheme(url: str) -> tuple[str, str]:
    """Return the scheme and what follows it. Raises ValueError for what is not a URL alone, and says what it is."""
    if found := _SCHEME.match(url):
        return found[1].lower(), found[2]
    if "://" in url.partition("?")[0]:  # `redis-cli -u URL`, `REDIS_URL=URL`, or a URL in quotes
        raise ValueError("url: write only the URL, without a command, a variable or quotes around it")
    if _DOTNET.fullmatch(url):
        raise ValueError(
            "url: a connection string of .NET: write it as redis://:password@host:port, or rediss:// for TLS"
        )
    if url.startswith(("/", "unix:/")):  # a path of its own, as ioredis takes it
        return "unix", url.removeprefix("unix:")
    is_port = url.isascii() and url.isdigit()  # a port of its own, as ioredis takes it
    return "redis", f":{url}" if is_port else url


def _socket(rest: str) -> tuple[_Parts, str]:
    """Return the parts and the query of ``user:password@/path?query``."""
    before, _, query = rest.partition("#")[0].partition("?")
    login, path = None, before
    if not before.startswith("/"):
        login, at, path = before.partition("@/")
        path = f"/{path}" if at else ""
    if not path:
        raise ValueError("url: a Unix socket is written unix:///path, with three slashes")
    user, colon, password = (login or "").partition(":")
    return {
        "host": unquote(path), "user": unquote(user) or None, "password": unquote(password) if colon else None,
    }, query  # fmt: skip


def _host(rest: str) -> tuple[_Parts, str]:
    """Return the parts and the query of ``user:password@host:port/database?query``."""
    read = parse_url(f"redis://{rest}", ("redis",), key="url", tolerant=_PATH)
    if not _PATH.fullmatch(read.path):
        raise ValueError("url: the path is the number of the database, as in /0")
    if read.user is None and read.password is None and "@" in rest.partition("#")[2]:
        raise ValueError("url: in a password, write # as %23")
    database = read.path.strip("/")
    return {
        "host": read.host or None, "port": read.port, "user": read.user, "password": read.password,
        "database": int(database) if database else None,
    }, read.query  # fmt: skip


def _pairs(query: str) -> dict[str, str]:
    """Return the parameters of a query. A ``+`` is a plus sign, and a name alone has an empty value."""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _merged(parts: _Parts, parameters: Mapping[str, str]) -> _Parts:
    """Return ``parts`` with what ``parameters`` say. Raises ValueError where a user or a password differ.

    A parameter for the database replaces the one in the path, as in redis-py and go-redis.
    """
    merged = dict(parts)
    for key, text in parameters.items():
        if key != "database" and merged[key] not in (None, text):
            raise ValueError(f"url: the {key} is given twice with different values: keep one")
        merged[key] = int(text) if key == "database" else text
    return merged


def _with_login(parts: _Parts) -> dict[str, object]:
    """Return what ``parts`` say. A user part on its own is the password, as in redis-cli."""
    user, password = parts["user"], parts["password"]
    if password is None:
        user, password = None, user
    if user is None and password == "":  # redis://:@host comes from a template without a password
        password = None
    found = {**parts, "user": user, "password": password}
    return {key: value for key, value in found.items() if value is not None}
