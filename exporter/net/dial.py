"""Owns the way from a configured host and port to a connected socket, and the options that sockets get.

Held sockets must notice by themselves that the other end is gone: TCP keep-alive asks after 5 s of
silence, every 2 s, three times; unacknowledged data is given up after 11 s (Linux tcp(7)).
"""

import asyncio
import errno
import os
import resource
import socket
import ssl
import struct
import sys
import time
from dataclasses import dataclass
from typing import Final

from aiohappyeyeballs import start_connection

from exporter.check import Failure
from exporter.core.health import Reason
from exporter.net.failures import translated
from exporter.net.resolve import Resolver
from exporter.net.tls import TlsContexts, TlsOptions

KEEPALIVE_IDLE: Final = 5
KEEPALIVE_INTERVAL: Final = 2
KEEPALIVE_PROBES: Final = 3
VANISHED_AFTER: Final = 11.0
"""Seconds after which the kernel gives up a peer whose packets vanish."""

_SPARE_FILES: Final = 24
"""Descriptors that dialling leaves free: whatever there is too much of, /metrics has to go on answering."""

_STAGGER: Final = 0.25
"""Seconds before the next address is tried beside the first (RFC 8305, section 5)."""


@dataclass(frozen=True, slots=True)
class Link:
    """A connected, non-blocking socket, and how it came about. Durations are in seconds."""

    sock: socket.socket
    peer: str | None
    addresses: frozenset[str]
    resolve_seconds: float
    connect_seconds: float


class Network:
    """The way out for all checks of a process. Belongs to one event loop."""

    def __init__(self) -> None:
        self._resolver = Resolver()
        self._tls = TlsContexts()

    async def dial(self, host: str, port: int) -> Link:
        """Resolve ``host`` and connect to the first of its addresses that answers.

        Raises `Failure`. The caller owns the socket. A ``host`` that begins with ``/`` is a Unix socket.
        """
        _leave_room()
        if host.startswith("/"):
            return await _dial_unix(host)
        began = time.perf_counter()  # uvloop's own clock moves in milliseconds
        try:
            addresses = await self._resolver.resolve(host)
        except asyncio.CancelledError as cancelled:
            raise cancelled from Failure(Reason.DNS, f"{host}: the resolver does not answer")
        resolved = time.perf_counter()
        with translated(f"{host}:{port}"):
            try:
                sock = await start_connection(
                    [_address_info(address, port) for address in addresses],
                    happy_eyeballs_delay=_STAGGER,
                    interleave=1,
                )
            except asyncio.CancelledError as cancelled:
                silent = Failure(Reason.TIMEOUT, f"{host}:{port} does not answer a connect")
                raise cancelled from silent
            except OSError as error:
                if error.errno is None:  # several addresses, each with an error of its own
                    raise Failure(Reason.UNREACHABLE, f"{host}:{port}: {error}") from error
                raise
        try:
            if sock.getsockname() == sock.getpeername():
                _unmake(sock)
                raise Failure(Reason.REFUSED, f"{host}:{port}: connection refused")
            watch_peer(sock)
            peer = str(sock.getpeername()[0])
        except OSError as error:
            sock.close()
            raise Failure(Reason.RESET, f"{host}:{port}: reset while connecting") from error
        return Link(sock, peer, frozenset(addresses), resolved - began, time.perf_counter() - resolved)

    async def tls_context(self, options: TlsOptions) -> ssl.SSLContext:
        """Return the TLS context for ``options``, shared by all that ask for the same. Raises `Failure`."""
        return await self._tls.get(options)


def watch_peer(sock: socket.socket) -> None:
    """Let the kernel notice a vanished peer within `VANISHED_AFTER` seconds, and send at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(VANISHED_AFTER * 1000))


def _unmake(sock: socket.socket) -> None:
    """Close a socket that has connected to itself, by a reset: it leaves nothing behind.

    Where nobody listens on a local port of the range that clients get theirs from, one attempt in some thousands
    gets that very port, and TCP takes it for a simultaneous open (RFC 9293, section 3.5). Closed as usual, it would
    keep the port for a minute from the service that is waited for.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _leave_room() -> None:
    """Raise `Failure` (internal) where another connection would take one of the last descriptors."""
    with translated("this machine"), socket.socket() as lowest_free:  # the kernel gives the lowest number
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit != resource.RLIM_INFINITY and lowest_free.fileno() >= limit - _SPARE_FILES:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def _dial_unix(path: str) -> Link:
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with translated(path):
            await loop.sock_connect(sock, path)
    except BaseException:
        sock.close()
        raise
    return Link(sock, None, frozenset(), 0.0, time.perf_counter() - began)


def _address_info(
    address: str, port: int
) -> tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]:
    if ":" not in address:
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
    bare, _, scope = address.partition("%")
    scope_id = int(scope) if scope.isdigit() else socket.if_nametoindex(scope) if scope else 0
    return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (bare, port, 0, scope_id))
