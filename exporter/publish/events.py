"""Owns GET /events: the board as server-sent events, for the status page, `watch` and scripts.

| event | data | when |
|---|---|---|
| `board` | as /health/detailed | first, and whenever a client has missed more than is kept |
| `transition` | `name`, `kind`, `from`, `to`, `reason`, `message`, `at` | at once, each one |
| `service` | one service as in /health/detailed | its record has changed; at most once a second each |
| `overall` | /health/detailed without `services` | with either of them, after a quarter of a second at most |

Comments (`: beat`) come after every 5 s of silence, so that a client notices a link that died without a word.
There is no queue for any client: each has a position in one sequence that all of them share. Of states only the newest
is kept and of transitions the last 1,000, so one that reads slowly skips states, one that is far behind gets the board
again, and one that has stopped reading costs a position. The listener's TCP user timeout then ends it.
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

from exporter import snapshot
from exporter.board import Board
from exporter.publish.detailed import Detailed
from exporter.record import Record, Transition

TRANSITIONS_KEPT: Final = 1000
CLIENTS: Final = 100
BEAT: Final = 5.0
"""Seconds of silence after which a comment is sent. Clients may take twice that for a dead link."""

_OVERALL: Final = ""
"""The key of what is true of all services; none of them is called so."""
_SWEEP_EVERY: Final = 0.25
_STATE_EVERY: Final = 1.0
_PIECE: Final = 65_536
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would otherwise keep events back
}


@dataclass(slots=True)
class _News:
    """A transition, or that a record or (without either) the overall state has changed.

    It is written out for the first client that wants it; a change of a state, with what is true by then.
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
        detailed: Detailed | None = None,
        clients: int = CLIENTS,
        beat: float = BEAT,
    ) -> None:
        self.clients = 0
        self._board = board
        self._detailed = detailed or Detailed(board)
        self._one_board_at_a_time = asyncio.Lock()
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
        self._board_sent: tuple[float, int, bytes] | None = None
        self._news = asyncio.Event()
        self._closed = False
        self._unsubscribe = board.subscribe(self._told)

    async def stream(self, request: Request) -> Response:
        """Answer GET /events. Raises HTTPException (503) when there are too many clients already."""
        if request.method == "HEAD":
            return Response(headers=_HEADERS, media_type="text/event-stream")
        if self.clients >= self._limit or self._closed:
            full = f"{self._limit} clients follow events already"
            why = "the exporter is stopping" if self._closed else full
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, why, {"Retry-After": "5"})
        return _Stream(self, self._resume(request.headers.get("last-event-id", "")))

    async def run(self) -> None:
        """Find changed records, for ever, while somebody follows: 10,000 records take 2.5 ms."""
        while True:
            await self._followed.wait()
            self._sweep()
            await asyncio.sleep(_SWEEP_EVERY)

    def close(self) -> None:
        """End every stream, and take no more."""
        self._closed = True
        self._unsubscribe()
        self._ring()

    async def follow(self, position: int | None) -> AsyncGenerator[bytes, None]:
        """Yield what is to be sent to a client that has everything up to ``position``; ``None``: nothing."""
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
            news = self._news  # taken before looking, or what happens meanwhile would be slept through
            if position is None or position < self._floor:
                position, body = await self._whole_board()
                for start in range(0, len(body), _PIECE):
                    yield body[start : start + _PIECE]
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
        """Return the position that an id stands for, or ``None`` if it is of no use here."""
        run, _, position = last_id.rpartition("-")
        if run != self._run or not position.isascii() or not position.isdigit() or len(position) > 15:
            return None
        return int(position) if self._floor <= int(position) <= self._position else None

    def _told(self, transition: Transition) -> None:
        if len(self._transitions) == TRANSITIONS_KEPT:
            self._floor = self._transitions[0].position
        self._transitions.append(_News(self._next(), transition=transition))
        self._ring()

    def _sweep(self) -> None:
        """Mark every record that has changed since it was last marked, if that is a second ago."""
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
            self._ring()

    def _mark(self, key: str, record: Record | None, now: float) -> None:
        """Move the state to the end, so that the dict stays in the order of positions."""
        self._states.pop(key, None)
        version = record.version if record else 0
        self._states[key] = _News(self._next(), record=record, version=version, marked=now)

    def _start_over(self) -> None:
        """Services have come or gone: every client gets the board again."""
        self._names = self._board.names
        self._states = {name: state for name, state in self._states.items() if name in self._board}
        self._floor = self._next()

    def _after(self, position: int) -> list[_News]:
        """Return all that is newer than ``position``, the oldest first."""
        found: list[_News] = []
        for kept in (reversed(self._transitions), reversed(self._states.values())):
            found += takewhile(lambda one: one.position > position, kept)
        return sorted(found, key=lambda one: one.position)

    def _pieces(self, found: list[_News]) -> Iterator[tuple[int, bytes]]:
        """Join what is to be sent into pieces of moderate size, each with the position that it reaches."""
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
            told = {"name": change.name, "kind": change.kind, **snapshot.transition(change)}
            one.body = self._written("transition", one.position, told)
        elif one.record is not None:
            one.body = self._written("service", one.position, snapshot.service(one.record))
        else:
            one.body = self._written("overall", one.position, snapshot.overall(self._board))
        return one.body

    async def _whole_board(self) -> tuple[int, bytes]:
        """Return the board and the position it stands for, made at most once a second, however many ask."""
        async with self._one_board_at_a_time:
            now = self._board.clock.monotonic()
            kept = self._board_sent
            if kept is None or now - kept[0] >= _STATE_EVERY or kept[1] < self._floor:
                position = self._position  # what happens while it is made comes after it, told twice at worst
                data = b"".join(await self._detailed.parts())
                body = b"event: board\nid: %s\ndata: %s\n" % (self._id(position), data)
                kept = self._board_sent = (now, position, body)
            return kept[1], kept[2]

    def _written(self, event: str, position: int, data: Mapping[str, Any]) -> bytes:
        text = json.dumps(data, separators=(",", ":"))
        return b"event: %s\nid: %s\ndata: %s\n\n" % (event.encode(), self._id(position), text.encode())

    def _id(self, position: int) -> bytes:
        return f"{self._run}-{position}".encode()

    def _next(self) -> int:
        self._position += 1
        return self._position

    def _ring(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class _Stream(StreamingResponse):
    """A stream to one client, who is counted for as long as it lasts."""

    def __init__(self, events: Events, position: int | None) -> None:
        super().__init__(events.follow(position), headers=_HEADERS, media_type="text/event-stream")
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._events.clients += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._events.clients -= 1
