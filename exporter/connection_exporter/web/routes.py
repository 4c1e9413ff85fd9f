"""Owns the list of routes, from which the application and its OpenAPI description are built.

Imports only `typing`: the command line reads it, also for `--version`. To import `dataclasses` takes as long as all the
rest of `--version`.
"""

from typing import Final, NamedTuple

TELEMETRY: Final = "/metrics"
"""The path of the metrics, unless `--web.telemetry-path` sets another."""


class Route(NamedTuple):
    """One path. ``name`` is that of its handler, and its operationId in OpenAPI."""

    name: str
    path: str
    summary: str
    methods: tuple[str, ...] = ("GET",)
    health: bool = False
    """Whether a part of the connections is reserved for it."""
    cross_origin: bool = False
    """Whether pages of the origins in `--web.cors.origin` may use it."""
    own_token: bool = False
    """Whether its handler checks a bearer token, which then replaces the login of the web config."""


ROUTES: Final = (
    Route("page", "/", "The live status page."),
    Route("client", "/client.js", "An ES module for front ends of your own."),
    Route("client_types", "/client.d.ts", "The types of /client.js."),
    Route(
        "health",
        "/health",
        "The overall status: 503 if a critical service is down or unknown.",
        health=True,
        cross_origin=True,
    ),
    Route("detailed", "/health/detailed", "The whole board.", cross_origin=True),
    Route(
        "service", "/health/service/{name}", "One service, with its last 50 transitions.", cross_origin=True
    ),
    Route(
        "force_check",
        "/health/force-check",
        "Check all services or one now, and return the board.",
        ("POST",),
        cross_origin=True,
    ),
    Route("metrics", TELEMETRY, "Metrics for Prometheus."),
    Route("events", "/events", "Server-sent events: the board, then every change of it.", cross_origin=True),
    Route("beat", "/heartbeat/{name}", "A beat from a service of kind heartbeat.", ("POST",), own_token=True),
    Route("config", "/config", "The configuration in force, with its secrets hidden."),
    Route(
        "reload", "/-/reload", "Read the configuration again; needs --web.enable-lifecycle.", ("POST", "PUT")
    ),
    Route("healthy", "/-/healthy", "The process responds.", health=True),
    Route("ready", "/-/ready", "The listeners and the monitor are running.", health=True),
    Route("openapi", "/openapi.json", "This description, in OpenAPI 3.1."),
)

HEALTH_PATHS: Final = frozenset(route.path for route in ROUTES if route.health)


def is_cross_origin(path: str) -> bool:
    """Return whether pages of listed origins may use the route at ``path``."""
    return any(_matches(route, path) for route in ROUTES if route.cross_origin)


def has_own_token(path: str) -> bool:
    """Return whether the handler of the route at ``path`` checks a bearer token itself."""
    return any(_matches(route, path) for route in ROUTES if route.own_token)


def is_taken(path: str) -> bool:
    """Return whether ``path`` is that of a route other than the metrics."""
    path = path.rstrip("/") or "/"
    return any(_matches(route, path) for route in ROUTES if route.name != "metrics")


def _matches(route: Route, path: str) -> bool:
    return path.startswith(route.path.partition("{")[0]) if "{" in route.path else path == route.path
