"""Owns one client's connection: uvicorn's protocol and server with the limits that they lack.

This is the only file that uses private names of uvicorn: `HttpToolsProtocol`, and hooks of `Server`. pyproject.toml
caps uvicorn at the tested minor version, and tests/web/test_uvicorn.py says which name has changed.

uvicorn limits neither the size of a request nor the time until it is complete, so a client that sends one byte a
minute would be served without end.
"""

import asyncio
import re
import socket
import ssl
import sys
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from connection_exporter.net.linger import Linger
from connection_exporter.net.pacing import PacedReader, Pacer
from connection_exporter.net.server_tls import TlsProtocol
from connection_exporter.system.wakeup import until_next
from connection_exporter.web.limits import AT_ONCE, Connections, ReadCount
from connection_exporter.web.responses import PROBLEM, problem_body

LARGEST_REQUEST: Final = 64 * 1024
"""Bytes of a request, head and body together."""

HEADERS: Final = 200
"""Header lines of a request: 12,000 short ones take 70 ms of CPU."""

REQUESTS_AHEAD: Final = 16
"""Requests that a client may send before their responses. Browsers, Prometheus and curl send none ahead; each costs
2 KB until its turn comes, and 64 KiB hold thousands."""

SLICE: Final = 1024
"""Bytes of one client that are parsed in one go. 10,000 chunks of a byte each, in one go, take up to 9 ms of CPU."""

REQUEST_WITHIN: Final = 10.0
"""Seconds from the connection, or from a request's first byte, to the end of that request."""

TAKE_WITHIN: Final = 30.0
"""Seconds in which a client must take what its connection has buffered (64 KiB)."""

_KEEP_PATH: Final[Mapping[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""From Python 3.13 on, a server would remove its Unix socket, which here belongs to systemd."""

_HOST: Final = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*")
"""The bytes of a URI's host and port (RFC 3986, section 3.2)."""


class ClientConnection(HttpToolsProtocol):
    """uvicorn's protocol for one connection, with limits."""

    def __init__(self, *, table: Connections, pacer: Pacer, reads: ReadCount, **options: Any) -> None:
        super().__init__(app_state={"connection": self}, **options)
        self._table = table
        self._paced = PacedReader(pacer, super().data_received, slice_size=lambda: SLICE)
        self._reads = reads
        self._size = 0
        self._refusal: str | None = None
        self._refused = False
        # Those that are not complete, in the order of the requests:
        self._cycles: deque[RequestResponseCycle] = deque()
        self._request_deadline: asyncio.TimerHandle | None = None
        self._take_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request."""
        super().connection_made(transport)
        self._paced.connection_made(transport)
        self._expect_request()
        self._table.opened(self)

    def abort(self) -> None:
        """Close the connection now, and drop what is not yet sent."""
        self.transport.abort()

    def cut_off(self) -> bool:
        """Close the connection if the client has not taken all that was sent; return whether that is so."""
        if not self._cycles or not (self._cycles[0].response_started or self.flow.write_paused):
            return False
        self._cycles[0].disconnected = True  # or uvicorn would log that the response is not complete
        self.abort()
        return True

    @property
    def gone(self) -> bool:
        """Whether the client has closed the connection."""
        return self.transport.is_closing()

    def data_received(self, data: bytes) -> None:
        """Limit what arrives, and parse it in turn with what other clients send."""
        if self._refused or self.transport.is_closing():
            return
        self._size += len(data)
        if self._size > LARGEST_REQUEST:
            detail = f"a request is at most {LARGEST_REQUEST} bytes, head and body together"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
            return
        self._expect_request()
        self._paced.immediate = self._reads.increment() <= AT_ONCE
        self._paced.data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Respond to a client that sends nothing more after its requests, as ``nc -N`` does: uvicorn would close.

        Return whether the connection stays open. A client that has closed it looks the same, so a request that is not
        complete ends here, and so does a stream of events that has begun.
        """
        if not self._cycles or self._cycles[0].chunked_encoding or self._cycles[-1].more_body:
            return False
        self._cycles[-1].keep_alive = False
        return True

    def on_message_begin(self) -> None:
        """Begin a request, unless too many wait for their turn already."""
        if len(self.pipeline) >= REQUESTS_AHEAD:
            raise self._bad(f"more than {REQUESTS_AHEAD} requests were sent ahead of their responses")
        self._expect_request()  # the rest of a pipelined request has its own deadline
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, unless there are too many."""
        if len(self.headers) >= HEADERS:
            raise self._bad(f"a request has at most {HEADERS} header lines")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Require one valid Host header (RFC 9112, section 3.2) and a known transfer coding; start the response."""
        hosts = [value for name, value in self.headers if name == b"host"]
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings and codings != [b"chunked"]:
            raise self._bad("the only transfer coding of a request is chunked")
        if len(hosts) > 1 or (not hosts and self.parser.get_http_version() != "1.0"):
            raise self._bad(f"a request needs one Host header, this one has {len(hosts)}")
        if hosts and not _HOST.fullmatch(hosts[0]):
            raise self._bad("the Host header is not a host")
        super().on_headers_complete()
        self._cycles.append(self.cycle)

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser does not accept."""
        self._refuse(HTTPStatus.BAD_REQUEST, self._refusal or msg)

    def on_message_complete(self) -> None:
        """Reset the limits: the request is complete."""
        self._size = 0
        self._stop_request_deadline()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start the next response."""
        if self._cycles:
            self._cycles.popleft()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Give the client time to take what is buffered."""
        super().pause_writing()
        if self._take_deadline is None:
            self._take_deadline = self.loop.call_later(TAKE_WITHIN, self.abort)

    def resume_writing(self) -> None:
        """Stop the deadline: the client has taken enough."""
        self._stop_take_deadline()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the deadlines, and the response in progress: uvicorn stops only the one to the last request."""
        self._paced.discard()
        self._stop_request_deadline()
        self._stop_take_deadline()
        self._table.closed(self)
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def _bad(self, detail: str) -> Exception:
        """Return what a callback of the parser raises, so that `send_400_response` is called."""
        self._refusal = detail
        return ValueError(detail)

    def _expect_request(self) -> None:
        if self._request_deadline is None:
            self._request_deadline = self.loop.call_later(REQUEST_WITHIN, self._too_late)

    def _stop_request_deadline(self) -> None:
        if self._request_deadline is not None:
            self._request_deadline.cancel()
            self._request_deadline = None

    def _stop_take_deadline(self) -> None:
        if self._take_deadline is not None:
            self._take_deadline.cancel()
            self._take_deadline = None

    def _too_late(self) -> None:
        self._request_deadline = None
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the request was not complete within {REQUEST_WITHIN:g} s")

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Read no more requests. Respond, unless another response is in progress, and end the connection."""
        self._stop_request_deadline()
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._paced.discard()
        self.transport.resume_reading()  # what is still coming is dropped: unread, it would reset the connection
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False  # the last complete request is answered, then uvicorn closes
            return
        body = problem_body(status, detail)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {PROBLEM}\r\n"
            f"X-Content-Type-Options: nosniff\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        transport = self.transport
        transport.write(head.encode() + body)
        self.connection_lost(ConnectionAbortedError())
        Linger(transport, self._table)


class HttpServer(uvicorn.Server):
    """uvicorn's server, without its signal handlers (SIGTERM also has to end the monitor) and without its TLS."""

    def __init__(
        self, config: uvicorn.Config, table: Connections, tls: Callable[[], ssl.SSLContext] | None
    ) -> None:
        super().__init__(config)
        self._table = table
        self._tls = tls
        self._stopping = asyncio.Event()

    def stop(self, *, grace: float) -> None:
        """Return from `main_loop`, and cancel the requests that are in progress ``grace`` seconds later."""
        asyncio.get_running_loop().call_later(grace, self._cancel_requests)
        self.should_exit = True
        self._stopping.set()
        for client in self._table.idle:
            if not isinstance(client, ClientConnection):  # uvicorn does not know of an unfinished handshake
                client.abort()

    async def main_loop(self) -> None:
        """Have uvicorn update its Date header once a second, instead of waking up ten times."""
        tenths = 0
        while not await self.on_tick(tenths):
            tenths += 10
            with suppress(TimeoutError):
                async with asyncio.timeout(until_next(1.0)):
                    await self._stopping.wait()

    def _cancel_requests(self) -> None:
        for task in self.server_state.tasks:
            task.cancel()
        self.force_exit = True  # do not wait for clients that have not sent all of a request

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on ``sockets``."""
        loop, pacer, reads = asyncio.get_running_loop(), Pacer(), ReadCount()

        def plain() -> asyncio.Protocol:
            return ClientConnection(
                table=self._table,
                pacer=pacer,
                reads=reads,
                config=self.config,
                server_state=self.server_state,
                _loop=loop,
            )

        def encrypted() -> asyncio.Protocol:
            assert self._tls is not None
            return TlsProtocol(self._tls, plain, self._table, pacer)

        factory = encrypted if self._tls else plain
        backlog = self.config.backlog
        self.servers = []
        for listener in sockets or []:
            if listener.family == socket.AF_UNIX:
                server = await loop.create_unix_server(factory, sock=listener, backlog=backlog, **_KEEP_PATH)
            else:
                server = await loop.create_server(factory, sock=listener, backlog=backlog)
            self.servers.append(server)
        self.started = True
