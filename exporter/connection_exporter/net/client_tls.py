"""TLS on a connection to a service: decrypts at the pace that all services share.

asyncio and uvloop decrypt all that one read from the socket brings before they pass anything on. A server that sends
records of one byte thus gets 20 ms of CPU for each read of 256 KiB, and several such servers get them in one iteration.
"""

import asyncio
import os
import ssl
import struct
from contextlib import suppress
from typing import Any, Final, cast

from connection_exporter.net.names import certificate_name
from connection_exporter.net.pacing import WAITING, PacedReader, Pacer, raw_transport
from connection_exporter.net.resumption import Resumption
from connection_exporter.system.threads import run_in_pool

_SLICE: Final = 4096
"""Bytes that are decrypted at once. 4 KiB of the shortest records take 0.7 ms."""

_SLICE_OF_RECORD: Final = 64 * 1024
"""The same in the middle of a record, which has 16 KiB at most."""

_SLICE_OF_HANDSHAKE: Final = 16 * 1024
"""Bytes that one step of the handshake is given: more than a usual chain of certificates."""

_FEW_RECORDS: Final = 16
_FEW_BYTES: Final = 8 * 1024
"""What is decrypted at once although it is longer than a slice: one large answer, in one record or a few. A server may
send session tickets instead: the 390 in 8 KiB take 5 ms."""

_RECORD_HEADER: Final = struct.Struct(">xxxH")  # type, version, length (RFC 8446, section 5.1)
_READ: Final = 64 * 1024


class ClientTls(asyncio.Transport, asyncio.Protocol):
    """The protocol of a raw connection, and the encrypted transport of the protocol inside.

    Set it as the protocol of a raw transport, then call `handshake`.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        server_name: str,
        inside: asyncio.Protocol,
        pacer: Pacer,
        resumption: Resumption | None = None,
    ) -> None:
        """Prepare the handshake. Raises ValueError if ``server_name`` is not valid."""
        super().__init__()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._resumption = resumption
        session, self._verified_at = resumption.offer(context) if resumption is not None else (None, 0.0)
        # as bytes, because the ssl module would look at each label of a str again
        name = certificate_name(server_name).encode()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name, session=session)
        self._inside = inside
        self._reader = PacedReader(pacer, self._decrypt, slice_size=self._slice_size)
        self._raw: asyncio.Transport
        self._early = bytearray()  # received during the handshake
        self._arrived: asyncio.Future[None] | None = None  # what the handshake waits for
        self._lost: Exception | None = None
        self._is_secure = False
        self._is_over = False
        self._header = b""  # the beginning of a record's header
        self._record_left = 0
        self._pauses = 0

    async def handshake(self, raw: asyncio.Transport, *, is_new: bool) -> None:
        """Make the handshake over ``raw``. The caller aborts the connection if it fails.

        ``is_new``: call `connection_made` of the protocol inside. Raises OSError, of which ssl.SSLError is
        one; a ConnectionResetError without a number means that the server has closed the connection.
        """
        self._raw = raw
        self._reader.connection_made(self)
        is_complete = self._shake_hands()
        self._flush()
        while not is_complete:
            while not self._early:
                if self._lost is not None:
                    raise self._lost
                self._arrived = asyncio.get_running_loop().create_future()
                await self._arrived
            data = bytes(self._early[:_SLICE_OF_HANDSHAKE])
            del self._early[:_SLICE_OF_HANDSHAKE]
            self._follow_records(data)
            self._incoming.write(data)
            if not self._early:
                self.resume_reading()
            is_complete = await run_in_pool(self._shake_hands)
            self._flush()
        self._is_secure = True
        if self._resumption is not None and not self._tls.session_reused:
            self._verified_at = self._resumption.clock()
        if is_new:
            self._inside.connection_made(self)
        self._read()
        if self._early:
            early = bytes(self._early)
            self._early.clear()
            self.resume_reading()
            self._reader.data_received(early)
        if self._lost is not None:
            self.connection_lost(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (asyncio). The server may send before the handshake begins."""
        self._raw = raw_transport(transport)

    def data_received(self, data: bytes) -> None:
        """Decrypt little data and few records at once, and much slice by slice (asyncio).

        INFO of redis is longer than a slice, but has few records: for TLS, a check takes 290 opcodes instead of 760.
        """
        if self._is_secure:
            if len(data) > _SLICE and not self._reader.has_slices and self._has_few_records(data):
                self._decrypt(data)
            else:
                self._reader.data_received(data)
            return
        if not self._early:
            self.pause_reading()
        self._early += data
        self._go_on()

    def eof_received(self) -> None:
        """Note that the server sends nothing more (asyncio)."""
        if self._is_secure:
            self._reader.finish(self._end_of_input)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is closed (asyncio)."""
        if isinstance(exc, ConnectionError):
            self._read_last_words()
        if self._is_secure:
            if self._resumption is not None:
                self._resumption.keep(self._tls, self._verified_at)
            self._reader.finish(lambda: self._end(exc))
        else:
            self._lost = exc or ConnectionResetError()
            self._go_on()

    def pause_writing(self) -> None:
        """Pass it on (asyncio)."""
        self._inside.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on (asyncio)."""
        self._inside.resume_writing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Replace the protocol inside, as a tunnel through a proxy does."""
        self._inside = cast("asyncio.Protocol", protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the protocol inside wants to know about its connection."""
        if name == "ssl_object":
            return self._tls
        if name == WAITING and self._reader.has_slices:
            return True
        return self._raw.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        if not self.is_closing() and len(data):
            self._tls.write(data)  # into memory, so never in part
            self._flush()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set them for the encrypted data."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return how many encrypted bytes wait to be sent."""
        return self._raw.get_write_buffer_size()

    def close(self) -> None:
        """Close the connection when everything is sent."""
        self._raw.close()

    def abort(self) -> None:
        """Close the connection now."""
        self._reader.discard()
        self._raw.abort()

    def is_closing(self) -> bool:
        """Return whether the connection is closed or about to be."""
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        """Pause until `resume_reading` has been called as often: our reader and the one inside both do."""
        self._pauses += 1
        if self._pauses == 1 and not self._raw.is_closing():
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Undo one `pause_reading`."""
        self._pauses -= 1
        if self._pauses == 0 and not self._raw.is_closing():
            self._raw.resume_reading()

    def _go_on(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _read_last_words(self) -> None:
        """Take what the server has sent before it reset the connection: an alert, if it does not accept us.

        With TLS 1.3, the alert about a client certificate comes after the handshake. If our first request meets the
        reset, event loops close the connection without reading what has arrived before.
        """
        with suppress(OSError):
            if data := os.read(self._raw.get_extra_info("socket").fileno(), _SLICE_OF_HANDSHAKE):
                self.data_received(data)

    def _slice_size(self) -> int:
        return max(_SLICE, min(self._record_left, _SLICE_OF_RECORD))

    def _decrypt(self, data: bytes) -> None:
        self._follow_records(data)
        self._incoming.write(data)
        if not self._is_over:
            self._read()

    def _follow_records(self, data: bytes) -> None:
        """Keep track of how much of the last record is still to come."""
        if self._header:
            data, self._header = self._header + data, b""
        at, last = self._record_left, len(data) - _RECORD_HEADER.size
        while at <= last:
            (length,) = _RECORD_HEADER.unpack_from(data, at)
            at += _RECORD_HEADER.size + length
        self._header = data[at:]
        self._record_left = max(at - len(data), 0)

    def _has_few_records(self, data: bytes) -> bool:
        """Return whether ``data`` has `_FEW_RECORDS` and `_FEW_BYTES` at most."""
        at, last = self._record_left, len(data) - _RECORD_HEADER.size
        for _ in range(_FEW_RECORDS):
            if at > last:
                return not self._header and len(data) <= _FEW_BYTES
            (length,) = _RECORD_HEADER.unpack_from(data, at)
            at += _RECORD_HEADER.size + length
        return False

    def _shake_hands(self) -> bool:
        """Take the next step of the handshake; return whether it is complete. Raises OSError.

        A step runs in a thread, because the server chooses what it costs: a key exchange over ffdhe8192 takes 180 ms.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def _read(self) -> None:
        pieces: list[bytes] = []
        ended: Exception | None = None
        is_open = True
        try:
            while piece := self._tls.read(_READ):
                pieces.append(piece)
                if not self._incoming.pending and not self._tls.pending():
                    break  # to read in vain takes 8 to 17 us, for the exception and the buffer
            else:
                is_open = False  # by the server's close_notify
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            ended = error
        self._flush()  # an answer to a KeyUpdate, or an alert
        if pieces:
            self._inside.data_received(b"".join(pieces))
        if ended is not None:
            self._end(ended)
            self._raw.abort()
        elif not is_open:
            self._end_of_input()
            self._raw.close()

    def _end_of_input(self) -> None:
        if not self._is_over:
            self._inside.eof_received()

    def _end(self, error: Exception | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._inside.connection_lost(error)

    def _flush(self) -> None:
        if self._outgoing.pending and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())
