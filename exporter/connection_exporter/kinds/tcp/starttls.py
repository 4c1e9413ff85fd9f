"""Owns how a connection that began in plain text changes to TLS, in the words of each protocol.

smtp: RFC 3207. imap: RFC 9051, section 6.2.1. pop3: RFC 2595, section 4. postgresql: SSLRequest, section "Message
Flow" of its documentation.
"""

from collections.abc import Sequence
from typing import Final

from connection_exporter.config.patterns import CompiledPattern
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.tcp.connection import TcpConnection
from connection_exporter.kinds.tcp.dialogue import AnyByte, Exchange, Expected, Line, text_of

_SSL_REQUEST: Final = bytes.fromhex("00 00 00 08 04 d2 16 2f")

Talk = tuple[bytes, Expected, bytes]
"""What is sent, what ends the answer, and how it begins if it is good."""


def _smtp(own_address: str) -> Sequence[Talk]:
    end_of_reply = Line(CompiledPattern("^[0-9]{3}( |$)"))
    place = f"[IPv6:{own_address}]" if ":" in own_address else f"[{own_address}]"
    return (
        (b"", end_of_reply, b"220"),
        (f"EHLO {place}\r\n".encode(), end_of_reply, b"250"),
        (b"STARTTLS\r\n", end_of_reply, b"220"),
    )


def _imap(_: str) -> Sequence[Talk]:
    greeting = Line(CompiledPattern(r"^\* (OK|PREAUTH|BYE)"))
    return (
        (b"", greeting, b"* OK"),
        (b"a STARTTLS\r\n", Line(CompiledPattern("^a (OK|NO|BAD)")), b"a OK"),
    )


def _pop3(_: str) -> Sequence[Talk]:
    status = Line(CompiledPattern(r"^(\+OK|-ERR)"))
    return (b"", status, b"+OK"), (b"STLS\r\n", status, b"+OK")


def _postgresql(_: str) -> Sequence[Talk]:
    return ((_SSL_REQUEST, AnyByte(), b"S"),)


_PROTOCOLS: Final = {"smtp": _smtp, "imap": _imap, "pop3": _pop3, "postgresql": _postgresql}


async def request_tls(protocol: str, connection: TcpConnection, where: str, *, within: float) -> None:
    """Ask for TLS in the words of ``protocol``. Raises `Failure`; afterwards the server expects the handshake.

    ``within`` is in seconds, for each answer.
    """
    sockname = connection.transport.get_extra_info("sockname")
    own_address = str(sockname[0]).partition("%")[0] if isinstance(sockname, tuple) else "127.0.0.1"
    for send, expect, good in _PROTOCOLS[protocol](own_address):
        answer = await connection.exchange(Exchange(send, expect, within))
        if not answer.startswith(good):
            what = "the request for TLS" if send else "a connection"
            raise Failure(Reason.TLS, f"{where} answers {what} with {text_of(answer)!r}")
    if connection.has_more:  # anyone who is in between could otherwise add answers to the encrypted dialogue
        raise Failure(Reason.PROTOCOL, f"{where} sends more before the TLS handshake")  # (CVE-2011-0411)
