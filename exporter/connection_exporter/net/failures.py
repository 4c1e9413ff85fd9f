"""Owns what the errors of the kernel and of OpenSSL mean: turns OSError and SSLError into `Failure`.

Each kind maps its driver's own errors, and uses this module for the rest.
"""

import errno
import os
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure

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
"""The reasons that every kind over a network can report."""

_BY_ERRNO: Final = {
    errno.ECONNREFUSED: Reason.REFUSED,
    errno.ENOENT: Reason.REFUSED,  # the Unix socket does not exist: nobody listens
    errno.ETIMEDOUT: Reason.TIMEOUT,
    errno.EAGAIN: Reason.TIMEOUT,  # the queue of a Unix socket is full: the server accepts nothing
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
"""Every other error is `unreachable`: the kernel has more of them than a list can hold."""

_MOST_INFORMATIVE: Final = (
    *(Reason.REFUSED, Reason.RESET, Reason.TIMEOUT, Reason.PERMISSION, Reason.UNREACHABLE, Reason.INTERNAL),
)
"""From what shows that the host is there, to what shows that we have no way to it (a machine without IPv6)."""

_FIXES: Final = {
    errno.EMFILE: "the exporter has no file descriptors left: raise its limit (ulimit -n, LimitNOFILE=)",
    errno.ENFILE: "this machine has no file descriptors left: raise fs.file-max",
}

NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
"""OpenSSL's reasons where the first bytes from the server are not of TLS."""

NO_THREADS: Final = "the exporter can start no thread: raise its limit (ulimit -u, TasksMax=, pids_limit)"


def failure_from(error: Exception, where: str) -> Failure | None:
    """Return what ``error`` means for ``where`` (host:port), or ``None`` if it is no error of this layer."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failure(Reason.TLS, f"{where}: the certificate is not accepted: {error.verify_message}")
    if isinstance(error, (EOFError, ssl.SSLEOFError)):
        return Failure(Reason.EOF, f"{where} closed the connection")
    if isinstance(error, ssl.SSLError):
        return Failure(Reason.TLS, f"{where}: TLS failed: {_openssl_text(error)}")
    if isinstance(error, OSError):
        return _from_os_error(error, where)
    return None


def _openssl_text(error: ssl.SSLError) -> str:
    """Return OpenSSL's text, which Python writes in capitals: the server's alert, if it has sent one."""
    text = error.reason.lower().replace("_", " ") if error.reason else str(error.strerror or error)
    return f"{text}: what it sent is not TLS" if error.reason in NO_TLS else text


def most_informative(errors: Sequence[OSError], where: str) -> Failure:
    """Return what several failed attempts to connect to the addresses of one name mean."""
    failures = [_from_os_error(error, where) for error in errors]
    return min(failures, key=lambda failure: _MOST_INFORMATIVE.index(failure.reason))


def _from_os_error(error: OSError, where: str) -> Failure:
    code = error.errno
    if code in _FIXES:
        return Failure(Reason.INTERNAL, _FIXES[code])
    if code is not None:
        text = os.strerror(code).lower() if code > 0 else str(error.strerror or error)
        return Failure(_BY_ERRNO.get(code, Reason.UNREACHABLE), f"{where}: {text}")
    for kind, reason in _WITHOUT_NUMBER:
        if isinstance(error, kind):
            return Failure(reason, f"{where}: {error or reason}")
    return Failure(Reason.UNREACHABLE, f"{where}: {error or type(error).__name__}")


_WITHOUT_NUMBER: Final = (  # uvloop and asyncio raise some errors without a number
    (ConnectionRefusedError, Reason.REFUSED),
    (ConnectionError, Reason.RESET),
    (TimeoutError, Reason.TIMEOUT),
)


class translated:  # noqa: N801 - a context manager, named as those of contextlib are
    """Turn OSError, SSLError and EOFError inside the block into `Failure`; everything else passes through."""

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise the `Failure`."""
        if isinstance(error, (OSError, EOFError)):
            failure = failure_from(error, self._where)
            assert failure is not None
            raise failure from error
