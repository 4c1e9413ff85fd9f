"""Owns the handlers of the configuration: the one in force, and reading it again."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import Response

from connection_exporter.config import Config
from connection_exporter.config.shown import shown
from connection_exporter.system.threads import run_in_thread
from connection_exporter.web.limits import LongResponses
from connection_exporter.web.rendering import in_parts
from connection_exporter.web.requests import may_act, wants_json
from connection_exporter.web.responses import NO_CACHE, LongResponse, dumps, json_response, problem

Reload = Callable[[], Awaitable[Mapping[str, Any]]]


class ReloadRefused(Exception):
    """The new configuration is not valid, and the old one remains in force; ``mistakes`` has a line for each error."""

    def __init__(self, mistakes: Collection[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = list(mistakes)


class Configuration:
    """GET /config and POST /-/reload.

    ``current`` returns the configuration in force. ``reload`` reads it again, returns what has changed, and raises
    `ReloadRefused`; it is ``None`` where clients must not request that.
    """

    def __init__(
        self,
        current: Callable[[], Config],
        reload: Reload | None,
        origins: Collection[str],
        long_responses: LongResponses,
    ) -> None:
        self._current = current
        self._reload = reload
        self._origins = origins
        self._long_responses = long_responses
        self._one_at_a_time = asyncio.Lock()
        self._rendered: tuple[Config, tuple[list[bytes], list[bytes]]] | None = None

    async def config(self, request: Request) -> Response:
        """Answer GET /config: as YAML, or as JSON if the client prefers that."""
        headers = {**NO_CACHE, "Vary": "Accept"}
        yaml_parts, json_parts = await self._texts()
        if wants_json(", ".join(request.headers.getlist("accept"))):
            headers["Content-Type"] = "application/json"
            return LongResponse(json_parts, headers, self._long_responses)
        headers["Content-Type"] = "application/yaml"  # RFC 9512
        return LongResponse(yaml_parts, headers, self._long_responses)

    async def reload(self, request: Request) -> Response:
        """Answer POST /-/reload (or PUT, as Prometheus does): what has changed, or every error."""
        if self._reload is None:
            return problem(HTTPStatus.FORBIDDEN, "start with --web.enable-lifecycle to allow this")
        if not may_act(request.headers, self._origins):
            return problem(HTTPStatus.FORBIDDEN, "pages of another site must not reload the config")
        try:
            return json_response(await self._reload())
        except ReloadRefused as refused:
            detail = "the config is not valid; the one before remains in force"
            return problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail, mistakes=refused.mistakes)

    async def _texts(self) -> tuple[list[bytes], list[bytes]]:
        """Return the configuration as YAML and as JSON, rendered once: that of 1,000 services takes a second."""
        config = self._current()
        async with self._one_at_a_time:
            if self._rendered is None or self._rendered[0] is not config:
                self._rendered = config, await run_in_thread(lambda: _rendered(config), name="config")
            return self._rendered[1]


def _rendered(config: Config) -> tuple[list[bytes], list[bytes]]:
    values = shown(config)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return in_parts([text.encode()]), in_parts([dumps(values).encode(), b"\n"])
