"""Owns the HTTP routes: JSON for people and programs, metrics for Prometheus, and forced checks.

Every answer but that of a forced check is made from memory: no route ever touches a service.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from exporter import snapshot
from exporter.board import Board
from exporter.core.retry import NotRunning, TooSoon
from exporter.publish.detailed import Detailed
from exporter.publish.exposition import Exposition
from exporter.publish.openapi import openapi
from exporter.publish.origins import is_origin, may_act
from exporter.publish.page import PAGE, PAGE_HEADERS
from exporter.publish.problem import NO_CACHE, problem

ForceCheck = Callable[[str | None], Awaitable[None]]

_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "POST, OPTIONS",
    "Access-Control-Allow-Headers": (
        "Content-Type, Accept, X-Grafana-Action, X-Grafana-Device-Id, X-Grafana-Org-Id"
    ),
    "Access-Control-Max-Age": "600",
}


class Api:
    """The routes over one board.

    ``force_check`` checks one service or all; ``origins`` are those of other sites whose pages may ask for
    that; ``ready`` tells whether listeners and monitor run.
    """

    def __init__(
        self,
        board: Board,
        registry: CollectorRegistry,
        *,
        detailed: Detailed | None = None,
        force_check: ForceCheck,
        ready: Callable[[], bool],
        origins: frozenset[str] = frozenset(),
        telemetry_path: str = "/metrics",
        routes: tuple[BaseRoute, ...] = (),
    ) -> None:
        self._board = board
        self._exposition = Exposition(board, registry)
        self._detailed = detailed or Detailed(board)
        self._force_check = force_check
        self._ready = ready
        self._origins = origins
        self._description = openapi(telemetry_path)
        self.app = Starlette(
            routes=[
                Route("/", self.page),
                Route("/health", self.health),
                Route("/health/detailed", self.detailed),
                Route("/health/service/{name}", self.service),
                Route("/health/force-check", self.force_check, methods=["POST"]),
                Route("/health/force-check", self.preflight, methods=["OPTIONS"]),
                Route(telemetry_path, self.metrics),
                Route("/-/healthy", self.healthy),
                Route("/-/ready", self.is_ready),
                Route("/openapi.json", self.description),
                *routes,
            ],
            exception_handlers={HTTPException: _http_problem, Exception: _internal_problem},
        )
        # /health/ would be sent on to whatever Host the client says, by http even where a proxy in front has TLS.
        self.app.router.redirect_slashes = False

    async def page(self, _: Request) -> Response:
        """Answer GET /: the live status page."""
        return HTMLResponse(PAGE, headers=PAGE_HEADERS)

    async def health(self, _: Request) -> Response:
        """Answer GET /health: 200 while the overall status is healthy or degraded, else 503."""
        code = HTTPStatus.OK if self._board.overall().serving else HTTPStatus.SERVICE_UNAVAILABLE
        return _json(snapshot.health(self._board), code)

    async def detailed(self, _: Request) -> Response:
        """Answer GET /health/detailed: the whole board."""
        return await self._whole_board({})

    async def service(self, request: Request) -> Response:
        """Answer GET /health/service/{name}: one service and its last transitions."""
        name = request.path_params["name"]
        if name not in self._board:
            return self._unknown(name)
        return _json(snapshot.with_transitions(self._board.record(name)))

    async def force_check(self, request: Request) -> Response:
        """Answer POST /health/force-check: check now, and answer as /health/detailed."""
        origin = request.headers.get("origin")
        if not may_act(request.headers, self._origins):
            shown = (origin or "another site")[:80]
            mend = f": allow them by --web.cors.origin={shown}" if is_origin(shown) else ""
            return problem(HTTPStatus.FORBIDDEN, f"pages of {shown} may not force a check{mend}")
        headers = _cors(origin)
        name = request.query_params.get("service")
        try:
            await self._force_check(name)
        except KeyError:
            return self._unknown(name or "", headers)
        except NotRunning:
            return problem(HTTPStatus.CONFLICT, "monitoring is not running", headers)
        except TooSoon as error:
            seconds = str(max(1, round(error.retry_after)))
            return problem(HTTPStatus.TOO_MANY_REQUESTS, str(error), {**headers, "Retry-After": seconds})
        return await self._whole_board(headers)

    async def preflight(self, request: Request) -> Response:
        """Answer a browser that asks whether a page of another origin may force a check."""
        origin = request.headers.get("origin", "")
        if not may_act(request.headers, self._origins):
            return problem(HTTPStatus.FORBIDDEN, "this origin is not allowed: see --web.cors.origin")
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={**_cors(origin), **_PREFLIGHT})

    async def metrics(self, request: Request) -> Response:
        """Answer a scrape, in text or OpenMetrics."""
        headers = request.headers
        answer = await self._exposition.answer(headers.get("accept"), headers.get("accept-encoding"))
        sent = {"Content-Type": answer.content_type, "Vary": "Accept, Accept-Encoding"}
        if answer.gzipped:
            sent["Content-Encoding"] = "gzip"
        return _in_parts(answer.parts, sent)

    async def description(self, _: Request) -> Response:
        """Answer GET /openapi.json: the description of all routes."""
        return _json(self._description)

    async def healthy(self, _: Request) -> Response:
        """Answer GET /-/healthy: the process answers."""
        return Response("Healthy\n", media_type="text/plain")

    async def is_ready(self, _: Request) -> Response:
        """Answer GET /-/ready: listeners and monitor run, whatever the state of the services."""
        if self._ready():
            return Response("Ready\n", media_type="text/plain")
        return Response("Not ready\n", HTTPStatus.SERVICE_UNAVAILABLE, media_type="text/plain")

    async def _whole_board(self, headers: Mapping[str, str]) -> Response:
        json_type = {"Content-Type": "application/json"}
        return _in_parts(await self._detailed.parts(), {**NO_CACHE, **headers, **json_type})

    def _unknown(self, name: str, headers: Mapping[str, str] | None = None) -> Response:
        known = ", ".join(self._board.names)
        detail = f"no service is called {name[:80]!r}; known are {known}"
        return problem(HTTPStatus.NOT_FOUND, detail, headers)


def _json(
    body: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    text = json.dumps(body, ensure_ascii=False) + "\n"
    return Response(
        text, status.value, headers={**NO_CACHE, **(headers or {})}, media_type="application/json"
    )


def _in_parts(parts: Sequence[bytes], headers: Mapping[str, str]) -> Response:
    """Answer with something long, each part of which is sent when the one before has gone."""

    async def each() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    length = {"Content-Length": str(sum(map(len, parts)))}
    return StreamingResponse(each(), headers={**headers, **length})


def _cors(origin: str | None) -> dict[str, str]:
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"} if origin else {"Vary": "Origin"}


async def _http_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    return problem(status, str(error.detail), error.headers)


async def _internal_problem(_: Request, error: Exception) -> Response:
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, f"unexpected {type(error).__name__}; the log has more")
