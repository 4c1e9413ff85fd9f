"""Owns the listening sockets, bound first so that a busy port is one clear line, and the server on them."""

import asyncio
import socket
import ssl
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from exporter.publish.guard import Guard

_BACKLOG: Final = 1024
_GRACE: Final = 1
"""Seconds that requests under way get when the server stops."""
_KEEP_ALIVE: Final = 75
"""Seconds that a kept connection may be idle: more than a scrape interval, or Prometheus connects each time."""
_HANDSHAKE_WITHIN: Final = 5.0
_GONE_AFTER: Final = 30_000
"""Milliseconds after which a client that takes nothing of what it was sent is given up (RFC 5482)."""


class CannotListen(Exception):
    """An address that cannot be listened on; the message names it and the mend."""


def bind(addresses: Iterable[str]) -> list[socket.socket]:
    """Bind every ``host:port`` (``:port`` is every interface). Raises `CannotListen`, with none left open."""
    with ExitStack() as bound:
        sockets = [bound.enter_context(_bind(address)) for address in addresses]
        bound.pop_all()
        return sockets


def _bind(address: str) -> socket.socket:
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise CannotListen(f"{address!r} is not an address to listen on: write host:port or :port")
    family = socket.AF_INET6 if ":" in host or not host else socket.AF_INET
    if not host and not _ipv6():
        family = socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise CannotListen(f"cannot listen on {address}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _GONE_AFTER
        )  # connections inherit it
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(host)))
        listener.bind((host, int(port)))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CannotListen(
            f"cannot listen on {address}: {str(reason).lower()}; choose another by --web.listen-address"
        ) from error
    return listener


def _ipv6() -> bool:
    """Tell whether this machine has IPv6: where it has, one socket serves both."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class Server:
    """Serves an application on bound sockets until told to stop; with ``tls``, over that alone."""

    def __init__(
        self, app: ASGIApp, sockets: list[socket.socket], *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._sockets = sockets
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http=Guard,
                log_config=None,
                log_level="error",  # a warning for each garbled request would let anybody fill the disk
                access_log=False,
                lifespan="off",
                server_header=False,
                proxy_headers=False,  # nothing here depends on who the client is
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_GRACE,
                ws="none",
            ),
            tls,
        )

    @property
    def started(self) -> bool:
        """Whether connections are taken."""
        return self._server.started

    async def serve(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(self._sockets)

    def stop(self) -> None:
        """Take no more connections, let requests end, and return from `serve`."""
        self._server.stop()


class _Uvicorn(uvicorn.Server):
    """uvicorn, which leaves the signals to us (SIGTERM must end the monitor too, and exit 0) and TLS as well."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._tls = tls
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Return from `main_loop`."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Have uvicorn keep its Date header, each second: it looks ten times as often whether it is to stop.

        Waking up is what an idle process spends its CPU on, 0.1 ms each time.
        """
        tenths = 0
        while not await self.on_tick(tenths):
            tenths += 10
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._stopping.wait()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen: as uvicorn does, but with a limit on the time of a handshake, which asyncio puts at a minute."""
        loop = asyncio.get_running_loop()

        def connected() -> asyncio.Protocol:
            return Guard(config=self.config, server_state=self.server_state, app_state={}, _loop=loop)

        within = _HANDSHAKE_WITHIN if self._tls else None
        self.servers = [
            await loop.create_server(
                connected, sock=listener, ssl=self._tls, backlog=_BACKLOG, ssl_handshake_timeout=within
            )
            for listener in sockets or []
        ]
        self.started = True
