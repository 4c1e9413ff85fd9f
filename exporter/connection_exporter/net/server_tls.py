"""Owns TLS with one client of our own listener: the handshake, and the transport that encrypts."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

from connection_exporter.net.linger import Linger, Table
from connection_exporter.net.pacing import PacedReader, Pacer

HANDSHAKE_WITHIN: Final = 5.0
"""Seconds that a client has for its TLS handshake."""

_READ: Final = 65_536
_RECORD: Final = 16_384
"""Bytes of the largest TLS record (RFC 8446, section 5.1)."""
_SLICE: Final = 4096
"""Bytes that are decrypted at a time: 175 records of one byte. OpenSSL's buffers keep the size that they once had."""
_PLAIN_HTTP: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 48\r\n"
    b"Connection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
)
"""The text is that of Go's net/http."""


class TlsProtocol(asyncio.Protocol):
    """One client of a TLS listener: first the handshake, then a transport for the protocol inside.

    The TLS protocols of asyncio and uvloop close the socket when a handshake fails, without sending the alert that
    OpenSSL has written: the client sees an unexplained EOF. This one sends it. It also recognises a plain HTTP
    request, and its unfinished handshakes are in the server's table of connections.
    """

    def __init__(
        self,
        current: Callable[[], ssl.SSLContext],
        inside: Callable[[], asyncio.Protocol],
        table: Table,
        pacer: Pacer,
    ) -> None:
        self._current = current
        self._make_inside = inside
        self._table = table
        self._reader = PacedReader(pacer, self._parse, slice_size=lambda: _SLICE)
        self._reader.immediate = False  # a signature takes up to 6 ms, and many handshakes can arrive at once
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inside: asyncio.Protocol | None = None
        self.tls: ssl.SSLObject | None = None
        self.raw: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client's first bytes."""
        self.raw = cast("asyncio.Transport", transport)  # uvloop's is not a subclass of it
        self.reading = _Reading(self.raw)
        self._reader.connection_made(self.reading)
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_WITHIN, self.abort)
        self._table.opened(self)

    def abort(self) -> None:
        """Close the connection now."""
        self.raw.abort()

    def data_received(self, data: bytes) -> None:
        """Continue the handshake, or decrypt, when it is this client's turn."""
        self._reader.data_received(data)

    def _parse(self, data: bytes) -> None:
        if self.tls is None:
            if data[:1].isalpha():  # a TLS record begins with a byte below 32
                self.raw.write(_PLAIN_HTTP)
                self._end()
                return
            self.tls = self._current().wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(data)
        if self._inside is None:
            self._handshake(self.tls)
        if self._inside is not None:
            self._read(self.tls)

    def eof_received(self) -> None:
        """Have the transport closed: a half-closed TLS connection is of no use to HTTP."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self._reader.discard()
        self._deadline.cancel()
        self._table.closed(self)
        if self._inside is not None:
            self._inside.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        if self._inside is not None:
            self._inside.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        if self._inside is not None:
            self._inside.resume_writing()

    def exchange(self, inside: asyncio.Protocol) -> None:
        """Make ``inside`` the protocol that gets what arrives."""
        self._inside = inside

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        assert self.tls is not None
        view = memoryview(data)
        for at in range(0, len(view), _RECORD):
            if self.raw.is_closing():
                return
            self.tls.write(view[at : at + _RECORD])  # into memory, so never in part
            self._flush()

    def close_notify(self) -> None:
        """Tell the client that no more data follows (RFC 8446, section 6.1)."""
        assert self.tls is not None
        with suppress(ssl.SSLError):  # SSLWantReadError: we do not wait for the client's
            self.tls.unwrap()
        self._flush()

    def close(self) -> None:
        """End the connection, so that the client's close_notify finds an open socket."""
        self.close_notify()
        if self._inside is not None:
            asyncio.get_running_loop().call_soon(self._inside.connection_lost, None)
            self._inside = None
        self._end()

    def _handshake(self, tls: ssl.SSLObject) -> None:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError:
            self._flush()  # the alert
            self._end()
            return
        self._flush()
        self._deadline.cancel()
        self._table.closed(self)
        self._reader.immediate = True
        self._inside = self._make_inside()
        self._inside.connection_made(_TlsTransport(self))

    def _read(self, tls: ssl.SSLObject) -> None:
        while self._inside is not None and not self.raw.is_closing():
            try:
                data = tls.read(_READ)
            except ssl.SSLWantReadError:
                self._flush()
                return
            except ssl.SSLError:  # the client's close_notify, or a damaged record and our alert about it
                self._flush()
                self.raw.close()
                return
            if not data:
                self.raw.close()
                return
            self._inside.data_received(data)

    def _flush(self) -> None:
        if self._outgoing.pending and not self.raw.is_closing():
            self.raw.write(self._outgoing.read())

    def _end(self) -> None:
        self._reader.discard()
        self._deadline.cancel()
        self._table.closed(self)
        Linger(self.raw, self._table)


class _Reading(asyncio.ReadTransport):
    """Reads from the socket while neither the pacer nor the protocol inside has paused it."""

    def __init__(self, raw: asyncio.Transport) -> None:
        super().__init__()
        self._raw = raw
        self._paced = self._held = False

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        self._paced = True
        self._set()

    def resume_reading(self) -> None:
        self._paced = False
        self._set()

    def hold(self, *, held: bool) -> None:
        """Pause or resume for the protocol inside."""
        self._held = held
        self._set()

    def _set(self) -> None:
        if self._paced or self._held:
            self._raw.pause_reading()
        else:
            self._raw.resume_reading()


class _TlsTransport(asyncio.Transport):
    """The encrypted connection, as the protocol inside sees it."""

    def __init__(self, protocol: TlsProtocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._raw = protocol.raw
        self._closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._protocol.tls
        if name == "sslcontext":
            return self._protocol.tls.context if self._protocol.tls else default
        return self._raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol.exchange(protocol)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._protocol.write(data)

    def write_eof(self) -> None:
        self._protocol.close_notify()
        if self._raw.can_write_eof() and not self._raw.is_closing():
            with suppress(OSError):  # the client has reset the connection, and connection_lost is on its way
                self._raw.write_eof()

    def close(self) -> None:
        if not self.is_closing():
            self._closed = True
            self._protocol.close()

    def abort(self) -> None:
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._closed or self._raw.is_closing()

    def pause_reading(self) -> None:
        self._protocol.reading.hold(held=True)

    def resume_reading(self) -> None:
        self._protocol.reading.hold(held=False)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()
