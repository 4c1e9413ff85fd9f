"""Owns GET /events: the board as server-sent events, for the status page, `watch` and scripts.

| event | data | when |
|---|---|---|
| `board` | as /health/detailed | first, and when a client has missed more than is kept |
| `transition` | `name`, `kind`, `from`, `to`, `reason`, `message`, `at` | each one, immediately |
| `service` | one service as in /health/detailed | its record has changed; at most once a second for each service |
| `overall` | /health/detailed without `services` | with either of them, after a quarter of a second at most |

After every 5 s of silence, a comment (`: beat`) is sent, so that a client notices a dead link.
No client has a queue: each has a position in one sequence that all share. Only the newest state of each service and
the last 1,000 transitions are kept. A client that reads slowly therefore skips states, one that is far behind gets the
board again, and one that has stopped reading costs one part of at most 64 KiB until its connection is aborted.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from itertools import takewhile
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from connection_exporter.monitor import snapshot
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Record, Transition
from connection_exporter.web.limits import STREAMS, most_streams
from connection_exporter.web.rendering import BoardJson, Slices

TRANSITIONS_KEPT: Final = 1000
BEAT: Final = 5.0
"""Seconds of silence after which a comment is sent. A client may treat twice that as a dead link."""

_OVERALL: Final = ""
"""The key of the overall state; no service has an empty name."""
_SWEEP_EVERY: Final = 0.25
_STATE_EVERY: Final = 1.0
_PIECE: Final = 65_536
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would otherwise buffer events
}


@dataclass(slots=True, eq=False)
class _News:
    """A transition, or the fact that a record or (without either) the overall state has changed.

    It is rendered for the first client that needs it; a state is rendered as it is by then.
    """

    position: int
    body: bytes | None = None
    transition: Transition | None = None
    record: Record | None = None
    version: int = 0
    marked: float = 0.0


class Events:
    """The events of one board. `run` finds what has changed; `close` ends every stream."""

    def __init__(
        self,
        board: Board,
        *,
        board_json: BoardJson | None = None,
        clients: int = STREAMS,
        beat: float = BEAT,
    ) -> None:
        self.clients = 0
        self._board = board
        self._board_json = board_json or BoardJson(board)
        self._limit = clients
        self._beat = beat
        self._run = f"{board.clock.wall() * 1000:.0f}"
        self._position = 0
        self._followers = 0
        self._followed = asyncio.Event()
        self._floor = 0
        self._transitions: deque[_News] = deque(maxlen=TRANSITIONS_KEPT)
        self._states: dict[str, _News] = {}
        self._names = board.names
        self._active = board.active
        self._news = asyncio.Event()
        self._closed = False
        self._unsubscribe = board.subscribe(self._add)

    async def stream(self, request: Request) -> Response:
        """Answer GET /events. Raises HTTPException (503) if there are too many clients already."""
        if request.method == "HEAD":
            return Response(headers=_HEADERS, media_type="text/event-stream")
        limit = min(self._limit, most_streams())
        if self.clients >= limit or self._closed:
            full = f"{limit} clients follow events already"
            why = "the exporter is stopping" if self._closed else full
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, why, {"Retry-After": "5"})
        return _Stream(self, self._resume(request.headers.get("last-event-id", "")))

    async def run(self) -> None:
        """Find changed records while a client follows: 10,000 records take 2.5 ms. Runs until cancelled."""
        while True:
            await self._followed.wait()
            self._sweep()
            await asyncio.sleep(_SWEEP_EVERY)

    def close(self) -> None:
        """End every stream, and accept no more."""
        self._closed = True
        self._unsubscribe()
        self._wake()

    async def follow(self, position: int | None) -> AsyncGenerator[bytes, None]:
        """Yield what to send to a client that has everything up to ``position``, or nothing yet (``None``)."""
        self._followers += 1
        self._followed.set()
        try:
            self._sweep()
            async for piece in self._follow(position):
                yield piece
        finally:
            self._followers -= 1
            if not self._followers:
                self._followed.clear()

    async def _follow(self, position: int | None) -> AsyncGenerator[bytes, None]:
        yield b"retry: 2000\n\n"
        while not self._closed:
            news = self._news  # taken before looking, or an event in between would be missed
            if position is None or position < self._floor:
                position = self._position  # what happens while it is sent is sent again after it
                slices = Slices(self._board)
                yield b"event: board\nid: %s\ndata: " % self._id(position)
                for piece in self._board_json.pieces():
                    yield piece
                    await slices.pause_if_due()
                yield b"\n"
                continue  # sending may have taken so long that this board is too old as well
            for reached, piece in self._pieces(self._after(position)):
                yield piece
                position = reached
            try:
                async with asyncio.timeout(self._beat):
                    await news.wait()
            except TimeoutError:
                yield b": beat\n\n"

    def _resume(self, last_id: str) -> int | None:
        """Return the position that an id denotes, or ``None`` if the client needs a board."""
        run, _, position = last_id.rpartition("-")
        if run != self._run or not position.isascii() or not position.isdigit() or len(position) > 15:
            return None
        return int(position) if self._floor <= int(position) <= self._position else None

    def _add(self, transition: Transition) -> None:
        if len(self._transitions) == TRANSITIONS_KEPT:
            self._floor = self._transitions[0].position
        self._transitions.append(_News(self._next(), transition=transition))
        if self._followers:
            self._wake()

    def _sweep(self) -> None:
        """Mark every record that has changed since it was last marked, if that was a second ago."""
        records, now = self._board.records(), self._board.clock.monotonic()
        if self._board.names != self._names:
            self._start_over()
        marked = self._active != self._board.active
        self._active = self._board.active
        for record in records:
            state = self._states.get(record.name)
            changed = state is None or state.record is not record or state.version != record.version
            if changed and (state is None or now - state.marked >= _STATE_EVERY):
                self._mark(record.name, record, now)
                marked = True
        last = self._transitions[-1].position if self._transitions else 0
        overall = self._states.get(_OVERALL)
        if marked or overall is None or last > overall.position:
            self._mark(_OVERALL, None, now)
            self._wake()

    def _mark(self, key: str, record: Record | None, now: float) -> None:
        """Move the state to the end, so that the dict stays ordered by position."""
        self._states.pop(key, None)
        version = record.version if record else 0
        self._states[key] = _News(self._next(), record=record, version=version, marked=now)

    def _start_over(self) -> None:
        """Send every client the board again: services were added or removed."""
        self._names = self._board.names
        self._states = {name: state for name, state in self._states.items() if name in self._board}
        self._floor = self._next()

    def _after(self, position: int) -> list[_News]:
        """Return everything newer than ``position``, the oldest first."""
        found: list[_News] = []
        for kept in (reversed(self._transitions), reversed(self._states.values())):
            found += takewhile(lambda one: one.position > position, kept)
        return sorted(found, key=lambda one: one.position)

    def _pieces(self, found: list[_News]) -> Iterator[tuple[int, bytes]]:
        """Join what to send into pieces of moderate size, each with the position that it reaches."""
        piece: list[bytes] = []
        size = 0
        for one in found:
            piece.append(self._body(one))
            size += len(piece[-1])
            if size >= _PIECE or one is found[-1]:
                yield one.position, b"".join(piece)
                piece, size = [], 0

    def _body(self, one: _News) -> bytes:
        if one.body is not None:
            return one.body
        if one.transition is not None:
            change = one.transition
            data = {"name": change.name, "kind": change.kind, **snapshot.transition(change)}
            one.body = self._rendered("transition", one.position, data)
        elif one.record is not None:
            one.body = self._rendered("service", one.position, snapshot.service(one.record))
        else:
            one.body = self._rendered("overall", one.position, snapshot.overall(self._board))
        return one.body

    def _rendered(self, event: str, position: int, data: Mapping[str, Any]) -> bytes:
        text = json.dumps(data, separators=(",", ":"))
        return b"event: %s\nid: %s\ndata: %s\n\n" % (event.encode(), self._id(position), text.encode())

    def _id(self, position: int) -> bytes:
        return f"{self._run}-{position}".encode()

    def _next(self) -> int:
        self._position += 1
        return self._position

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class _Stream(StreamingResponse):
    """A stream to one client, which counts as a client for as long as it lasts."""

    def __init__(self, events: Events, position: int | None) -> None:
        super().__init__(events.follow(position), headers=_HEADERS, media_type="text/event-stream")
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the stream ends or the client leaves.

        Starlette's own way imports anyio's task groups at the first client, which blocks the event loop for 40 ms.
        """
        del scope
        sending = asyncio.create_task(self.stream_response(send))
        leaving = asyncio.create_task(_left(receive))
        self._events.clients += 1
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._events.clients -= 1
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
        if not sending.cancelled():
            sending.result()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
