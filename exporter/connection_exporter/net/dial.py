"""Owns the way from a configured host and port to a connected socket, and the options of that socket.

The kernel must notice a peer that vanishes while the session is idle: TCP keep-alive probes start after 5 s of silence
and are sent three times, every 2 s. Unacknowledged data ends the connection after 11 s (Linux tcp(7)).
"""

import asyncio
import copy
import errno
import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Sequence
from typing import Final, NamedTuple, cast

from aiohappyeyeballs import start_connection

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net.certificate import Certificate
from connection_exporter.net.failures import most_informative, translated
from connection_exporter.net.names import IpVersion, host_and_port
from connection_exporter.net.pacing import Pacer
from connection_exporter.net.resolve import Resolver, literal, with_scope
from connection_exporter.net.tls import TlsContexts
from connection_exporter.net.tls_options import TlsOptions
from connection_exporter.system.descriptors import require_free_files, require_spare

KEEPALIVE_IDLE: Final = 5
KEEPALIVE_INTERVAL: Final = 2
KEEPALIVE_PROBES: Final = 3
VANISHED_AFTER: Final = 11.0
"""Seconds after which the kernel gives up on a peer whose packets vanish."""

_OF_LINUX: Final = (
    (
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(VANISHED_AFTER * 1000)),
    )
    if sys.platform == "linux"
    else ()
)
_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),  # small requests are sent at once
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *_OF_LINUX,
)

_STAGGER: Final = 0.25
"""Seconds before the next address is tried beside the first (RFC 8305, section 5)."""


class Handshake(NamedTuple):
    """How long a TLS handshake took, in seconds, what was negotiated, and the certificate that expires first."""

    seconds: float
    version: str | None
    cipher: str | None
    certificate: Certificate | None


class Link(NamedTuple):
    """A connected, non-blocking socket, and how it was made. Durations are in seconds.

    ``peer`` is the IP address at the other end, ``None`` for a Unix socket. ``addresses`` are all addresses that the
    name resolved to. ``tls`` is ``None`` without TLS; `Endpoint` fills it in.
    """

    sock: socket.socket
    peer: str | None
    addresses: frozenset[str]
    resolve_seconds: float
    connect_seconds: float
    tls: Handshake | None = None


class Network:
    """Makes the connections of all checks of a process. Belongs to one event loop."""

    def __init__(self) -> None:
        self._resolver = Resolver()
        self._tls = TlsContexts()
        self.ip_version: IpVersion = "any"
        self.pacer = Pacer()  # one for all services, so that many floods together take no more CPU than one

    def with_ip_version(self, ip_version: IpVersion) -> "Network":
        """Return this network restricted to addresses of one version; everything else is shared."""
        if ip_version == self.ip_version:
            return self
        network = copy.copy(self)
        network.ip_version = ip_version
        return network

    async def dial(self, host: str, port: int) -> Link:
        """Resolve ``host`` and connect to the first of its addresses that answers.

        Raises `Failure`. The caller owns the socket. A ``host`` that begins with ``/`` is a Unix socket.
        """
        if host.startswith("/"):
            return await _dial_unix(host)
        began = time.perf_counter()  # uvloop's own clock moves in milliseconds
        addresses = literal(host, self.ip_version) or await self._look_up(host)
        resolved, where = time.perf_counter(), host_and_port(host, port)
        sock = await _connect_to_any(addresses, port, where)
        try:
            other_end = sock.getpeername()
            if sock.getsockname() == other_end:
                _reset(sock)
                raise Failure(Reason.REFUSED, f"{where}: connection refused")
            for option in _OPTIONS:
                sock.setsockopt(*option)
            peer = _canonical(with_scope(other_end))
        except OSError as error:
            sock.close()
            raise Failure(Reason.RESET, f"{where}: reset while connecting") from error
        seconds = time.perf_counter() - resolved
        return Link(sock, peer, frozenset(map(_canonical, addresses)), resolved - began, seconds)

    async def tls_context(self, options: TlsOptions) -> ssl.SSLContext:
        """Return the TLS context for ``options``, shared by all services with equal options. Raises `Failure`."""
        return await self._tls.get(options)

    async def _look_up(self, host: str) -> tuple[str, ...]:
        """Return the addresses of a name. Raises `Failure`."""
        with translated("this machine"):
            require_free_files()  # otherwise the look-up would fail, and the resolver be blamed
        try:
            return await self._resolver.resolve(host, self.ip_version)
        except asyncio.CancelledError as cancelled:
            raise cancelled from Failure(Reason.DNS, f"{host}: the resolver does not answer")


class _Connector:
    """The event loop, as far as aiohappyeyeballs uses it: connects sockets, and keeps the error of each attempt.

    When several attempts fail with different errors, aiohappyeyeballs raises one without a number.
    """

    def __init__(self) -> None:
        self.errors: list[OSError] = []

    async def sock_connect(self, sock: socket.socket, address: tuple[object, ...]) -> None:
        try:
            await _connect(sock, address)
        except OSError as error:
            self.errors.append(error)
            raise


async def _connect_to_any(addresses: Sequence[str], port: int, where: str) -> socket.socket:
    """Connect to the first address that answers. Raises `Failure`, with the most informative of several errors.

    If it is cancelled while some addresses have failed and others do not answer, the cause is chosen in the same way.
    """
    connector = _Connector()
    try:
        candidates = [_address_info(address, port) for address in addresses]
        if len(candidates) == 1:  # saves 70 of 400 opcodes
            family, kind, protocol, _, sockaddr = candidates[0]
            return await _connected(socket.socket(family, kind, protocol), sockaddr)
        return await start_connection(
            candidates,
            happy_eyeballs_delay=_STAGGER,
            interleave=1,
            loop=cast("asyncio.AbstractEventLoop", connector),
        )
    except OSError as error:
        raise most_informative([*connector.errors, error], where) from error
    except asyncio.CancelledError as cancelled:
        silent = TimeoutError(errno.ETIMEDOUT, "")
        failure = most_informative([*connector.errors, silent], where)
        if failure.reason is Reason.TIMEOUT:
            failure = Failure(Reason.TIMEOUT, f"{where} does not answer a connection attempt")
        raise cancelled from failure


async def _connected(sock: socket.socket, address: tuple[object, ...] | str) -> socket.socket:
    """Connect a new socket to ``address`` and return it. Raises OSError, with the socket closed."""
    try:
        sock.setblocking(False)
        await _connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(sock: socket.socket, address: tuple[object, ...] | str) -> None:
    """Connect a non-blocking socket, as `loop.sock_connect` does, unless it has one of the last descriptors.

    uvloop's drops the scope of an IPv6 address. And asyncio takes EAGAIN, with which the kernel reports that the
    queue of a Unix socket is full (unix(7)), for a connection that will be made.
    """
    require_spare(sock.fileno())
    error = sock.connect_ex(address)
    if error in (errno.EINPROGRESS, errno.EINTR):
        loop = asyncio.get_running_loop()
        writable = loop.create_future()
        loop.add_writer(sock, _complete, writable)
        try:
            await writable
        finally:
            loop.remove_writer(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


def _complete(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _reset(sock: socket.socket) -> None:
    """Close a socket that has connected to itself, with a reset, which leaves nothing behind.

    If nobody listens on a local port of the ephemeral range, one attempt in some thousands gets that very port as its
    own, and TCP treats this as a simultaneous open (RFC 9293, section 3.5). A normal close would block the port for a
    minute, and with it the service that is expected there.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def _dial_unix(path: str) -> Link:
    began = time.perf_counter()
    with translated(path):
        sock = await _connected(socket.socket(socket.AF_UNIX), path)
    return Link(sock, None, frozenset(), 0.0, time.perf_counter() - began)


def _address_info(
    address: str, port: int
) -> tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]:
    if ":" not in address:
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
    bare, _, scope = address.partition("%")
    sockaddr = (bare, port, 0, _scope_id(scope))
    return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", sockaddr)


def _scope_id(scope: str) -> int:
    """Return the number of an interface, which represents it in a socket address; 0 for no scope. Raises OSError."""
    if scope.isascii() and scope.isdigit() and int(scope) < 2**32:
        return int(scope)
    return socket.if_nametoindex(scope) if scope else 0


def _canonical(address: str) -> str:
    """Return ``address`` in its one canonical form, so that the peer compares equal to a configured address."""
    if ":" not in address:
        return address  # of IPv4, which `to_ascii` and the resolver give in this form
    bare, _, scope = address.partition("%")
    canonical = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, bare))
    return f"{canonical}%{_scope_id(scope)}" if scope else canonical
