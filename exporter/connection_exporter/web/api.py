"""Owns the handlers of the HTTP routes: JSON for people and programs, metrics for Prometheus, and forced checks.

Every response except that of a forced check is made from memory: no route ever touches a service.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from connection_exporter.monitor import snapshot
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.errors import NotRunning, TooSoon
from connection_exporter.system.threads import run_in_thread
from connection_exporter.web.coding import IDENTITY
from connection_exporter.web.cross_origin import CrossOrigin
from connection_exporter.web.exposition import Exposition
from connection_exporter.web.limits import LongResponses
from connection_exporter.web.page import CLIENT_MODULE, CLIENT_TYPES, PAGE, PAGE_HEADERS
from connection_exporter.web.rendering import BoardJson, Shared
from connection_exporter.web.requests import is_origin, may_act, wrong_parameter
from connection_exporter.web.responses import NO_CACHE, LongResponse, dumps, json_response, problem
from connection_exporter.web.routes import ROUTES, TELEMETRY

ForceCheck = Callable[[str | None], Awaitable[None]]
Handler = Callable[[Request], Awaitable[Response]]

_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": (
        "Content-Type, Accept, Last-Event-ID, X-Grafana-Action, X-Grafana-Device-Id, X-Grafana-Org-Id"
    ),
    "Access-Control-Max-Age": "600",
}

_PUBLIC: Final = {
    "Access-Control-Allow-Origin": "*",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}
"""For the client module, which any page may load. The data that it requests needs an allowed origin."""


class Api:
    """The application that serves one board.

    ``force_check`` checks one service or all; ``origins`` are those of other sites whose pages may request that;
    ``ready`` returns whether listeners and monitor are running; ``handlers`` are further ones of `ROUTES`, by name.
    """

    def __init__(
        self,
        board: Board,
        registry: CollectorRegistry,
        *,
        board_json: BoardJson | None = None,
        force_check: ForceCheck,
        ready: Callable[[], bool],
        origins: frozenset[str] = frozenset(),
        telemetry_path: str = TELEMETRY,
        handlers: Mapping[str, Handler] | None = None,
        long_responses: LongResponses | None = None,
    ) -> None:
        self._board = board
        self._exposition = Exposition(board, registry)
        self._whole_board = Shared(board, (board_json or BoardJson(board)).parts)
        self._long_responses = long_responses or LongResponses()
        self._force_check = force_check
        self._ready = ready
        self._origins = origins
        self._telemetry_path = telemetry_path
        self._description: str | None = None
        self._describing = asyncio.Lock()  # of many clients that ask first, one has it written
        every: Mapping[str, Handler] = {
            "page": self.page,
            "client": self.client_module,
            "client_types": self.client_types,
            "health": self.health,
            "detailed": self.detailed,
            "service": self.service,
            "force_check": self.force_check,
            "metrics": self.metrics,
            "healthy": self.healthy,
            "ready": self.is_ready,
            "openapi": self.description,
            **(handlers or {}),
        }
        self.app = Starlette(
            routes=[*_routes(every, telemetry_path), *_preflight_routes(self.preflight)],
            middleware=[Middleware(CrossOrigin, origins=origins)],
            exception_handlers={HTTPException: _http_problem, Exception: _internal_problem},
        )
        # Starlette would redirect /health/ to whatever Host the client names, by http even behind a TLS proxy.
        self.app.router.redirect_slashes = False

    async def page(self, _: Request) -> Response:
        """Answer GET /: the live status page."""
        return HTMLResponse(PAGE, headers=PAGE_HEADERS)

    async def client_module(self, _: Request) -> Response:
        """Answer GET /client.js: the ES module for front ends of your own."""
        return Response(CLIENT_MODULE, headers=_PUBLIC, media_type="text/javascript")

    async def client_types(self, _: Request) -> Response:
        """Answer GET /client.d.ts: the types of /client.js."""
        return Response(CLIENT_TYPES, headers=_PUBLIC, media_type="text/plain")

    async def health(self, _: Request) -> Response:
        """Answer GET /health: 200 while the overall status is healthy or degraded, else 503."""
        code = HTTPStatus.OK if self._board.overall().serving else HTTPStatus.SERVICE_UNAVAILABLE
        return json_response(snapshot.health(self._board), code)

    async def detailed(self, _: Request) -> Response:
        """Answer GET /health/detailed: the whole board."""
        return await self._send_board(busy=self._long_responses.active)

    async def service(self, request: Request) -> Response:
        """Answer GET /health/service/{name}: one service and its last transitions."""
        name = request.path_params["name"]
        if name not in self._board:
            return self._unknown(name)
        return json_response(snapshot.with_transitions(self._board.record(name)))

    async def force_check(self, request: Request) -> Response:
        """Answer POST /health/force-check: check now, and return the board as /health/detailed does."""
        origin = request.headers.get("origin")
        if not may_act(request.headers, self._origins):
            shown = (origin or "another site")[:80]
            hint = f": allow it by --web.cors.origin={shown}" if is_origin(shown) else ""
            return problem(HTTPStatus.FORBIDDEN, f"pages of {shown} must not force a check{hint}")
        if (wrong := wrong_parameter(request.query_params, ("service",))) is not None:
            return problem(HTTPStatus.BAD_REQUEST, wrong)
        name = request.query_params.get("service")
        try:
            await self._force_check(name)
        except KeyError:
            return self._unknown(name or "")
        except NotRunning:
            return problem(HTTPStatus.CONFLICT, "monitoring is not running")
        except TooSoon as error:
            seconds = str(max(1, round(error.retry_after)))
            return problem(HTTPStatus.TOO_MANY_REQUESTS, str(error), {"Retry-After": seconds})
        return await self._send_board(busy=False)

    async def preflight(self, request: Request) -> Response:
        """Answer a browser that asks whether a page of another origin may use a route (a preflight request)."""
        if not may_act(request.headers, self._origins):
            return problem(HTTPStatus.FORBIDDEN, "this origin is not allowed: see --web.cors.origin")
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=_PREFLIGHT)

    async def metrics(self, request: Request) -> Response:
        """Answer a scrape, in text or OpenMetrics."""
        accept, encoding = (", ".join(request.headers.getlist(key)) for key in ("accept", "accept-encoding"))
        answer = await self._exposition.answer(accept, encoding, busy=self._long_responses.active)
        headers = {"Content-Type": answer.content_type, "Vary": "Accept, Accept-Encoding"}
        if answer.coding != IDENTITY:
            headers["Content-Encoding"] = answer.coding
        return LongResponse(answer.parts, headers, self._long_responses)

    async def description(self, _: Request) -> Response:
        """Answer GET /openapi.json: the description of all routes."""
        async with self._describing:
            if self._description is None:
                self._description = await run_in_thread(self._describe, name="describe routes")
        return Response(self._description, headers=NO_CACHE, media_type="application/json")

    def _describe(self) -> str:
        from connection_exporter.web.openapi import openapi  # noqa: PLC0415 - 25 ms and 0.5 MiB, with the schemas

        return f"{dumps(openapi(self._telemetry_path))}\n"

    async def healthy(self, _: Request) -> Response:
        """Answer GET /-/healthy: the process responds."""
        return Response("Healthy\n", media_type="text/plain")

    async def is_ready(self, _: Request) -> Response:
        """Answer GET /-/ready: listeners and monitor are running, whatever the status of the services."""
        if self._ready():
            return Response("Ready\n", media_type="text/plain")
        return Response("Not ready\n", HTTPStatus.SERVICE_UNAVAILABLE, media_type="text/plain")

    async def _send_board(self, *, busy: bool) -> Response:
        parts = await self._whole_board.get(busy=busy)
        json_type = {"Content-Type": "application/json"}
        return LongResponse(parts, {**NO_CACHE, **json_type}, self._long_responses)

    def _unknown(self, name: str) -> Response:
        known = ", ".join(self._board.names)
        detail = f"there is no service {name[:80]!r}; the services are {known}"
        return problem(HTTPStatus.NOT_FOUND, detail)


def _routes(handlers: Mapping[str, Handler], telemetry_path: str) -> Iterator[Route]:
    """Yield the routes that have a handler."""
    for route in ROUTES:
        if route.name in handlers:
            path = telemetry_path if route.name == "metrics" else route.path
            yield Route(path, handlers[route.name], methods=[*route.methods])


def _preflight_routes(handler: Handler) -> Iterator[Route]:
    for route in ROUTES:
        if route.cross_origin:
            yield Route(route.path, handler, methods=["OPTIONS"])


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status, detail = HTTPStatus(error.status_code), str(error.detail)
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "").split(", ")
        detail = f"{request.method[:20]} is not allowed here: use {' or '.join(sorted(allowed))}"
    elif detail == status.phrase and status is HTTPStatus.NOT_FOUND:
        slash = request.url.path != "/" and request.url.path.endswith("/")
        detail = "there is nothing at this path: " + (
            "try it without the slash at the end" if slash else "see /openapi.json for all paths"
        )
    return problem(status, detail, error.headers)


async def _internal_problem(_: Request, error: Exception) -> Response:
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, f"unexpected {type(error).__name__}; see the log")
