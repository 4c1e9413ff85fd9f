"""Reads a connection string as libpq does: a URL, or ``key=value`` pairs. Must not know what a parameter means.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING. No error contains any part of the string,
because a part that cannot be read may be a piece of a password.
"""

import re
from itertools import islice
from typing import Final
from urllib.parse import unquote

from connection_exporter.config.url import parse_host

LONGEST: Final = 8 * 1024
"""Characters of a DSN."""

_MOST_TRIES: Final = 50
"""Places where the credentials of a URL may end: an ``@`` each."""

_URL: Final = re.compile(
    r"postgres(?:ql)?(?P<driver>\+[\w.-]+)?://", re.IGNORECASE
)  # SQLAlchemy adds +driver
_OTHER_URL: Final = r"[A-Za-z][A-Za-z0-9+.:-]*://"  # jdbc:postgresql:// too
_WRAPPED: Final = r"(?i:psql\s|(?:export\s+)?[a-z_][a-z0-9_]*=['\"]?postgres(?:ql)?(?:\+[a-z0-9]+)?://)"
_DOTNET: Final = r"(?i:server|host|data source|database|user id|username|user name)\s*=[^;=]*;\s*[A-Za-z ]+="
_AUTHORITY: Final = re.compile(r"/|\?(?:\w+=|\Z)|\Z")
"""What ends the hosts of a URL. A question mark that no parameter follows is a part of a password, as in libpq."""
_PLACE: Final = re.compile(r"(?:\[(?P<ipv6>[^\[\]/@]*)\]|(?P<name>[^\[\]:,]*))(?::(?P<port>[^:\[\],]*))?")
_PAIR: Final = (
    r"(?as)\s*(?P<key>[^\s=]+)\s*=\s*(?:'(?P<quoted>(?:[^'\\]|\\.)*)'|(?!')(?P<plain>(?:[^\s\\]|\\.)*)\\?)"
)
_SSL: Final = {"true": "require", "1": "require", "false": "disable", "0": "disable"}
_SPACE: Final = r"(?a)\s*"
_ESCAPED: Final = r"(?s)\\(.)"


def parse_dsn(dsn: str) -> dict[str, str]:
    """Return the parameters under libpq's names, unescaped, without those that are empty: libpq ignores them.

    ``host``, ``hostaddr`` and ``port`` may contain several values, separated by commas. Raises ValueError, whose text
    begins with ``dsn: ``.
    """
    if len(dsn) > LONGEST:
        raise ValueError(f"dsn: expected at most {LONGEST} characters: write the parts as keys of their own")
    text = dsn.strip()
    if url := _URL.match(text):
        parameters = _parse_url(text[url.end() :], of_sqlalchemy=url["driver"] is not None)
    else:
        _refuse_other_forms(text)
        parameters = _parse_pairs(dsn)
    if old := parameters.pop("requiressl", ""):  # libpq's, before there was sslmode
        parameters["sslmode"] = "require" if old.startswith("1") else "prefer"
    for key in ("host", "port"):
        if not parameters.get(key, "").strip(","):
            parameters.pop(key, None)  # `,` says no more than two defaults
    if any("\0" in value for value in parameters.values()):
        raise ValueError("dsn: a value contains a NUL, which PostgreSQL does not allow")
    return {key: value for key, value in parameters.items() if value}


def _refuse_other_forms(text: str) -> None:
    """Raise ValueError unless ``text`` may be pairs. Where it is something else that people copy, say what it is."""
    if text.startswith(("'", '"')):  # as `docker run --env-file` leaves them
        raise ValueError("dsn: remove the quotes around it: they are a part of the value here")
    if re.match(_WRAPPED, text):
        raise ValueError("dsn: write only the URL, without a command or a variable around it")
    if re.match(_DOTNET, text):
        raise ValueError(
            "dsn: a connection string of .NET: write pairs as in `host=db dbname=app user=me password=…`"
        )
    if re.match(_OTHER_URL, text):
        raise ValueError("dsn: expected a URL that begins with postgresql:// or postgres://")
    if "=" not in text:
        raise ValueError("dsn: expected postgresql://user@host/database, or pairs as in `host=db user=me`")


def _parse_url(rest: str, *, of_sqlalchemy: bool) -> dict[str, str]:
    login, places, rest = _split(rest)
    user, _, password = (login or "").partition(":")
    path, _, query = rest.partition("?")
    hosts, ports = [], []
    for place in _places(places):
        hosts.append(place["ipv6"] or place["name"] or "")
        ports.append(place["port"] or "")
    return {
        "user": _unescaped(user),
        "password": _unescaped(password),
        "host": _unescaped(",".join(hosts)),
        "port": _unescaped(",".join(ports)),
        "dbname": _unescaped(path.removeprefix("/")),
        **_parse_query(query),
        **(_repeated_hosts(query) if of_sqlalchemy else {}),
    }


def _parse_query(query: str) -> dict[str, str]:
    """Return the parameters of a query. A ``+`` is a plus sign, and of two values the last one counts."""
    parameters = {}
    for name, separator, value in _split_pairs(query):
        if not separator:
            raise ValueError("dsn: a parameter has no value: write name=value")
        if name == "ssl":  # JDBC's, which libpq knows; SQLAlchemy with asyncpg writes ssl=require
            parameters["sslmode"] = _SSL.get(value.lower(), value)
        else:
            parameters[_unescaped(name)] = _unescaped(value)
    return parameters


def _repeated_hosts(query: str) -> dict[str, str]:
    """Return the hosts and ports of a query such as ``host=db1:5432&host=db2:5433``, which is SQLAlchemy's form."""
    values = [_unescaped(value) for name, _, value in _split_pairs(query) if name == "host"]
    places = [(v, "", "") if v.startswith("/") or v.count(":") != 1 else v.partition(":") for v in values]
    if len(places) < 2 and not any(port for _, _, port in places):
        return {}
    return {"host": ",".join(host for host, _, _ in places), "port": ",".join(port for _, _, port in places)}


def _split_pairs(query: str) -> list[tuple[str, str, str]]:
    return [pair.partition("=") for pair in query.split("&") if pair]


def _parse_pairs(text: str) -> dict[str, str]:
    parameters, at = {}, _end_of_space(text, 0)
    while at < len(text):
        pair = re.compile(_PAIR).match(text, at)
        if pair is None:
            problem = (
                "a value has no closing quote"
                if "='" in text[at:].replace(" ", "")
                else "a word has no value"
            )
            raise ValueError(f"dsn: {problem}: write key=value, and key='two words' if there are spaces")
        value = pair["plain"] if pair["quoted"] is None else pair["quoted"]
        parameters[pair["key"]] = re.sub(_ESCAPED, r"\1", value)
        at = _end_of_space(text, pair.end())
    return parameters


def _end_of_space(text: str, at: int) -> int:
    found = re.compile(_SPACE).match(text, at)
    return found.end() if found is not None else at


def _split(rest: str) -> tuple[str | None, str, str]:
    """Return the credentials, the hosts with their ports, and what follows.

    libpq ends the credentials at the first ``@`` before the first slash. Where nothing that can be a host follows
    there, a later ``@`` is tried: a password with an unescaped ``@`` or slash is read as it was meant.
    """
    authority = _authority(rest)
    if "@" in authority or not _is_places(authority):
        for at_sign in islice(re.finditer("@", rest), _MOST_TRIES):
            places = _authority(rest[at_sign.end() :])
            if _is_places(places):
                return rest[: at_sign.start()], places, rest[at_sign.end() + len(places) :]
    login, found, places = authority.rpartition("@")
    return login if found else None, places, rest[len(authority) :]


def _authority(text: str) -> str:
    found = _AUTHORITY.search(text)
    assert found is not None  # it matches the end
    return text[: found.start()]


def _is_places(places: str) -> bool:
    """Return whether this can be what follows the credentials: hosts that are valid, with ports that are numbers."""
    try:
        for place in _places(places):
            if place["port"] and not place["port"].isdecimal():
                return False
            for host in _unescaped(place["ipv6"] or place["name"] or "").split(","):
                parse_host(host or "localhost")
    except ValueError:
        return False
    return True


def _places(places: str) -> list[re.Match[str]]:
    """Return the hosts of a URL, not yet unescaped, and their ports. Raises ValueError."""
    found = [_PLACE.fullmatch(place) for place in places.split(",")]
    read = [place for place in found if place is not None]
    if len(read) == len(found) and not any(
        place["ipv6"] is not None and ":" not in place["ipv6"] for place in read
    ):
        return read
    if "[" in places or (any(place.count(":") > 1 for place in places.split(",")) and "@" not in places):
        raise ValueError("dsn: write an IPv6 address in brackets, as in [::1]:5432")
    raise ValueError("dsn: the host or the port cannot be read")


def _unescaped(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("dsn: a percent code is not UTF-8") from None
