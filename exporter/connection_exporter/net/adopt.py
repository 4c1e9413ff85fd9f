"""Owns the step from a connected socket to an asyncio protocol on it, with TLS if it is configured."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Final, TypeVar

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net.client_tls import ClientTls
from connection_exporter.net.dial import Link
from connection_exporter.net.failures import failure_from, translated
from connection_exporter.net.pacing import PacedProtocol, Pacer, raw_transport
from connection_exporter.net.resumption import Resumption

_P = TypeVar("_P", bound=asyncio.Protocol)
_CLOSED: Final = "closed the connection in the TLS handshake"


class Secured:
    """TLS to a server. ``server_name`` is used for SNI and for the check of the certificate, ``where`` in messages.

    As a context manager, it turns every error of a handshake inside the block into `Failure`; a cancellation gets one
    as its cause.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        server_name: str,
        where: str,
        pacer: Pacer,
        resumption: Resumption | None = None,
    ) -> None:
        self._context = context
        self._server_name = server_name
        self._where = where
        self._pacer = pacer
        self._resumption = resumption

    def around(self, protocol: asyncio.Protocol) -> ClientTls:
        """Return the TLS of one connection, with ``protocol`` inside. Raises ValueError for the name."""
        return ClientTls(self._context, self._server_name, protocol, self._pacer, self._resumption)

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise the `Failure`, and resume no session after it: it may be what the server objects to."""
        if error is None:
            return
        if self._resumption is not None:
            self._resumption.forget()
        if isinstance(error, asyncio.CancelledError):
            late = f"{self._where} does not answer in the TLS handshake"
            error.__cause__ = Failure(Reason.TIMEOUT, late)
        elif (failure := self._failure(error)) is not None:
            raise failure from error

    def _failure(self, error: BaseException) -> Failure | None:
        if _is_clean_close(error):
            return Failure(Reason.EOF, f"{self._where} {_CLOSED}")
        if isinstance(error, (OSError, EOFError)):
            return failure_from(error, self._where)
        if isinstance(error, ValueError):  # the server name is too long or not ASCII
            text = f"{self._where}: {self._server_name!r} is not a valid server name for TLS: {error}"
            return Failure(Reason.TLS, text)
        return None


async def adopt(
    link: Link, factory: Callable[[], _P], *, where: str, secured: Secured | None
) -> tuple[asyncio.Transport, _P]:
    """Put the protocol that ``factory`` returns on the socket of ``link``, with TLS if ``secured``.

    The socket belongs to the transport from then on. ``where`` names the service in messages. Raises `Failure`, with
    the socket closed.
    """
    loop = asyncio.get_running_loop()
    connect = loop.create_unix_connection if link.peer is None else loop.create_connection
    identity = _identity(link.sock)
    protocol = factory()
    transport: asyncio.Transport | None = None
    try:
        with secured or translated(where):
            tls = secured.around(protocol) if secured is not None else None
            made, _ = await connect(lambda: tls or protocol, sock=link.sock)
            transport = raw_transport(made)
            if tls is not None:
                await tls.handshake(transport, is_new=True)
    except BaseException:
        if transport is not None:
            transport.abort()
        else:
            _close(link.sock, identity)
        if isinstance(protocol, PacedProtocol):
            protocol.discard()  # uvloop closes a transport whose making is cancelled, and does not tell the protocol
        raise
    if transport.is_closing() and _identity(link.sock) != identity:
        _close(link.sock, identity)
    return tls or transport, protocol


async def hand_over(
    transport: asyncio.Transport, factory: Callable[[], _P], secured: Secured | None
) -> tuple[asyncio.Transport, _P]:
    """Put the protocol that ``factory`` returns on a connection that had another one, with TLS inside if ``secured``.

    Raises `Failure`; the caller then closes the connection.
    """
    protocol = factory()
    if secured is None:
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return transport, protocol
    with secured:
        tls = secured.around(protocol)
        transport.set_protocol(tls)
        tls.connection_made(transport)
        await tls.handshake(transport, is_new=True)
    return tls, protocol


async def start_tls(
    transport: asyncio.Transport, protocol: asyncio.Protocol, secured: Secured
) -> asyncio.Transport:
    """Set up TLS on a connection that began in plain text (STARTTLS). Return the transport to use from then on.

    Raises `Failure`; the caller then closes the connection.
    """
    with secured:
        tls = secured.around(protocol)
        transport.set_protocol(tls)
        tls.connection_made(transport)
        await tls.handshake(transport, is_new=False)
    return tls


def _identity(sock: socket.socket) -> tuple[int, int] | None:
    """Return device and inode of a socket, which a later socket with the same descriptor does not share.

    ``None`` if the socket is closed.
    """
    try:
        status = os.fstat(sock.fileno())
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _close(sock: socket.socket, identity: tuple[int, int] | None) -> None:
    """Close ``sock``, unless its descriptor has been closed already.

    If a connection ends while its transport is being created, uvloop closes the descriptor, but ``sock`` may keep it.
    By the time ``sock`` is closed or garbage-collected, the descriptor may belong to another connection, which would be
    closed instead.
    """
    if _identity(sock) == identity:
        sock.close()
    else:
        sock.detach()


def _is_clean_close(error: BaseException | None) -> bool:
    """Return whether the server closed cleanly: asyncio then raises a ConnectionResetError without an error number."""
    return isinstance(error, ConnectionResetError) and error.errno is None
