"""Owns what the kernel's and OpenSSL's errors mean in our words: OSError and SSLError to Failure.

Kinds map their driver's own errors themselves, and come here for the rest.
"""

import errno
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from exporter.check import Failure
from exporter.core.health import Reason

REASONS: Final = frozenset(
    {
        Reason.DNS,
        Reason.REFUSED,
        Reason.UNREACHABLE,
        Reason.TIMEOUT,
        Reason.RESET,
        Reason.EOF,
        Reason.TLS,
        Reason.PERMISSION,
        Reason.PROTOCOL,
        Reason.IDLE_CLOSED,
        Reason.STALE,
        Reason.INTERNAL,
    }
)
"""The reasons that every kind which crosses a network can give."""

_BY_ERRNO: Final = {
    errno.ECONNREFUSED: Reason.REFUSED,
    errno.ENOENT: Reason.REFUSED,  # a Unix socket that is not there: nobody listens
    errno.ENETUNREACH: Reason.UNREACHABLE,
    errno.EHOSTUNREACH: Reason.UNREACHABLE,
    errno.EHOSTDOWN: Reason.UNREACHABLE,
    errno.ENETDOWN: Reason.UNREACHABLE,
    errno.EADDRNOTAVAIL: Reason.UNREACHABLE,
    errno.ETIMEDOUT: Reason.TIMEOUT,
    errno.ECONNRESET: Reason.RESET,
    errno.ECONNABORTED: Reason.RESET,
    errno.EPIPE: Reason.RESET,
    errno.ENOTCONN: Reason.RESET,
    errno.EACCES: Reason.PERMISSION,
    errno.EPERM: Reason.PERMISSION,
    errno.EMFILE: Reason.INTERNAL,
    errno.ENFILE: Reason.INTERNAL,
    errno.ENOMEM: Reason.INTERNAL,
    errno.ENOBUFS: Reason.INTERNAL,
}

_MENDS: Final = {
    errno.EMFILE: "the exporter has no file descriptors left: raise its limit (ulimit -n, LimitNOFILE=)",
    errno.ENFILE: "this machine has no file descriptors left: raise fs.file-max",
}

NO_THREADS: Final = "the exporter can start no thread: raise its limit (ulimit -u, TasksMax=, pids_limit)"


def failure_from(error: Exception, where: str) -> Failure | None:
    """Return what ``error`` means, said of ``where`` (host:port); ``None`` if it is not of this layer."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failure(Reason.TLS, f"{where}: the certificate is not accepted: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return Failure(Reason.TLS, f"{where}: TLS failed: {error.reason or error.strerror or error}")
    if isinstance(error, (EOFError, ssl.SSLEOFError)):
        return Failure(Reason.EOF, f"{where} closed the connection")
    if isinstance(error, OSError):
        return _from_os_error(error, where)
    return None


def _from_os_error(error: OSError, where: str) -> Failure | None:
    code = error.errno
    if code is None:
        # uvloop and asyncio raise a few without a number
        for kind, reason in (
            (ConnectionRefusedError, Reason.REFUSED),
            (ConnectionError, Reason.RESET),
            (TimeoutError, Reason.TIMEOUT),
        ):
            if isinstance(error, kind):
                return Failure(reason, f"{where}: {error or reason}")
        return None
    if code in _MENDS:
        return Failure(Reason.INTERNAL, _MENDS[code])
    if code not in _BY_ERRNO:
        return None
    return Failure(_BY_ERRNO[code], f"{where}: {os.strerror(code).lower()}")


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn OSError, SSLError and EOFError inside the block into `Failure`; let everything else pass."""
    try:
        yield
    except (OSError, EOFError) as error:
        failure = failure_from(error, where)
        if failure is None:
            raise
        raise failure from error
