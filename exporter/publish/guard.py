"""Owns what one client may take: how much it sends, how long it takes over it, how many connections there are.

uvicorn limits none of these before a request is complete, so a client that sends a byte a minute would be
waited for without end. Every limit is far beyond what a browser, Prometheus or curl needs.
"""

import asyncio
import resource
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from exporter.publish.problem import PROBLEM, problem_body

LARGEST_REQUEST: Final = 64 * 1024
"""Bytes of a request, head and body together."""

REQUESTS_AHEAD: Final = 16
"""Requests that a client may send without waiting for the answers. A browser, Prometheus and curl send none; each costs
2 KB until its turn comes, and 64 KiB hold thousands."""

REQUEST_WITHIN: Final = 10.0
"""Seconds from the connection, or from a request's first byte, to the end of that request."""

CONNECTIONS: Final = 1280
"""Connections at a time: a thousand scripts that force a check at once are all answered. One more takes the place of
the one that has been idle for longest. Never more than half of the files we may open, for the services need theirs."""


class Guard(HttpToolsProtocol):
    """uvicorn's protocol for one connection, with limits."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._size = 0
        self._deadline: asyncio.TimerHandle | None = None
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, in the place of an idle one if there are too many."""
        super().connection_made(transport)
        self.idle_since = self.loop.time()
        self._expect_request()
        most = most_connections()
        if len(self.connections) > most:
            others = (c for c in self.connections if isinstance(c, Guard) and c is not self and c.is_idle)
            oldest = min(others, key=lambda guard: guard.idle_since, default=None)
            if oldest is not None:
                oldest.transport.abort()
                self.connections.discard(oldest)
            else:
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"{most} clients are being answered already")

    def data_received(self, data: bytes) -> None:
        """Count what comes, and pass it on."""
        if self.transport.is_closing():
            return
        self._size += len(data)
        if self._size > LARGEST_REQUEST:
            detail = f"a request is at most {LARGEST_REQUEST} bytes, head and body together"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
            return
        if self._deadline is None:
            self._expect_request()
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin a request, unless too many before it wait for their turn; the parser then stops."""
        if len(self.pipeline) >= REQUESTS_AHEAD:
            raise _TooManyAheadError
        super().on_message_begin()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser does not take."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def on_message_complete(self) -> None:
        """Begin to count anew: the request is all there."""
        self._size = 0
        self._stop_deadline()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Note since when nothing is to be done for this client."""
        self.idle_since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_deadline()
        super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _expect_request(self) -> None:
        self._deadline = self.loop.call_later(REQUEST_WITHIN, self._too_late)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the request did not come within {REQUEST_WITHIN:g} s")

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Say why, unless in the middle of an answer, and end the connection."""
        self._stop_deadline()
        if self.transport.is_closing():
            return
        if self.is_idle:
            body = problem_body(status, detail)
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {PROBLEM}\r\n"
                f"X-Content-Type-Options: nosniff\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


class _TooManyAheadError(Exception):
    """A client that asks and asks, and takes no answer."""


def most_connections() -> int:
    """Return how many connections there may be, by the limit of open files in force now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if soft == resource.RLIM_INFINITY else min(CONNECTIONS, soft // 2)


def most_handshakes() -> int:
    """Return how many TLS handshakes there may be beside them, of clients that are no connection yet."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if soft == resource.RLIM_INFINITY else min(CONNECTIONS, soft // 4)
