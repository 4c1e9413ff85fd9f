"""Owns which requests are let through: basic authentication, a rate limit, and the headers of every response.

The rules can be exchanged at any time. Checking a password costs 70 to 300 ms of CPU (bcrypt), so it happens in a
thread, and both right and wrong logins are remembered.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from connection_exporter.system.threads import run_in_thread
from connection_exporter.web.responses import problem
from connection_exporter.web.routes import has_own_token

QUEUE: Final = 8
"""Logins of one user that may wait for their password check; the names that do not exist count as one user."""

WRONG_FOR: Final = 30.0
"""Seconds for which a wrong pair of user and password is remembered."""

_REMEMBERED: Final = 100
_WRONG_REMEMBERED: Final = 1000
_LONGEST: Final = 72
"""Bytes of a password that bcrypt looks at; Go and htpasswd ignore the rest, and so do we."""

_UNKNOWN_USER: Final = "$2b$10$c6T.jeLXhyzM6ezF7eAZoORIsCYx4wNlaq9dSSQ/ZPqoWHTHP0yXG"
"""What the password of a user who does not exist is checked against, so that names cannot be found by timing.

Its cost is 10, the default of htpasswd and Go. Not the highest cost of the users: one of 18 would let anybody keep a
CPU busy for a minute. Users whose hashes have another cost can be distinguished from unknown ones by timing.
"""


@dataclass(frozen=True, slots=True)
class Rules:
    """Bcrypt hashes of users, headers of every response, and a token bucket for the rate of requests.

    Without users, no password is needed, and never at ``open_paths``. ``refill`` is in seconds per request; 0 means no
    limit.
    """

    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    refill: float = 0.0
    burst: int = 1
    open_paths: frozenset[str] = frozenset()


class Authentication:
    """Wraps an application. Assign to ``rules`` to exchange the rules."""

    def __init__(self, app: ASGIApp, rules: Rules, *, now: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._passwords = _Passwords()
        self._now = now
        self._bucket_full_at = now()
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        rules = self.rules
        if scope["type"] != "http":
            return
        if rules.headers:
            send = _with_headers(send, rules.headers)
        app = self._app
        if self._too_fast(rules):
            retry = {"Retry-After": str(max(1, round(rules.refill)))}
            app = problem(HTTPStatus.TOO_MANY_REQUESTS, "more requests than rate_limit allows", retry)
        elif rules.users and not _is_preflight(scope) and not self._is_open(scope):
            login = _login(Headers(scope=scope).get("authorization"))
            try:
                if login is None or not await self._passwords.match(rules.users, *login, gone=_gone(scope)):
                    ask = {"WWW-Authenticate": 'Basic realm="connection-exporter", charset="UTF-8"'}
                    what = "a user and password are needed" if login is None else "wrong user or password"
                    app = problem(HTTPStatus.UNAUTHORIZED, what, ask)
            except _QueueFull:
                detail = "too many logins wait for their password check"
                app = problem(HTTPStatus.TOO_MANY_REQUESTS, detail, {"Retry-After": "5"})
        await app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        """Return whether a request needs no password."""
        return scope["path"] in self.rules.open_paths or _has_own_token(scope)

    def _too_fast(self, rules: Rules) -> bool:
        """Take a token out of the bucket, if there is one (the generic cell rate algorithm)."""
        if not rules.refill:
            return False
        now = self._now()
        full_at = max(self._bucket_full_at, now) + rules.refill
        if full_at - now > rules.refill * rules.burst:
            return True
        self._bucket_full_at = full_at
        return False


class _QueueFull(Exception):
    """Too many logins of this user wait."""


class _Passwords:
    """Checks passwords, one at a time for each user, so that guessing one user's password delays no other user.

    Logins are remembered by a keyed digest, so memory holds no password. Changing a hash changes the digest.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, None] = {}
        self._wrong: dict[bytes, float] = {}  # until when; the oldest first
        self._turns: dict[str, _Turn] = {}

    async def match(
        self, users: Mapping[str, str], user: bytes, password: bytes, *, gone: Callable[[], bool]
    ) -> bool:
        """Return whether it is the password of ``user``. Raises `_QueueFull`.

        A request whose client has ``gone`` is not checked when its turn comes.
        """
        known = {name.encode(): hashed for name, hashed in users.items()}
        hashed = known.get(user, _UNKNOWN_USER)
        password = password[:_LONGEST]
        digest = hmac.digest(self._key, repr((user, hashed, password)).encode(), hashlib.sha256)
        if (remembered := self._remembered(digest)) is not None:
            return remembered
        turn = self._turns.setdefault(hashed, _Turn())
        if turn.waiting >= QUEUE:
            raise _QueueFull
        turn.waiting += 1
        try:
            async with turn.lock:
                if (remembered := self._remembered(digest)) is not None:
                    return remembered  # the same login was checked meanwhile
                if gone():
                    return False
                right = await run_in_thread(lambda: _verify(password, hashed.encode()), name="password")
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                self._turns.pop(hashed, None)
        self._remember(digest, right=right and user in known)
        return right and user in known

    def _remembered(self, digest: bytes) -> bool | None:
        if digest in self._right:
            return True
        if self._wrong.get(digest, 0.0) > time.monotonic():
            return False
        return None

    def _remember(self, digest: bytes, *, right: bool) -> None:
        if right:
            if len(self._right) >= _REMEMBERED:
                del self._right[next(iter(self._right))]
            self._right[digest] = None
        else:
            self._wrong.pop(digest, None)
            if len(self._wrong) >= _WRONG_REMEMBERED:
                del self._wrong[next(iter(self._wrong))]
            self._wrong[digest] = time.monotonic() + WRONG_FOR


class _Turn:
    """One user's queue."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


def _verify(password: bytes, hashed: bytes) -> bool:
    import bcrypt  # noqa: PLC0415 - 0.4 MiB, which a listener without users does without

    try:
        return bcrypt.checkpw(password[:_LONGEST], hashed)
    except ValueError:
        return False


def _login(authorization: str | None) -> tuple[bytes, bytes] | None:
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except ValueError:
        return None
    return (user, password) if colon else None


def _gone(scope: Scope) -> Callable[[], bool]:
    """Return a function that says whether the client has closed its connection."""
    connection = scope.get("state", {}).get("connection")
    return lambda: connection is not None and connection.gone


def _is_preflight(scope: Scope) -> bool:
    """Return whether this is a browser's preflight request, which never has a password (Fetch, section 4.9)."""
    return scope["method"] == "OPTIONS" and "access-control-request-method" in Headers(scope=scope)


def _has_own_token(scope: Scope) -> bool:
    """Return whether the request has a bearer token that its handler checks: one header cannot hold a login as well."""
    authorization = Headers(scope=scope).get("authorization", "")
    return has_own_token(scope["path"]) and authorization.lower().startswith("bearer ")


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """Set ``headers`` on the response, instead of our own of the same names."""
    ours = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    names = {name for name, _ in ours}

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]
            message = {**message, "headers": [*kept, *ours]}
        await send(message)

    return sending
