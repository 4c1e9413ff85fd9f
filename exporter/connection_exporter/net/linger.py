"""Ends a connection so that the client can still read the last answer."""

import asyncio
from contextlib import suppress
from typing import Final, Protocol

_WITHIN: Final = 1.0
"""Seconds that the client gets to close its side, once it has taken everything."""
_SEND_WITHIN: Final = 30.0
"""Seconds that it gets to take everything."""


class Client(Protocol):
    """A connection that can be closed at once."""

    def abort(self) -> None:
        """Close it, and drop what is not yet sent."""


class Table(Protocol):
    """Counts connections, and may abort one to make room."""

    def opened(self, client: Client) -> None:
        """Add a connection."""

    def closed(self, client: Client) -> None:
        """Remove a connection, if it is there."""


class Linger(asyncio.Protocol):
    """Takes over a transport: ends our side, then discards what arrives until the client closes, for a second at most.

    A socket that is closed with unread data, or that receives data after it was closed, sends a reset. A reset makes
    the client's kernel discard what it has not read yet (RFC 9112, section 9.6).
    """

    def __init__(self, transport: asyncio.Transport, table: Table) -> None:
        self._transport = transport
        self._table = table
        self._loop = asyncio.get_running_loop()
        self._give_up_at = self._loop.time() + _SEND_WITHIN
        self._deadline = self._loop.call_later(_WITHIN, self._expired)
        transport.set_protocol(self)
        table.opened(self)
        transport.resume_reading()
        with suppress(OSError):  # the client has reset the connection, and connection_lost is on its way
            transport.write_eof()

    def abort(self) -> None:
        """Close the connection now."""
        self._transport.abort()

    def _expired(self) -> None:
        if self._transport.get_write_buffer_size() and self._loop.time() < self._give_up_at:
            self._deadline = self._loop.call_later(_WITHIN, self._expired)
        else:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        del exc
        self._deadline.cancel()
        self._table.closed(self)
