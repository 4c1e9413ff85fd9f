"""Owns the description of all routes: GET /openapi.json, in OpenAPI 3.1.

Written by hand beside the routes rather than derived from code, so that it is what is promised; a test
holds every real answer against it.
"""

from collections.abc import Mapping
from typing import Any, Final

from exporter import __version__
from exporter.core.health import Reason, Status
from exporter.core.overall import Overall
from exporter.publish.problem import PROBLEM

Schema = dict[str, Any]

_TIME: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
_TEXT: Final[Schema] = {"type": ["string", "null"]}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_BOOL: Final[Schema] = {"type": "boolean"}
_NAMES: Final[Schema] = {"type": "array", "items": {"type": "string"}}
_STATUS: Final[Schema] = {"type": "string", "enum": [status.value for status in Status]}
_REASON: Final[Schema] = {"type": ["string", "null"], "enum": [*(reason.value for reason in Reason), None]}
_OVERALL: Final[Schema] = {"type": "string", "enum": [overall.value for overall in Overall]}
_SERVICE_NAME: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_-]{0,62}$"}


def openapi(telemetry_path: str = "/metrics") -> dict[str, Any]:
    """Return the description; ``telemetry_path`` is where the metrics are."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "connection-exporter",
            "version": __version__,
            "summary": "Live state of the connections that a system depends on.",
            "description": (
                "Every answer but that of a forced check is made from memory and comes in milliseconds. Errors are "
                "application/problem+json. With users in the web config, every route asks for basic authentication."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(telemetry_path),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
        },
        "security": [{}, {"basic": []}],
    }


def _paths(telemetry_path: str) -> dict[str, Any]:
    name = {"name": "name", "in": "path", "required": True, "schema": _SERVICE_NAME}
    one = {"name": "service", "in": "query", "description": "check this one alone", "schema": _SERVICE_NAME}
    text = {"type": "string"}
    return {
        "/": _get("page", "A live status page.", _ok(text, "text/html")),
        "/health": _get(
            "health",
            "The overall status; 503 while a critical service is disconnected or unknown.",
            {**_ok(_ref("Health")), "503": _answer("Not to be relied on.", _ref("Health"))},
        ),
        "/health/detailed": _get("detailed", "The whole board.", _ok(_ref("Board"))),
        "/health/service/{name}": _get(
            "service",
            "One service, with its last 50 transitions.",
            {**_ok(_ref("ServiceWithTransitions")), "404": _problem("No such service.")},
            parameters=[name],
        ),
        "/health/force-check": {
            "post": {
                "operationId": "forceCheck",
                "summary": "Check one service, or all, now, and answer with the board.",
                "parameters": [one],
                "responses": _with_default(
                    {
                        **_ok(_ref("Board")),
                        "403": _problem("Asked by a page of an origin that is not allowed."),
                        "404": _problem("No such service."),
                        "409": _problem("Monitoring is not running."),
                        "429": _problem("Right after another round; see Retry-After."),
                    }
                ),
            }
        },
        telemetry_path: _get(
            "metrics",
            "Metrics for Prometheus.",
            {
                "200": {
                    "description": "In the format that Accept prefers.",
                    "content": {
                        "text/plain": {"schema": text},
                        "application/openmetrics-text": {"schema": text},
                    },
                }
            },
        ),
        "/events": _get(
            "events",
            "Server-sent events: the board, then every change of it, without end.",
            {**_ok(_ref("Event"), "text/event-stream"), "503": _problem("Too many clients follow already.")},
        ),
        "/config": _get(
            "config",
            "The configuration in force, its secrets hidden.",
            {
                "200": {
                    "description": "YAML, or JSON for who accepts that.",
                    "content": {
                        "application/yaml": {"schema": _ref("Config")},
                        "application/json": {"schema": _ref("Config")},
                    },
                }
            },
        ),
        "/openapi.json": _get("openapi", "This description.", _ok({"type": "object"})),
        "/-/healthy": _get("healthy", "The process answers.", _ok(text, "text/plain")),
        "/-/ready": _get(
            "ready",
            "Listeners and monitor run, whatever the state of the services.",
            {**_ok(text, "text/plain"), "503": _answer("Not yet, or no longer.", text, "text/plain")},
        ),
        "/-/reload": {
            method: {
                "operationId": f"reload{method.title()}",
                "summary": "Read the configuration again; needs --web.enable-lifecycle.",
                "responses": _with_default(
                    {
                        **_ok(_ref("Changes")),
                        "403": _problem("Not enabled, or asked by a page of another site."),
                        "500": _answer("Not valid; the one before remains.", _ref("Mistakes"), PROBLEM),
                    }
                ),
            }
            for method in ("post", "put")
        },
    }


def _schemas() -> dict[str, Schema]:
    change = {"at": _TIME, "from": _STATUS, "to": _STATUS, "reason": _REASON, "message": _TEXT}
    service = {
        "name": _SERVICE_NAME,
        "kind": {"type": "string"},
        "status": _STATUS,
        "critical": _BOOL,
        "reason": _REASON,
        "message": _TEXT,
        "retry_count": _COUNT,
        "retries": {"type": "integer", "minimum": 1},
        "next_attempt": _TIME,
        "last_check": _TIME,
        "last_success": _TIME,
        "status_since": _TIME,
        "latency_seconds": {"type": ["number", "null"], "minimum": 0},
        "session": _object({"up": _BOOL, "since": _TIME}),
        "canary": _object({"up": {"type": ["boolean", "null"]}, "last": _TIME}),
        "details": {"type": "object"},
    }
    kinds: Schema = {"type": "string", "enum": ["board", "transition", "service", "overall"]}
    event = {"event": kinds, "id": {"type": "string"}, "data": {"type": "string"}}
    health = {"status": _OVERALL, "monitoring_active": _BOOL, "last_update": _TIME}
    summary = ("total", "healthy", "unhealthy", "disconnected", "connecting", "unknown")
    problem = {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    }
    return {
        "Health": _object(health),
        "Board": _object(
            {
                **health,
                "uptime_seconds": {"type": "number", "minimum": 0},
                "summary": _object(dict.fromkeys(summary, _COUNT)),
                "services": {"type": "object", "additionalProperties": _ref("Service")},
            }
        ),
        "Service": _object(service),
        "ServiceWithTransitions": _object(
            {**service, "transitions": {"type": "array", "maxItems": 50, "items": _ref("Transition")}}
        ),
        "Transition": _object(change),
        "Event": {"description": "Each of the stream; `data` is JSON.", **_object(event)},
        "Config": _object({"services": {"type": "object", "additionalProperties": {"type": "object"}}}),
        "Changes": _object(dict.fromkeys(("added", "changed", "removed", "unchanged"), _NAMES)),
        "Problem": _object(problem),
        "Mistakes": _object({**problem, "mistakes": _NAMES}),
    }


def _object(properties: Mapping[str, Schema]) -> Schema:
    """Return an object with exactly these properties, each always there."""
    return {
        "type": "object",
        "required": list(properties),
        "properties": dict(properties),
        "additionalProperties": False,
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _get(operation: str, summary: str, responses: Schema, **more: Any) -> Schema:
    described = {"operationId": operation, "summary": summary, **more, "responses": _with_default(responses)}
    return {"get": described}


def _ok(schema: Schema, media_type: str = "application/json") -> Schema:
    return {"200": _answer("What was asked for.", schema, media_type)}


def _answer(description: str, schema: Schema, media_type: str = "application/json") -> Schema:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _problem(description: str) -> Schema:
    return _answer(description, _ref("Problem"), PROBLEM)


def _with_default(responses: Schema) -> Schema:
    """Add the errors that any route may give: a wrong method or password, too much at once."""
    return {**responses, "default": _problem("Any other error.")}
