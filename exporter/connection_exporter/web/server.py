"""Owns the listening sockets, which are bound first so that a port in use gives one clear line, and the server."""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from http import HTTPStatus
from typing import Final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from connection_exporter.web.connection import ClientConnection, HttpServer
from connection_exporter.web.limits import Connections
from connection_exporter.web.responses import problem
from connection_exporter.web.routes import HEALTH_PATHS

_ADDRESS: Final = r"(?a)(?:\[(?P<ipv6>[^\[\]/]*)\]|(?P<name>[^\[\]/@\s]*)):(?P<port>\d{1,9})"
_HIGHEST_PORT: Final = 65535
_BACKLOG: Final = 1024
_GRACE: Final = 1
"""Seconds that requests in progress get when the server stops."""
_CLOSE: Final = {"Connection": "close", "Retry-After": "1"}
_KEEP_ALIVE: Final = 75
"""Seconds that a connection may be idle: more than a scrape interval, or Prometheus would connect each time."""
_GONE_AFTER: Final = 30_000
"""Milliseconds without an acknowledgement from the client after which the kernel ends the connection (RFC 5482)."""
_SEND_BUFFER: Final = 128 * 1024
"""Bytes that the kernel buffers for each client, doubled (socket(7)). By itself it buffers up to 4 MiB, which counts
towards the memory limit of a container or a unit."""


class CannotListen(Exception):
    """An address that cannot be listened on; the message names it and says what to do."""


def bind(addresses: Iterable[str]) -> list[socket.socket]:
    """Bind every ``host:port``. As in Go, ``:port`` and ``[::]:port`` accept IPv4 too.

    Raises `CannotListen`, and then leaves no socket open.
    """
    with ExitStack() as bound:
        sockets = [bound.enter_context(_bind(address)) for address in addresses]
        bound.pop_all()
        return sockets


def parse_address(address: str) -> tuple[str, int]:
    """Return the host and the port of ``host:port``. Raises `CannotListen`."""
    found = re.fullmatch(_ADDRESS, address)
    if found is None or int(found["port"]) > _HIGHEST_PORT:
        wanted = f"write host:port or :port, with a port up to {_HIGHEST_PORT}"
        raise CannotListen(f"{address!r} is not an address to listen on: {wanted}")
    return found["ipv6"] or found["name"] or "", int(found["port"])


def _bind(address: str) -> socket.socket:
    host, port = parse_address(address)
    family = socket.AF_INET6 if ":" in host or not host else socket.AF_INET
    if not host and not _ipv6():
        family = socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise CannotListen(f"cannot listen on {address}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        limit_clients(listener)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host not in ("", "::")))
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CannotListen(
            f"cannot listen on {address}: {str(reason).lower()}; choose another by --web.listen-address"
        ) from error
    return listener


def limit_clients(listener: socket.socket) -> None:
    """Limit the kernel's patience and memory for each client: connections inherit these options. Raises OSError."""
    if listener.family != socket.AF_UNIX:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _GONE_AFTER)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)


def _ipv6() -> bool:
    """Return whether this machine has IPv6; if so, one socket serves both families."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class WebServer:
    """Serves an application on bound sockets until it is stopped; with ``tls``, over TLS only.

    ``tls`` returns the context for the next connection.
    """

    def __init__(
        self,
        app: ASGIApp,
        sockets: list[socket.socket],
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._sockets = sockets
        self._app = app
        self._connections = Connections()
        config = uvicorn.Config(
            self._limited,
            interface="asgi3",
            http=ClientConnection,
            log_config=None,
            log_level="error",  # a warning for each garbled request would let anybody fill the disk
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,  # nothing here depends on who the client is
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=2 * _GRACE,  # by then all requests have been cancelled
            backlog=_BACKLOG,
            ws="none",
        )
        self._server = HttpServer(config, self._connections, tls)

    @property
    def started(self) -> bool:
        """Whether connections are accepted."""
        return self._server.started

    async def serve(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(self._sockets)

    def stop(self) -> None:
        """Accept no more connections, let requests end, and return from `serve`."""
        self._server.stop(grace=_GRACE)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond, unless the last connections are needed for health routes."""
        connection = scope["state"]["connection"]
        app = self._app
        if not self._connections.begin(connection, health=scope["path"] in HEALTH_PATHS):
            detail = "as many clients are being served as the limits allow"
            app = problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, _CLOSE)
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:  # the grace of a stop is over
            if not connection.cut_off():
                stopping = problem(HTTPStatus.SERVICE_UNAVAILABLE, "the exporter is stopping", _CLOSE)
                await stopping(scope, receive, send)
        finally:
            self._connections.end(connection)
