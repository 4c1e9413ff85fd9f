"""Owns what pages of other origins may read: the routes marked `cross_origin`, by the origins that the user lists.

This is CORS, https://fetch.spec.whatwg.org/#http-cors-protocol. The answer to a preflight request is in the handlers.
"""

from collections.abc import Collection, MutableMapping
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from connection_exporter.web.routes import is_cross_origin

_READABLE: Final = "Date, Retry-After"
"""Headers that a page may read besides the safelisted ones: for the clock, and for how long to wait."""


class CrossOrigin:
    """Adds the headers by which a browser lets pages of ``origins`` read a response."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        if scope["type"] != "http" or not is_cross_origin(scope["path"]):
            await self._app(scope, receive, send)
            return
        origin = Headers(scope=scope).get("origin")

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.add_vary_header("Origin")
                if origin in self._origins:
                    headers["Access-Control-Allow-Origin"] = str(origin)
                    headers["Access-Control-Expose-Headers"] = _READABLE
            await send(message)

        await self._app(scope, receive, send_with_headers)
