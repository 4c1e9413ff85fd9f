"""Owns the forms of responses: JSON, errors as application/problem+json (RFC 9457), and long ones in parts."""

import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from connection_exporter.web.limits import SHORT, LongResponses, Overloaded

NO_CACHE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
PROBLEM: Final = "application/problem+json"


dumps: Final[Callable[[Any], str]] = json.JSONEncoder(ensure_ascii=False).encode
"""Returns a value as JSON, in the one form that this exporter sends."""


def json_response(body: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Return an object as JSON that ends its line."""
    text = dumps(body) + "\n"
    return Response(text, status.value, headers=NO_CACHE, media_type="application/json")


def problem(
    status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """Return an error; ``members`` are additional members of the JSON object."""
    body = problem_body(status, detail, **members)
    return Response(body, status.value, headers={**NO_CACHE, **(headers or {})}, media_type=PROBLEM)


def problem_body(status: HTTPStatus, detail: str, **members: Any) -> bytes:
    """Return the JSON object of an error."""
    standard = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    return json.dumps({**standard, **members}).encode() + b"\n"


class LongResponse(Response):
    """A response in parts, each of which is sent when the client has taken the one before.

    All clients that get the same rendering share the memory of its parts. No more than a limited number of long
    responses are sent at a time; one more is answered with 503.
    """

    def __init__(self, parts: Sequence[bytes], headers: Mapping[str, str], limit: LongResponses) -> None:
        self._parts = parts
        self._limit = limit
        self._size = sum(map(len, parts))
        super().__init__(headers={**headers, "Content-Length": str(self._size)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond as an ASGI application."""
        connection = scope.get("state", {}).get("connection")
        if connection is None or self._size <= SHORT or scope["method"] == "HEAD":
            await self._send(send)
            return
        try:
            async with self._limit.sending(connection, self._parts):
                await self._send(send)
        except Overloaded:
            detail = "too many clients are being sent a long response"
            response = problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "5"})
            await response(scope, receive, send)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
