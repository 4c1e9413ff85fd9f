"""Owns the handler of POST /heartbeat/{name}: who may send a beat, and what it says.

A token is compared here, in constant time. It is accepted in the Authorization header alone, because URLs end up in
logs, histories and error messages.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from connection_exporter.kind import Beat, Failure, TakesBeats, takes_beats
from connection_exporter.monitor.board import Board
from connection_exporter.system.files import NO_RESPONSE
from connection_exporter.web.requests import may_act, wrong_parameter
from connection_exporter.web.responses import NO_CACHE, problem

GUESSES: Final = 10
"""Wrong tokens for one service that are answered with 401 in a row; after that, one every `GUESS_EVERY` seconds."""

GUESS_EVERY: Final = 6.0

TOKEN_WITHIN: Final = 5.0
"""Seconds in which the file with a token has to be read."""

_LONGEST: Final = 1000
"""Characters of a message that are kept; the board shows no more of it."""

_LISTED: Final = 100
"""Services that are listed for a name that does not exist."""

_PARAMETERS: Final = ("status", "message")
_STATUSES: Final = {"ok": False, "fail": True}


class Beats:
    """Takes beats for the services of kind heartbeat on ``board``.

    ``check_now`` probes the services of the given names, so that a beat shows before it is answered. ``origins`` are
    those of other sites whose pages may send one.
    """

    def __init__(
        self,
        board: Board,
        check_now: Callable[[Sequence[str]], Awaitable[None]],
        origins: Collection[str],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board = board
        self._check_now = check_now
        self._origins = origins
        self._now = now
        self._key = secrets.token_bytes(32)
        self._right: dict[str, bytes] = {}  # the digest of the token that a service has used last
        self._guesses_full_at: dict[str, float] = {}

    async def take(self, request: Request) -> Response:
        """Answer POST /heartbeat/{name}."""
        if not may_act(request.headers, self._origins):
            return problem(HTTPStatus.FORBIDDEN, "pages of another site must not send a beat")
        name = request.path_params["name"]
        check = self._check_of(name)
        if not takes_beats(check):
            known = [record.name for record in self._board.records() if takes_beats(record.service.check)]
            return _unknown(name, known)
        if (refusal := await self._refusal(name, check, request.headers.get("authorization"))) is not None:
            return refusal
        if self._check_of(name) is not check:  # a reload has replaced it while the token was read
            return await self.take(request)
        if (wrong := wrong_parameter(request.query_params, _PARAMETERS)) is not None:
            return problem(HTTPStatus.BAD_REQUEST, wrong)
        status = request.query_params.get("status", "ok")
        if status not in _STATUSES:
            return problem(HTTPStatus.BAD_REQUEST, f"unknown status {status[:40]!r}: write ok or fail")
        if not self._board.active:
            return problem(HTTPStatus.CONFLICT, "monitoring is not running")
        check.beat(Beat(_STATUSES[status], request.query_params.get("message", "")[:_LONGEST]))
        await self._check_now([name])
        return Response(headers=NO_CACHE)

    def _check_of(self, name: str) -> object:
        return self._board.record(name).service.check if name in self._board else None

    async def _refusal(self, name: str, check: TakesBeats, authorization: str | None) -> Response | None:
        """Return why a beat is not accepted, or ``None``."""
        try:
            async with asyncio.timeout(TOKEN_WITHIN):
                wanted = await check.token()
        except (Failure, TimeoutError) as error:
            why = error.message if isinstance(error, Failure) else f"the token cannot be read: {NO_RESPONSE}"
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{name}: {why}", {"Retry-After": "5"})
        scheme, _, given = (authorization or "").partition(" ")
        is_bearer = scheme.lower() == "bearer"
        if wanted is None:
            # Without this, any bearer token would pass where the web config asks for a login.
            return (
                _unauthorized("this service has no token: leave the bearer token out") if is_bearer else None
            )
        if not is_bearer:
            return _unauthorized("this service needs its token: send `Authorization: Bearer TOKEN`")
        # Headers are decoded as Latin-1: this is what was sent, in which UTF-8 stays UTF-8.
        digest = hmac.digest(self._key, given.strip().encode("latin-1"), hashlib.sha256)
        if not hmac.compare_digest(digest, self._right.get(name, b"")) and self._guesses_used_up(name):
            wait = {"Retry-After": f"{GUESS_EVERY:.0f}"}
            return problem(HTTPStatus.TOO_MANY_REQUESTS, "too many wrong tokens for this service", wait)
        if not wanted or not hmac.compare_digest(
            digest, hmac.digest(self._key, wanted.strip().encode(), hashlib.sha256)
        ):
            self._count_guess(name)
            return _unauthorized("the token is not that of this service")
        self._right[name] = digest
        return None

    def _guesses_used_up(self, name: str) -> bool:
        full_at = self._guesses_full_at.get(name, 0.0)
        return full_at - self._now() > GUESS_EVERY * (GUESSES - 1)

    def _count_guess(self, name: str) -> None:
        self._guesses_full_at[name] = max(self._guesses_full_at.get(name, 0.0), self._now()) + GUESS_EVERY


def _unknown(name: str, known: Sequence[str]) -> Response:
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    shown = (
        ", ".join(known[:_LISTED]) + more if known else "none of this kind; add one with `kind: heartbeat`"
    )
    detail = f"no service of kind heartbeat is called {name[:80]!r}; there are: {shown}"
    return problem(HTTPStatus.NOT_FOUND, detail)


def _unauthorized(detail: str) -> Response:
    ask = {"WWW-Authenticate": 'Bearer realm="connection-exporter"'}
    return problem(HTTPStatus.UNAUTHORIZED, detail, ask)
