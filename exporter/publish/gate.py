"""Owns who may pass: basic authentication, a limit on the rate of requests, and headers on every answer.

What is in force can be exchanged at any time. A password costs 70 to 300 ms of CPU to check (bcrypt), so that is done
in one thread, one at a time, and remembered. The name of a user who does not exist takes as long as a wrong password.
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

import bcrypt
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.aside import aside
from exporter.publish.problem import problem

_REMEMBERED: Final = 100
_LONGEST: Final = 72
"""Bytes of a password that bcrypt looks at; Go and htpasswd pass over the rest, so we do."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds at the gate: bcrypt hashes of users, headers, and a bucket of requests that fills again.

    No users: everybody passes. ``refill`` is in seconds for each request; 0 is no limit.
    """

    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    refill: float = 0.0
    burst: int = 1


class Gate:
    """Stands before an application. Assign to ``rules`` to exchange what is in force."""

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
        elif rules.users and not _is_preflight(scope):
            login = _login(Headers(scope=scope).get("authorization"))
            if login is None or not await self._passwords.match(rules.users, *login):
                ask = {"WWW-Authenticate": 'Basic realm="connection-exporter", charset="UTF-8"'}
                app = problem(HTTPStatus.UNAUTHORIZED, "a user and password are needed", ask)
        await app(scope, receive, send)

    def _too_fast(self, rules: Rules) -> bool:
        """Take a request out of the bucket, as far as one is in it (the generic cell rate algorithm)."""
        if not rules.refill:
            return False
        now = self._now()
        full_at = max(self._bucket_full_at, now) + rules.refill
        if full_at - now > rules.refill * rules.burst:
            return True
        self._bucket_full_at = full_at
        return False


class _Passwords:
    """Checks passwords, and remembers those that were right by a keyed digest, never by themselves."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, None] = {}
        self._one_at_a_time = asyncio.Lock()

    async def match(self, users: Mapping[str, str], user: bytes, password: bytes) -> bool:
        known = {name.encode(): hashed for name, hashed in users.items()}
        hashed = known.get(user, max(users.values(), key=_cost)).encode()
        digest = hmac.digest(self._key, b"\0".join((user, hashed, password)), hashlib.sha256)
        if user in known and digest in self._right:
            return True
        async with self._one_at_a_time:
            right = await aside(lambda: _verify(password, hashed))
        if not right or user not in known:
            return False
        if len(self._right) >= _REMEMBERED:
            del self._right[next(iter(self._right))]
        self._right[digest] = None
        return True


def _verify(password: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password[:_LONGEST], hashed)
    except ValueError:
        return False


def _cost(hashed: str) -> int:
    return int(hashed[4:6])


def _login(authorization: str | None) -> tuple[bytes, bytes] | None:
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except ValueError:
        return None
    return (user, password) if colon else None


def _is_preflight(scope: Scope) -> bool:
    """Tell whether a browser asks what a page may do: it sends no password then (Fetch, section 4.9)."""
    return scope["method"] == "OPTIONS" and "access-control-request-method" in Headers(scope=scope)


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """Set ``headers`` on the answer, instead of any of the same name that we would send."""
    ours = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    names = {name for name, _ in ours}

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]
            message = {**message, "headers": [*kept, *ours]}
        await send(message)

    return sending
