"""Finds the secrets in a config model, and the parts of them that a server may echo on their own.

Fields of type SecretStr and SecretFile are secrets, in any kind and at any depth. So are a user without a password,
fields whose name says so, the query of a path, the body of a request, and what looks like a token in a path or a
subprotocol.
"""

import json
import math
import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, unquote_plus

from pydantic import BaseModel, SecretStr

from connection_exporter.config.secret import IssuedSecrets, Place, SecretFile, leaves

SECRET_NAME: Final = re.compile(
    r"pass(?:word|wd|phrase)?$|passw|secret|token|(?:api|access)[_-]?key|auth|credential|signature|^(?:key|sig|pin)$",
    re.IGNORECASE,
)
_DECLARED: Final = (SecretStr, SecretFile, IssuedSecrets)
_PUBLISHED: Final = ("group", "description", "links", "depends_on")
"""Keys whose value is there to be shown."""

_PUBLIC_HEADER: Final = r"(?i)accept.*|content-.*|user-agent|origin|referer|host|cache-control|pragma"
_ROUTINE_KEY: Final = r"(?i)op|method|type|event|action|jsonrpc|channel|cmd|command|version|params|args"
_WORD: Final = r"(?i)[a-z]+(?:[-_.:/ ][a-z]+)*"
_LOGIN: Final = re.compile(r"\s*(?:\S+\s+)?(?:pass|auth|login|identify)\b", re.IGNORECASE)
"""How a command that logs in begins; a tag may come first, as in IMAP."""
_MOST_WORDS: Final = 20
"""Lines of a message, and words of each, that are looked at. Each secret takes memory."""
_PART: Final = 6
"""Characters. A shorter part of a secret is hidden only if its name says that it is one."""
_TOKEN: Final = re.compile(
    r"bot\d+:[\w-]{8,}|(?:sk|pk|rk)_(?:live|test)_\w+|gh[a-z]_\w{16,}|github_pat_\w+|glpat-[\w-]+|xox[a-z]-[\w-]+"
    r"|AKIA[0-9A-Z]{12,}|eyJ[\w-]{8,}(?:\.[\w-]+)*|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    re.IGNORECASE,
)
_ANNOUNCES: Final = re.compile(
    r"bearer|token|auth|authorization|key|apikey|api[_-]key|secret|hooks?", re.IGNORECASE
)
_SHORTEST_TOKEN: Final = 16
_ENTROPY: Final = 3.2
"""Bits per character. English words have about 3, random base64 of 20 characters about 4."""


class Secret(NamedTuple):
    """A text to hide. ``content`` is true of a body or message, most of which need not be secret.

    ``alone`` is true of a word that is hidden only where it is not a part of another.
    """

    text: str
    content: bool = False
    alone: bool = False


def secrets_of(model: BaseModel) -> Iterator[Secret]:
    """Yield every secret of a service, and its parts. Files count with the content that was read from them."""
    for place, value in leaves(model):
        if place[0] not in _PUBLISHED:
            for text in _texts(value):
                yield from _secrets_at(place, text, declared=isinstance(value, _DECLARED))
    yield from _login(model)
    for key in type(model).model_fields:
        if isinstance(inner := getattr(model, key), BaseModel):
            yield from _login(inner)


def token_parts(text: str) -> Iterator[str]:
    """Yield the parts of a path or a subprotocol that look like a token, or follow a word such as ``token``."""
    yield from (found[0] for found in _TOKEN.finditer(text))
    before = ""
    for part in re.split(r"[/.;,?&\s]+", text):
        name, _, value = part.rpartition("=")
        announced = SECRET_NAME.search(name) if name else _ANNOUNCES.fullmatch(before)
        if (announced and len(value) >= _PART and (name or not re.fullmatch(_WORD, value))) or _looks_random(
            unquote(value)
        ):
            yield value
        before = value


def looks_secret(name: str, value: str) -> bool:
    """Return whether a value is a secret by its name, or looks like a token."""
    return SECRET_NAME.search(name) is not None or any(token_parts(value))


def hide_parts(text: str, hidden: str) -> str:
    """Return a path or a subprotocol with the query and what looks like a token replaced by ``hidden``."""
    path, mark, _ = text.partition("?")
    for part in sorted(set(token_parts(path)), key=len, reverse=True):
        path = path.replace(part, hidden)
    return f"{path}?{hidden}" if mark else path


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, SecretStr):
        return (value.get_secret_value(),)
    if isinstance(value, SecretFile | IssuedSecrets):
        return value.values
    return (value,) if isinstance(value, str) else ()


def _login(model: BaseModel) -> Iterator[Secret]:
    """Yield what Basic authentication makes of a user and a password, and a user without a password."""
    users, passwords = (
        [text for suffix in ("", "_file") for text in _texts(getattr(model, key + suffix, None))]
        for key in ("user", "password")
    )
    for user, password in product(users or [""], passwords):
        yield from _basic(user, password)
    alone = getattr(model, "user", None)  # may be the key of an API, or an account that needs no password
    has_password = any(getattr(model, key, None) is not None for key in ("password", "password_file"))
    if isinstance(alone, str) and not has_password:
        yield from [Secret(alone, alone=True)] if alone.isalpha() else _credential(alone)
        yield from _basic(alone, "")


def _secrets_at(place: Place, text: str, *, declared: bool) -> Iterator[Secret]:
    key, above = str(place[-1]), place[:-1]
    if declared:
        if above == ("headers",):
            return _header(key, text)
        if key in ("send", "send_file"):
            return _content(text, lines=True)
        return _content(text) if key == "body_file" else _credential(text)
    if place == ("body",):
        return _content(text)
    if place == ("path",) or above == ("subprotocols",) or key == "token_url":
        return _place_on_server(text)
    if above[-1:] == ("endpoint_params",) and not SECRET_NAME.search(key):
        return (Secret(part) for part in token_parts(text))
    if SECRET_NAME.search(key) and not key.endswith("_file"):
        return _credential(text)
    login = re.search(r"://([^/?#\s]+)@", text)  # a URL in a field of a plug-in
    return _credential((login[1].partition(":")[2] or login[1]) if login else "")


def _place_on_server(text: str) -> Iterator[Secret]:
    """Yield what is secret in a path, its query, or a subprotocol."""
    path, _, query = text.partition("?")
    yield from _pairs(query)
    for part in token_parts(path):
        yield from _credential(part)


def _credential(text: str) -> Iterator[Secret]:
    """Yield a password or token: whole, unescaped, and without the scheme before it."""
    yield Secret(text)
    yield from (Secret(other) for other in {unquote(text), unquote_plus(text)} - {text})
    scheme, space, rest = text.strip().partition(" ")
    if space and scheme.isalpha():
        yield Secret(rest.strip())


def _basic(user: str, password: str) -> Iterator[Secret]:
    """Yield the credentials of HTTP's Basic scheme, RFC 7617."""
    yield Secret(b64encode(f"{user}:{password}".encode()).decode())


def _header(name: str, value: str) -> Iterator[Secret]:
    if re.fullmatch(_PUBLIC_HEADER, name):
        return
    yield from _credential(value)
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            yield Secret(b64decode(rest).decode().partition(":")[2])
    if "=" in value:  # cookies, and the parameters of a scheme such as Digest
        for pair in re.split(r"[;,]", value):
            key, _, part = pair.strip().partition("=")
            yield from _part(key, part.strip('" '), secret=name.lower() == "cookie")


def _content(text: str, *, lines: bool = False) -> Iterator[Secret]:
    """Yield a body or message, and the values in it if it is JSON, a form or ``lines`` of words."""
    yield Secret(text, content=True)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        yield from _pairs(text)
        if lines:
            yield from _words(text)
        return
    if isinstance(document, dict | list):
        yield from _leaves_of_json("", document)


def _leaves_of_json(key: str, value: Any) -> Iterator[Secret]:
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from _leaves_of_json(inner, item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves_of_json(key, item)
    elif isinstance(value, str):
        if not (re.fullmatch(_ROUTINE_KEY, key) and re.fullmatch(_WORD, value)):
            yield from _part(key, value)
            if value.startswith(("{", "[")):
                yield from _content(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _part(key, json.dumps(value))


def _pairs(text: str) -> Iterator[Secret]:
    """Yield the values of a query or a form, as they are written and unescaped."""
    if "=" not in text and len(text) >= _PART:
        yield from _credential(text)
    for pair in text.split("&"):
        key, _, value = pair.partition("=")
        yield from _part(key, value)
    for key, value in parse_qsl(text[:65536], max_num_fields=None):
        yield from _part(key, value)


def _words(text: str) -> Iterator[Secret]:
    """Yield the words of commands that may be secret, as in ``AUTH PLAIN AGJvYgBzM2NyZXQ=`` or ``LOGIN bob fish``."""
    for line in text.splitlines()[:_MOST_WORDS]:
        words = line.split()[:_MOST_WORDS]
        if len(words) == 1 and "=" in words[0].rstrip("="):
            continue  # a form
        for word in words:
            if len(word) >= _PART and not re.fullmatch(_WORD, word):
                yield from _credential(word)
                with suppress(ValueError):  # SASL: base64 of a password, or of a user, NUL and a password
                    yield from _credential(b64decode(word, validate=True).decode().rpartition("\0")[2])
        if len(words) > 1 and _LOGIN.match(line):
            yield from _credential(words[-1])


def _part(key: str, value: str, *, secret: bool = False) -> Iterator[Secret]:
    if len(value) >= _PART or (value and (secret or SECRET_NAME.search(key))):
        yield from _credential(value)


def _looks_random(text: str) -> bool:
    """Return whether a text looks like a token and not like words: long, mixed and evenly spread characters."""
    if len(text) < _SHORTEST_TOKEN or not re.fullmatch(r"[\w:~+=@!$*-]+", text):
        return False
    if all(re.fullmatch(r"[A-Za-z]{0,14}|\d{0,8}|v\d+", word) for word in re.split(r"[-_:]", text)):
        return False
    counts = Counter(text).values()
    entropy = -sum(n / len(text) * math.log2(n / len(text)) for n in counts)
    return bool(re.search(r"\d", text)) and bool(re.search(r"[A-Za-z]", text)) and entropy >= _ENTROPY
