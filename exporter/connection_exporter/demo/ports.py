"""Reserves ports of 127.0.0.1 for servers that keep theirs over restarts."""

import contextlib
import random
import socket


def reserve_port() -> socket.socket:
    """Return a socket that is bound to a free port of 127.0.0.1, and keeps others from choosing that port.

    A server can listen on the port meanwhile: Linux allows two sockets with SO_REUSEADDR on one port as long as only
    one of them listens (socket(7)). The port is not from the range that the kernel gives to outgoing connections (port
    0 is): while the server is down, a client that keeps trying would sooner or later get that port as its own, and
    would connect to itself. Raises OSError if no port is free.
    """
    for port in random.sample(range(20000, 32000), 200):
        reserved = socket.socket()
        try:
            reserved.bind(("127.0.0.1", port))  # without SO_REUSEADDR, which would share another reservation
        except OSError:
            reserved.close()
            continue
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return reserved
    raise OSError("no free port between 20000 and 32000")


def free_port() -> int:
    """Return a port of 127.0.0.1 that is neither used nor reserved now."""
    with reserve_port() as reserved:
        port: int = reserved.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Return whether a server could listen on ``port`` of 127.0.0.1 now."""
    with socket.socket() as attempt, contextlib.suppress(OSError):
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is free
        attempt.bind(("127.0.0.1", port))
        return True
    return False
