"""Owns the routes of the configuration: what is in force, and reading it again."""

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from exporter.publish.origins import may_act
from exporter.publish.problem import NO_CACHE, problem

Reload = Callable[[], Awaitable[Mapping[str, Any]]]


class Refused(Exception):
    """What was read is not valid, and the old remains in force; ``mistakes`` has a line for each."""

    def __init__(self, mistakes: Collection[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = list(mistakes)


class Lifecycle:
    """GET /config and POST /-/reload.

    ``config`` returns what is in force as plain values, with no secret in them. ``reload`` reads it again,
    says what has changed, and raises `Refused`; ``None`` where nobody may ask for that.
    """

    def __init__(
        self, config: Callable[[], Mapping[str, Any]], reload: Reload | None, origins: Collection[str]
    ) -> None:
        self._config = config
        self._reload = reload
        self._origins = origins
        self.routes = (
            Route("/config", self.config),
            Route("/-/reload", self.reload, methods=["POST", "PUT"]),
        )

    async def config(self, request: Request) -> Response:
        """Answer GET /config: as YAML, or as JSON for who prefers that."""
        headers = {**NO_CACHE, "Vary": "Accept"}
        if "json" in request.headers.get("accept", ""):
            text = json.dumps(self._config(), ensure_ascii=False) + "\n"
            return Response(text, headers=headers, media_type="application/json")
        text = yaml.safe_dump(self._config(), sort_keys=False, allow_unicode=True)
        return Response(text, headers=headers, media_type="application/yaml")  # RFC 9512

    async def reload(self, request: Request) -> Response:
        """Answer POST /-/reload (or PUT, as Prometheus does): what has changed, or every mistake."""
        if self._reload is None:
            return problem(HTTPStatus.FORBIDDEN, "start with --web.enable-lifecycle to allow this")
        if not may_act(request.headers, self._origins):
            return problem(HTTPStatus.FORBIDDEN, "pages of another site may not reload the config")
        try:
            body = json.dumps(await self._reload()) + "\n"
        except Refused as refused:
            detail = "the config is not valid; the one before remains in force"
            return problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail, mistakes=refused.mistakes)
        return Response(body, headers=NO_CACHE, media_type="application/json")
