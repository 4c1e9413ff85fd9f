"""Owns rendering long responses without blocking the event loop: in slices, and once for all who ask together."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from operator import is_
from typing import Final, Generic, TypeVar

from connection_exporter.monitor import snapshot
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Record
from connection_exporter.web.responses import dumps

_SLICE: Final = 0.001
"""Seconds of work after which the event loop runs, if it has little else to do."""
_LONGEST_SLICE: Final = 0.05
_NEWS_FIRST: Final = 0.1
"""Seconds for which a rendering waits, all in all, while services fail in each iteration of the loop. It does not wait
while they recover: a scrape in the meantime took a third longer."""
_PART: Final = 65_536
"""Bytes that are sent at a time: encrypting copies them, so a slow TLS client costs no more than this."""
_SERVICES: Final = 50
"""Services whose texts are joined at once."""
_TOGETHER: Final = 10
"""Services whose texts are written at once: half a millisecond."""
_END: Final = b"}}\n"
_FRESH: Final = 1.0
"""Seconds for which a rendering is shared."""
_RENDERINGS: Final = 4
"""Renderings that are begun within `_FRESH`, at most. Those of a second keep the loop busy for 0.1 s, with 1,000
services; after them, the newest serves every client."""
_SERVICES_RENDERED: Final = 2000
"""Services that these may have together: a small board is rendered more often."""

_T = TypeVar("_T")


class Slices:
    """Lets the event loop run after each slice of a long piece of work.

    A slice lasts as long as the other work of the iteration before it has taken, but at most `_LONGEST_SLICE`. A
    rendering thus gets half of the CPU while 1,000 services reconnect, and does not wait for eight of them after each
    slice. While services fail, there is no slice, for `_NEWS_FIRST`: 1,000 losses are reported first. ``now`` returns
    seconds.
    """

    def __init__(self, board: Board, now: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._now = now
        self._news_first = _NEWS_FIRST
        self._ends = now() + _SLICE

    async def pause_if_due(self) -> None:
        """Let the event loop run, if the slice is over."""
        if self._now() > self._ends:
            await self.pause()

    async def pause(self) -> None:
        """Let the event loop run: before work that takes a slice of its own."""
        while True:
            faults, paused = self._board.faults, self._now()
            await asyncio.sleep(0)
            resumed = self._now()
            if self._board.faults == faults or self._news_first <= 0:
                break
            self._news_first -= resumed - paused
        self._ends = resumed + min(max(resumed - paused, _SLICE), _LONGEST_SLICE)


class Shared(Generic[_T]):
    """One rendering of a board for all who ask together, and while the server is busy, for all within a second.

    A rendering is not shared with a client that asks after a transition, so a scrape shows the newest status. Nor is
    it, while the server is not busy, after any other change of the board. A rendering that has not begun yet is
    always shared, so at most one is in progress and one is waiting. Large boards are rendered at most four times a
    second, whatever changes: clients that scrape without a pause would use up the CPU.
    """

    def __init__(self, board: Board, render: Callable[[], Awaitable[_T]]) -> None:
        self._board = board
        self._render = render
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Task[_T] | None = None
        self._begun: tuple[asyncio.Task[_T], int, int] | None = None
        self._begun_at: deque[float] = deque()
        self._forgets: asyncio.TimerHandle | None = None

    async def get(self, *, busy: bool) -> _T:
        """Return the rendering; while the server is ``busy``, it may be a second old."""
        task = self._task(busy=busy)
        if task is None:
            task = self._waiting = asyncio.create_task(self._rendered())
        return await asyncio.shield(task)  # others wait for it too

    def _task(self, *, busy: bool) -> "asyncio.Task[_T] | None":
        if self._waiting is not None:
            return self._waiting
        if self._begun is None:
            return None
        task, transitions, version = self._begun
        if self._too_often():
            return task
        unchanged = not task.done() and version == self._version()
        return task if transitions == self._board.transitions and (busy or unchanged) else None

    async def _rendered(self) -> _T:
        async with self._turn:
            task = self._waiting
            assert task is not None
            self._begun, self._waiting = (task, self._board.transitions, self._version()), None
            self._begun_at.append(asyncio.get_running_loop().time())
            self._board.renderings += 1
            if self._forgets is not None:
                self._forgets.cancel()  # it would keep the last rendering in memory
            try:
                return await self._render()
            except BaseException:
                self._begun = None
                raise
            finally:
                self._board.renderings -= 1
                self._forgets = asyncio.get_running_loop().call_later(_FRESH, self._forget)

    def _forget(self) -> None:
        self._begun = None

    def _too_often(self) -> bool:
        """Return whether so many renderings were begun within the last second that no other must be."""
        since = asyncio.get_running_loop().time() - _FRESH
        while self._begun_at and self._begun_at[0] < since:
            self._begun_at.popleft()
        most = _SERVICES_RENDERED // max(1, len(self._board.records()))
        return len(self._begun_at) >= max(_RENDERINGS, most)

    def _version(self) -> int:
        """Return a number that differs after any change. Takes 0.3 ms with 10,000 services."""
        records = self._board.records()
        return hash((self._board.active, len(records), sum([record.version for record in records])))


class BoardJson:
    """Renders a board as JSON, with the content of `snapshot.detailed`.

    The text of a service is kept until its record changes: to write all of 1,000 takes 49 ms, and 10 ms
    if one in six has changed.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._records: list[Record] = []
        self._groups: list[_Group] = []

    async def parts(self) -> list[bytes]:
        """Return the whole board at one moment, in parts."""
        slices = Slices(self._board)
        for group in self._arranged():
            stale = group.stale()
            for start in range(0, len(stale), _TOGETHER):
                group.renew(stale[start : start + _TOGETHER])
                await slices.pause_if_due()
        await slices.pause()  # to look at 10,000 services takes a millisecond
        groups = self._arranged()
        for group in groups:
            group.renew(group.stale())  # few have changed since
        parts = [self._head([group.tally for group in groups])]
        texts = [[*group.texts] for group in groups]
        await slices.pause_if_due()
        for place, of_group in enumerate(texts):
            parts.append(_joined(of_group, is_first=place == 0))
            await slices.pause_if_due()
        parts.append(_END)
        return in_parts(parts)

    def pieces(self) -> Iterator[bytes]:
        """Yield the board in pieces, each as the board is when it is asked for.

        A client that takes them slowly keeps no rendering in memory.
        """
        groups = self._arranged()
        yield self._head()
        for place, group in enumerate(groups):
            group.renew(group.stale())
            yield _joined(group.texts, is_first=place == 0)
        yield _END

    def _arranged(self) -> "list[_Group]":
        """Return the groups of all services of the board now."""
        records = self._board.records()
        if len(records) != len(self._records) or not all(map(is_, records, self._records)):
            # Each service added would otherwise make all texts stale, and `parts` write them without a pause.
            known = {
                id(record): (version, text)
                for group in self._groups
                for record, version, text in group.rows()
            }
            self._records = records
            self._groups = [
                _Group(records[start : start + _SERVICES], known)
                for start in range(0, len(records), _SERVICES)
            ]
        return self._groups

    def _head(self, tallies: list[snapshot.Tally] | None = None) -> bytes:
        return f'{dumps(snapshot.overall(self._board, tallies))[:-1]}, "services": {{'.encode()


class _Group:
    """Services that follow each other on the board, and their texts.

    ``known`` are the versions and texts of other groups, by the identity of the record.
    """

    def __init__(self, records: list[Record], known: Mapping[int, tuple[int, bytes]]) -> None:
        rows = [known.get(id(record), (-1, b"")) for record in records]
        self.texts = [text for _, text in rows]
        self.tally = snapshot.tally(records)
        self._records = records
        self._versions = [version for version, _ in rows]

    def rows(self) -> Iterator[tuple[Record, int, bytes]]:
        """Yield each service with the version and the text that are known of it."""
        return zip(self._records, self._versions, self.texts, strict=True)

    def stale(self) -> list[int]:
        """Return the places of the services that have changed since their texts were written."""
        versions = [record.version for record in self._records]
        if versions == self._versions:
            return []
        return [place for place, version in enumerate(versions) if version != self._versions[place]]

    def renew(self, places: list[int]) -> None:
        """Write the texts at these places."""
        for place in places:
            record = self._records[place]
            self.texts[place] = f'"{record.name}": {dumps(snapshot.service(record))}'.encode()
            self._versions[place] = record.version
        if places:
            self.tally = snapshot.tally(self._records)


def _joined(texts: list[bytes], *, is_first: bool) -> bytes:
    """Join the texts of a group to those before it."""
    return b", ".join(texts if is_first else [b"", *texts])


class Parts:
    """Takes pieces of a response, cuts what is longer than one part, and joins what is much shorter."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._short = bytearray()

    def add(self, piece: bytes) -> None:
        """Add a piece to the end."""
        is_short = len(piece) < _PART // 4  # what is not is not copied
        if self._short and not (is_short and len(self._short) + len(piece) <= _PART):
            self._end_part()
        if is_short:
            self._short += piece
        else:
            self._parts.extend(piece[at : at + _PART] for at in range(0, len(piece), _PART))

    def all(self) -> list[bytes]:
        """Return all parts, after the last piece."""
        self._end_part()
        return self._parts

    def _end_part(self) -> None:
        if self._short:
            self._parts.append(bytes(self._short))
            self._short.clear()


def in_parts(pieces: Iterable[bytes]) -> list[bytes]:
    """Return `Parts` of these pieces."""
    parts = Parts()
    for piece in pieces:
        parts.add(piece)
    return parts.all()
