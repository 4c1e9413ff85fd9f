"""Owns the choice of a free port for a server that keeps it over restarts."""

import contextlib
import random
import socket


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses, and that no outgoing connection will get.

    The kernel's own choice (port 0) is from the range it also gives to outgoing connections. While the
    server is down, a client that tries again and again would in the end get the server's own port, and
    find itself connected to itself.
    """
    for port in random.sample(range(20000, 32000), 200):
        if is_free(port):
            return port
    raise OSError("no free port between 20000 and 32000")


def is_free(port: int) -> bool:
    """Tell whether a server could listen on ``port`` of 127.0.0.1 now."""
    with socket.socket() as attempt, contextlib.suppress(OSError):
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is free
        attempt.bind(("127.0.0.1", port))
        return True
    return False
