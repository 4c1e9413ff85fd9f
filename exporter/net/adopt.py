"""Owns the step from a connected socket to a protocol on it, with TLS between them where it is asked for."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from typing import Final, TypeVar

from exporter.check import Failure
from exporter.core.health import Reason
from exporter.net.dial import Link
from exporter.net.failures import translated

_P = TypeVar("_P", bound=asyncio.Protocol)
_SILENT: Final = "does not answer in the TLS handshake"


async def adopt(
    link: Link, factory: Callable[[], _P], *, tls: ssl.SSLContext | None, server_name: str, where: str
) -> tuple[asyncio.Transport, _P]:
    """Put the protocol that ``factory`` makes on the socket of ``link``, which is its own from then on.

    ``server_name`` is asked for and checked where ``tls`` is given; ``where`` names the service in messages.
    Raises `Failure`, and closes the socket then.
    """
    loop = asyncio.get_running_loop()
    connect = loop.create_unix_connection if link.peer is None else loop.create_connection
    name = server_name if tls is not None else None
    identity = _identity(link.sock)
    try:
        with translated(where):
            transport, protocol = await connect(factory, sock=link.sock, ssl=tls, server_hostname=name)
    except asyncio.CancelledError as cancelled:
        _close(link.sock, identity)
        raise cancelled from Failure(Reason.TIMEOUT, f"{where} {_SILENT}")
    except ValueError as error:  # of a server_name that cannot be one
        _close(link.sock, identity)
        raise Failure(Reason.TLS, f"{where}: TLS cannot ask for {name!r}: {error}") from error
    except Failure as failure:
        _close(link.sock, identity)
        if failure.reason is Reason.RESET and _closed(failure.__cause__):
            raise Failure(Reason.EOF, f"{where} closed the connection in the TLS handshake") from failure
        raise
    except BaseException:
        _close(link.sock, identity)
        raise
    if transport.is_closing() and _identity(link.sock) != identity:
        _close(link.sock, identity)
    return transport, protocol


def _identity(sock: socket.socket) -> tuple[int, int] | None:
    """Return what tells a socket from whatever gets its number after it; ``None`` once it is closed."""
    try:
        status = os.fstat(sock.fileno())
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _close(sock: socket.socket, identity: tuple[int, int] | None) -> None:
    """Close ``sock``, unless its descriptor has been closed already.

    When a connection ends while it is being made, uvloop closes the descriptor and may let the socket believe
    that it still has it. The socket would close the number again, if only when it is collected, and with it
    the connection of somebody else who got that number meanwhile.
    """
    if _identity(sock) == identity:
        sock.close()
    else:
        sock.detach()


def _closed(error: BaseException | None) -> bool:
    """Tell a clean close, for which asyncio invents a ConnectionResetError, from the kernel's own."""
    return isinstance(error, ConnectionResetError) and error.errno is None
