"""Owns the description of all routes: GET /openapi.json, in OpenAPI 3.1.

Paths, methods and summaries come from `routes.ROUTES`, the schemas from the typed dictionaries that the responses are
made of. The statuses of each route are written by hand; a test checks real responses against them.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from connection_exporter import __version__
from connection_exporter.monitor import snapshot
from connection_exporter.web.responses import PROBLEM
from connection_exporter.web.routes import ROUTES, TELEMETRY

Schema = dict[str, Any]


class Event(TypedDict):
    """One event of the stream; `data` is JSON."""

    event: Literal["board", "transition", "service", "overall"]
    id: str
    data: str


class Config(TypedDict):
    """The configuration in force."""

    alerting: NotRequired[dict[str, Any]]
    services: dict[str, dict[str, Any]]


class Changes(TypedDict):
    """The names of the services that a reload has affected."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: list[str]


class Problem(TypedDict):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class Mistakes(Problem):
    """The errors of a configuration that is not valid."""

    mistakes: list[str]


_TYPES: Final = (
    *(snapshot.Health, snapshot.Detailed, snapshot.Service, snapshot.ServiceWithTransitions),
    *(Event, Config, Changes, Problem, Mistakes),
)
_TEXT: Final[Schema] = {"type": "string"}


def openapi(telemetry_path: str = TELEMETRY) -> dict[str, Any]:
    """Return the description; ``telemetry_path`` is where the metrics are."""
    schemas = _schemas()
    responses, parameters = _responses(), _parameters(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        path = telemetry_path if route.name == "metrics" else route.path
        paths[path] = {
            method.lower(): {
                "operationId": route.name if len(route.methods) == 1 else f"{route.name}_{method.lower()}",
                "summary": route.summary,
                "parameters": parameters.get(route.name, []),
                **({"security": [{}, {"basic": []}, {"token": []}]} if route.own_token else {}),
                "responses": {**responses[route.name], "default": _problem("Any other error.")},
            }
            for method in route.methods
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "connection-exporter",
            "version": __version__,
            "summary": "Live state of the connections that a system depends on.",
            "description": (
                "Every response except that of a forced check is made from memory and takes milliseconds. Errors are "
                "application/problem+json. With users in the web config, every route needs basic authentication."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "token": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{}, {"basic": []}],
    }


def _responses() -> dict[str, dict[str, Schema]]:
    """Return the responses of each route, by name and status."""
    busy = {"503": _problem("Too many clients; see Retry-After.")}
    no_service = {"404": _problem("There is no such service.")}
    config = {
        media_type: {"schema": _ref("Config")} for media_type in ("application/yaml", "application/json")
    }
    formats = {media_type: {"schema": _TEXT} for media_type in ("text/plain", "application/openmetrics-text")}
    return {
        "page": _ok(_TEXT, "text/html"),
        "client": _ok(_TEXT, "text/javascript"),
        "client_types": _ok(_TEXT, "text/plain"),
        "health": {
            **_ok(_ref("Health")),
            "503": _response("A critical service is disconnected or unknown.", _ref("Health")),
        },
        "detailed": {**_ok(_ref("Detailed")), **busy},
        "service": {**_ok(_ref("ServiceWithTransitions")), **no_service},
        "force_check": {
            **_ok(_ref("Detailed")),
            **no_service,
            **busy,
            "400": _problem("A parameter other than service, or several of them."),
            "403": _problem("Requested by a page of an origin that is not allowed."),
            "409": _problem("Monitoring is not running."),
            "429": _problem("Less than a second after the last check; see Retry-After."),
        },
        "metrics": {
            "200": {
                "description": "In the format that Accept prefers, and the coding that Accept-Encoding prefers.",
                "content": formats,
            },
            **busy,
        },
        "events": {**_ok(_ref("Event"), "text/event-stream"), **busy},
        "beat": {
            "200": {"description": "The beat is on the board."},
            "400": _problem("A status other than ok and fail, or an unknown parameter."),
            "401": _problem("The token is missing or wrong; or a login, where the service has no token."),
            "403": _problem("Sent by a page of an origin that is not allowed."),
            "404": _problem("There is no such service of kind heartbeat."),
            "409": _problem("Monitoring is not running."),
            "429": _problem("Too many wrong tokens; see Retry-After."),
            "503": _problem("The file with the token cannot be read."),
        },
        "config": {"200": {"description": "YAML, or JSON if Accept prefers it.", "content": config}, **busy},
        "reload": {
            **_ok(_ref("Changes")),
            "403": _problem("Not enabled, or requested by a page of another site."),
            "500": _response("Not valid; the one before remains in force.", _ref("Mistakes"), PROBLEM),
        },
        "healthy": _ok(_TEXT, "text/plain"),
        "ready": {
            **_ok(_TEXT, "text/plain"),
            "503": _response("Not yet, or no longer.", _TEXT, "text/plain"),
        },
        "openapi": _ok({"type": "object"}),
    }


def _parameters(schemas: Mapping[str, Schema]) -> dict[str, list[Schema]]:
    name = schemas["Service"]["properties"]["name"]
    return {
        "service": [{"name": "name", "in": "path", "required": True, "schema": name}],
        "beat": [
            {"name": "name", "in": "path", "required": True, "schema": name},
            {
                "name": "status",
                "in": "query",
                "description": "fail: the service works, but not well",
                "schema": {"enum": ["ok", "fail"], "default": "ok"},
            },
            {"name": "message", "in": "query", "description": "shown with the service", "schema": _TEXT},
        ],
        "force_check": [
            {"name": "service", "in": "query", "description": "check only this one", "schema": name}
        ],
    }


def _schemas() -> dict[str, Schema]:
    """Return the JSON schemas of all typed dictionaries, by name. No object has further members."""
    _, described = TypeAdapter.json_schemas(
        [(each.__name__, "serialization", TypeAdapter(each)) for each in _TYPES],
        ref_template="#/components/schemas/{model}",
    )
    schemas: dict[str, Schema] = described["$defs"]
    for schema in schemas.values():
        if "properties" in schema:
            schema["additionalProperties"] = False
            for member in schema["properties"].values():
                member.pop("title", None)
    return schemas


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _ok(schema: Schema, media_type: str = "application/json") -> dict[str, Schema]:
    return {"200": _response("The requested content.", schema, media_type)}


def _response(description: str, schema: Schema, media_type: str = "application/json") -> Schema:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _problem(description: str) -> Schema:
    return _response(description, _ref("Problem"), PROBLEM)
