"""Owns errors as application/problem+json (RFC 9457), the one form that all of them have."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response

NO_CACHE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
PROBLEM: Final = "application/problem+json"


def problem(
    status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """Return an error; ``members`` are further ones of the JSON object."""
    body = problem_body(status, detail, **members)
    return Response(body, status.value, headers={**NO_CACHE, **(headers or {})}, media_type=PROBLEM)


def problem_body(status: HTTPStatus, detail: str, **members: Any) -> bytes:
    """Return the JSON object alone."""
    told = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    return json.dumps({**told, **members}).encode() + b"\n"
