"""Owns one connection: sends commands, reads replies, and notes the moment and the reason of its end."""

import asyncio
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net import failure_from
from connection_exporter.net.pacing import PacedProtocol, Pacer

LINE_LIMIT: Final = 4096
"""Bytes of one line of a reply."""


class Connection(PacedProtocol):
    """A connection, for one command at a time. ``where`` names the server in failures."""

    _is_closed_by_owner = True  # the check closes it, when it leaves `connect`

    def __init__(self, where: str, pacer: Pacer) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Failure] = self._loop.create_future()
        super().__init__(pacer)
        self._where = where
        self._buffer = bytearray()
        self._reply: asyncio.Future[bytes | Failure] = self._loop.create_future()  # the server speaks first

    async def command(self, line: bytes) -> int:
        """Send ``line`` and return the code of the reply. Raises `Failure` when the link is gone."""
        if self.lost.done():
            raise self.lost.result()
        self._buffer.clear()
        self._reply = self._loop.create_future()
        self.transport.write(line)
        return await self.reply()

    async def reply(self) -> int:
        """Return the code of the reply that is pending. Raises `Failure` if there is none."""
        line = await self._reply
        if isinstance(line, Failure):
            raise line
        try:
            return int(line[:3])
        except ValueError:
            raise Failure(Reason.PROTOCOL, f"{self._where} does not speak SMTP") from None

    def _slice_size(self) -> int:
        return LINE_LIMIT

    def _parse(self, data: bytes) -> None:
        """Take the last line of the pending reply. Nothing else is kept, so that memory is bounded."""
        if self._reply.done():
            return
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            if line[3:4] != b"-":  # otherwise more lines of the same reply follow
                self._reply.set_result(bytes(line))
                return
        if len(self._buffer) > LINE_LIMIT:
            self._end(
                Failure(Reason.TOO_LARGE, f"{self._where} sends a line of more than {LINE_LIMIT} bytes")
            )

    def _end_of(self, exc: Exception | None) -> None:
        if exc is not None and (failure := failure_from(exc, self._where)):
            self._end(failure)
        elif self._reply.done():
            self._end(Failure(Reason.IDLE_CLOSED, f"{self._where} closed the idle connection"))
        else:
            self._end(Failure(Reason.EOF, f"{self._where} closed the connection"))

    def _end(self, failure: Failure) -> None:
        """Report the end, once, to the monitor and to the command that waits."""
        if not self.lost.done():
            self.lost.set_result(failure)
        if not self._reply.done():
            self._reply.set_result(failure)
