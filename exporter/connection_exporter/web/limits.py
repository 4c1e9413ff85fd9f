"""Owns what clients can use at a time: connections, event streams and long responses.

docs/security.md lists all limits. Each is far above what browsers, Prometheus and curl need.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from connection_exporter.net.linger import Client
from connection_exporter.system.descriptors import share_of_files

CONNECTIONS: Final = 1280
"""Connections at a time, unfinished TLS handshakes included. Never more than half of the file descriptors."""

RESERVED: Final = 32
"""Connections of these that only health routes may use; never more than a quarter of them."""

AT_ONCE: Final = 8
"""Reads that are parsed at once in an iteration of the event loop. Others wait for their turn: 50 clients that send 16
requests each take 30 ms."""

STREAMS: Final = 100
"""Clients of /events at a time; never more than half of the connections."""

LONG_RESPONSES: Final = 16
"""Responses of more than `SHORT` bytes that are being sent at a time."""

RENDERINGS: Final = 16 * 1024 * 1024
"""Bytes of different renderings that are being sent at a time. A single one may be larger."""

SHORT: Final = 65_536
"""Bytes that one connection buffers anyway."""

SEND_WITHIN: Final = 30.0
"""Seconds in which a client must take a long response."""

_SLOW_AFTER: Final = 5.0
"""Seconds after which a long response is aborted if another client waits for its place."""
_WAIT: Final = 1.0
"""Seconds that a client waits for a place before it gets a 503."""


def most_connections() -> int:
    """Return how many connections there may be, according to the file descriptor limit in force now."""
    return share_of_files(2, most=CONNECTIONS)


def most_streams() -> int:
    """Return how many clients of /events there may be."""
    return min(STREAMS, most_connections() // 2)


class ReadCount:
    """Counts the reads from all clients in an iteration of the event loop."""

    def __init__(self) -> None:
        self._count = 0

    def increment(self) -> int:
        """Return the number of reads in this iteration, with this one."""
        if not self._count:
            asyncio.get_running_loop().call_soon(self._reset)
        self._count += 1
        return self._count

    def _reset(self) -> None:
        self._count = 0


class Connections:
    """All connections of a server. One over the limit takes the place of the one that has been idle for longest.

    Idle is every connection that has no request in progress: one in its TLS handshake, one that has not sent its
    request completely, one that is kept alive.
    """

    def __init__(self) -> None:
        self._idle: dict[Client, None] = {}  # the oldest first
        self._busy: set[Client] = set()

    def opened(self, client: Client) -> None:
        """Add a connection, and abort the oldest idle one if there are too many."""
        self._idle[client] = None
        if len(self._idle) + len(self._busy) > most_connections():
            oldest = next(iter(self._idle))
            self.closed(oldest)
            oldest.abort()

    def closed(self, client: Client) -> None:
        """Remove a connection."""
        self._idle.pop(client, None)
        self._busy.discard(client)

    def begin(self, client: Client, *, health: bool) -> bool:
        """Note that a request is in progress; return False if its connection is needed for health routes."""
        if client not in self._idle:  # closed meanwhile
            return True
        most = most_connections()
        if not health and len(self._busy) >= most - min(RESERVED, most // 4):
            return False
        del self._idle[client]
        self._busy.add(client)
        return True

    def end(self, client: Client) -> None:
        """Note that the request is complete."""
        if client in self._busy:
            self._busy.discard(client)
            self._idle[client] = None

    @property
    def idle(self) -> tuple[Client, ...]:
        """The idle connections, the oldest first."""
        return tuple(self._idle)


class Overloaded(Exception):
    """Too many long responses are being sent."""


@dataclass(frozen=True, slots=True, eq=False)
class _Sending:
    """A long response that is being sent."""

    began: float
    client: Client
    rendering: Sequence[bytes]


class LongResponses:
    """The long responses that are being sent."""

    def __init__(self) -> None:
        self._sending: deque[_Sending] = deque()  # the oldest first
        self._waiting = 0
        self._freed = asyncio.Event()

    @property
    def active(self) -> bool:
        """Whether any is being sent, or waits to be."""
        return bool(self._sending or self._waiting)

    @asynccontextmanager
    async def sending(self, client: Client, rendering: Sequence[bytes] = ()) -> AsyncIterator[None]:
        """Keep a place for one response, for `SEND_WITHIN` at most. Raises `Overloaded`."""
        if not self._fits(rendering):
            await self._wait(rendering)
        loop = asyncio.get_running_loop()
        entry = _Sending(loop.time(), client, rendering)
        self._sending.append(entry)
        deadline = loop.call_later(SEND_WITHIN, client.abort)
        try:
            yield
        finally:
            deadline.cancel()
            with suppress(ValueError):  # it was removed to make room
                self._sending.remove(entry)
            self._free()

    def _fits(self, rendering: Sequence[bytes]) -> bool:
        """Return whether there is a place, and memory for ``rendering`` beside the others that are being sent."""
        if len(self._sending) >= LONG_RESPONSES:
            return False
        others = {id(entry.rendering): entry.rendering for entry in self._sending}
        if not others or id(rendering) in others:
            return True
        return sum(len(part) for parts in (rendering, *others.values()) for part in parts) <= RENDERINGS

    async def _wait(self, rendering: Sequence[bytes]) -> None:
        self._waiting += 1
        loop = asyncio.get_running_loop()
        gives_up = loop.time() + _WAIT
        try:
            while not self._fits(rendering):
                slow_at = self._sending[0].began + _SLOW_AFTER
                if loop.time() >= slow_at:
                    self._sending.popleft().client.abort()
                    continue
                if loop.time() >= gives_up:
                    raise Overloaded
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(min(slow_at, gives_up)):
                        await self._freed.wait()
        finally:
            self._waiting -= 1

    def _free(self) -> None:
        freed, self._freed = self._freed, asyncio.Event()
        freed.set()
