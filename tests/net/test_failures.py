"""What the errors of the kernel mean: every one of them is a reason, and none is a fault of the exporter."""

import errno
import os
import ssl

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.net.failures import failure_from, most_informative

OWN_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


@pytest.mark.parametrize("code", sorted(set(errno.errorcode) - OWN_SHORTAGES))
def test_an_error_of_the_kernel_is_never_internal(code: int) -> None:
    """An error that no table lists is `unreachable`, with its text."""
    failure = failure_from(OSError(code, os.strerror(code)), "host:1")
    assert failure is not None
    assert failure.reason not in (Reason.INTERNAL, None)
    assert failure.message == f"host:1: {os.strerror(code).lower()}"


@pytest.mark.parametrize("code", sorted(OWN_SHORTAGES))
def test_a_shortage_on_this_machine_is_internal(code: int) -> None:
    """No file descriptor, no memory: this says nothing about the service."""
    failure = failure_from(OSError(code, os.strerror(code)), "host:1")
    assert failure is not None
    assert failure.reason is Reason.INTERNAL


def test_an_error_without_a_number_keeps_its_text() -> None:
    """Python and the event loops raise a few of these."""
    failure = failure_from(OSError("no interface with this name"), "host:1")
    assert failure is not None
    assert (failure.reason, failure.message) == (Reason.UNREACHABLE, "host:1: no interface with this name")


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"-ERR unknown command\r\n",
        b"220 mail.example.com ESMTP\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"J\0\0\0\n8.0.36\0",
    ],
)
def test_a_server_without_tls_is_named_as_one(first: bytes) -> None:
    """OpenSSL says "wrong version number", which sends people looking for versions of TLS."""
    context = ssl.create_default_context()
    incoming = ssl.MemoryBIO()
    client = context.wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="host")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    incoming.write(first)
    with pytest.raises(ssl.SSLError) as raised:
        client.do_handshake()
    failure = failure_from(raised.value, "host:1")
    assert failure is not None
    assert failure.reason is Reason.TLS
    assert failure.message.endswith(": what it sent is not TLS")


def test_an_exception_of_another_kind_is_left_to_the_caller() -> None:
    """It may be a bug of ours, and must not look like a fault of the service."""
    assert failure_from(KeyError("x"), "host:1") is None


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ((errno.ENETUNREACH, errno.ECONNREFUSED), Reason.REFUSED),
        ((errno.ECONNREFUSED, errno.EAFNOSUPPORT), Reason.REFUSED),
        ((errno.ENETUNREACH, errno.ETIMEDOUT), Reason.TIMEOUT),
        ((errno.EHOSTUNREACH, errno.EINVAL), Reason.UNREACHABLE),
        ((errno.EMFILE, errno.EHOSTUNREACH), Reason.UNREACHABLE),
    ],
)
def test_the_most_informative_of_several_errors_counts(codes: tuple[int, int], reason: Reason) -> None:
    """A host that refuses is there; a network that is unreachable often only means that there is no IPv6 here."""
    for order in (codes, codes[::-1]):
        assert most_informative([OSError(code, "") for code in order], "host:1").reason is reason
