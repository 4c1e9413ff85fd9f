"""Takes over listening sockets that systemd has opened (socket activation, sd_listen_fds(3)).

systemd keeps the sockets during a restart of the exporter, so that no client is refused, and can open a port below
1024 for a service without privileges.
"""

import os
import socket
from collections.abc import MutableMapping
from contextlib import ExitStack
from typing import Final

from connection_exporter.web.server import CannotListen, limit_clients

_FIRST: Final = 3  # SD_LISTEN_FDS_START
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def inherited(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """Return the sockets that systemd has passed, and remove its variables, which are not for our children.

    Raises `CannotListen` if there are none, or if one of them is not a listening stream socket.
    """
    pid, count = environ.get("LISTEN_PID", ""), environ.get("LISTEN_FDS", "")
    for variable in _VARIABLES:
        environ.pop(variable, None)
    if not (count.isascii() and count.isdigit() and int(count)):
        raise CannotListen(
            "--web.systemd-socket: systemd has passed no socket: start the service by its .socket unit, or leave the "
            "flag out"
        )
    if pid != str(os.getpid()):
        raise CannotListen(
            f"--web.systemd-socket: the sockets are for process {pid[:20] or '(none)'}, and this is {os.getpid()}: "
            "run the exporter without a shell in between, or write exec"
        )
    with ExitStack() as taken:
        sockets = [taken.enter_context(_take(_FIRST + number)) for number in range(int(count))]
        taken.pop_all()
        return sockets


def _take(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
    except OSError as error:
        raise CannotListen(f"--web.systemd-socket: descriptor {descriptor}: {error.strerror}") from error
    if not _listens(listener):
        listener.close()
        raise CannotListen(
            f"--web.systemd-socket: descriptor {descriptor} is not a listening stream socket: write ListenStream= and "
            "Accept=no in the .socket unit"
        )
    listener.setblocking(False)
    limit_clients(listener)
    return listener


def _listens(listener: socket.socket) -> bool:
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    try:
        accepts = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        return False
    return bool(accepts) and listener.family in families and listener.type == socket.SOCK_STREAM
