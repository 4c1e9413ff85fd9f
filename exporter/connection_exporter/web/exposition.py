"""Owns /metrics: all families of all services as text, without blocking the event loop.

Scrapes that arrive together share one rendering, as `rendering.Shared` describes.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics_format

from connection_exporter.kind import MetricType
from connection_exporter.monitor.board import Board
from connection_exporter.web.coding import CODINGS, Compressor, Piece, Text, offered
from connection_exporter.web.lines import Sheet
from connection_exporter.web.rendering import Parts, Shared, Slices
from connection_exporter.web.requests import content_coding, wants_openmetrics
from connection_exporter.web.samples import Family

_FORMATS: Final[Mapping[bool, tuple[str, Callable[[CollectorRegistry], bytes]]]] = {
    False: (CONTENT_TYPE_PLAIN_0_0_4, generate_latest),
    True: (openmetrics_format.CONTENT_TYPE_LATEST, openmetrics_format.generate_latest),
}
"""Content type and encoder of the text format, and of OpenMetrics."""


class Rendering(NamedTuple):
    """The body of a scrape's response, in parts of at most 64 KiB, and its content coding."""

    content_type: str
    parts: tuple[bytes, ...]
    coding: str

    @property
    def body(self) -> bytes:
        """The whole."""
        return b"".join(self.parts)


class Exposition:
    """Renders a board, and behind it the exporter's own registry."""

    def __init__(self, board: Board, registry: CollectorRegistry) -> None:
        self._board = board
        self._registry = registry
        self._sheet = Sheet(board)
        self._heads: dict[bytes, Text] = {}
        self._turn = asyncio.Lock()
        self._shared = {
            (openmetrics, coding): Shared(
                board, partial(self._render, openmetrics=openmetrics, coding=coding)
            )
            for openmetrics in (False, True)
            for coding in CODINGS
        }

    async def answer(
        self, accept: str | None, accept_encoding: str | None, *, busy: bool = False
    ) -> Rendering:
        """Return the response to a scrape with these headers; while the server is ``busy``, of the last second."""
        variant = wants_openmetrics(accept or ""), content_coding(accept_encoding or "", offered())
        return await self._shared[variant].get(busy=busy)

    async def _render(self, *, openmetrics: bool, coding: str) -> Rendering:
        content_type, encode = _FORMATS[openmetrics]
        compressor = Compressor() if coding == "gzip" else None
        slices = Slices(self._board)
        async with self._turn:  # the variants share the lines
            pieces = await self._services(slices, openmetrics=openmetrics, compressor=compressor)
        await slices.pause()  # the registry takes half a slice
        pieces.append(encode(self._registry))
        parts = Parts()
        for piece in CODINGS[coding](pieces):  # in a thread, it would keep the interpreter's lock for 3 ms
            parts.add(piece)
            await slices.pause_if_due()
        return Rendering(content_type, tuple(parts.all()), coding)

    async def _services(
        self, slices: Slices, *, openmetrics: bool, compressor: Compressor | None
    ) -> list[Piece]:
        await self._sheet.renew(slices, compressor)
        pieces: list[Piece] = []
        for family, lines in self._sheet.families():
            if lines:
                head = header(family, openmetrics=openmetrics)
                pieces.append(self._kept_head(head) if isinstance(lines[0], Text) else head)
                pieces += lines
            await slices.pause_if_due()
        return pieces

    def _kept_head(self, head: bytes) -> Text:
        """Return the head of a family whose lines are kept. Between these, it would have to be compressed alone."""
        if head not in self._heads:
            self._heads[head] = Text(head)
        return self._heads[head]


@lru_cache(maxsize=1024)
def header(family: Family, *, openmetrics: bool) -> bytes:
    """Return the HELP and TYPE lines. In OpenMetrics a counter's family has no ``_total``, and quotes are escaped."""
    counter = openmetrics and family.type is MetricType.COUNTER
    name = family.name.removesuffix("_total") if counter else family.name
    text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        text = text.replace('"', r"\"")
    return f"# HELP {name} {text}\n# TYPE {name} {family.type.value}\n".encode()
