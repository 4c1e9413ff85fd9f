"""A TCP proxy that misbehaves on demand: it refuses, delays, cuts, resets, garbles, trickles and swallows.

What it does to a connection follows its `mode` at every moment, so that a session may begin well and then
go wrong. It knows no protocol.
"""

import asyncio
import socket
import struct
import time
from contextlib import suppress
from enum import StrEnum
from typing import Self

from connection_exporter.demo.servers import free_port

from support.streams import either_ends

_NOISE = b"\x00\xffnobody speaks like this\x17\r\n" * 512
_QUIET = 0.05
"""Seconds without a byte after which an answer is taken to be over."""


class Mode(StrEnum):
    """What becomes of connections."""

    PASS = "pass"
    HANG_UP = "accept and close at once"
    RESET = "accept and reset at once"
    ENDLESS = "accept and send noise without end"
    ANSWER_ONCE = "let one answer through, then close"
    SWALLOW = "forward nothing, and never close: a half-open connection"
    GARBLE = "forward other bytes than came"
    TRICKLE = "forward one byte a second"


class Proxy:
    """A proxy on a port of 127.0.0.1 that stays the same, in front of another port of 127.0.0.1."""

    def __init__(self, upstream: int, mode: Mode = Mode.PASS) -> None:
        self.port = free_port()
        self.upstream = upstream
        self.mode = mode
        self.delay = 0.0
        self.accepted: list[float] = []
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports to close

    @property
    def live(self) -> int:
        """How many connections are open."""
        return len(self._clients)

    async def accept(self) -> None:
        """Accept connections (again)."""
        if self._server is None:
            self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port, backlog=1024)

    def refuse(self) -> None:
        """Refuse new connections from now on; those that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self) -> None:
        """Close every connection in good order (FIN)."""
        for client in self._clients:
            client.close()

    def reset(self) -> None:
        """Reset every connection (RST)."""
        for client in self._clients:
            _reset(client)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.accepted.append(time.monotonic())
        self._tasks.add(task)
        self._clients.add(writer)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._converse(reader, writer)
        finally:
            self._clients.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode is Mode.HANG_UP:
            return
        if self.mode is Mode.RESET:
            _reset(writer)
            return
        if self.mode is Mode.ENDLESS:
            while True:
                writer.write(_NOISE)
                await writer.drain()
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        await either_ends(
            self._pump(reader, up_writer, answers=False),
            self._pump(up_reader, writer, answers=True),
            abort=up_writer,
        )

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        answered = False
        while True:
            limit = _QUIET if answered and self.mode is Mode.ANSWER_ONCE else None
            try:
                async with asyncio.timeout(limit):
                    data = await reader.read(65536)
            except TimeoutError:
                return
            if self.mode is Mode.SWALLOW:
                if not data:
                    await asyncio.Event().wait()  # the end is swallowed too
                continue
            if not data:
                return
            await asyncio.sleep(self.delay)
            await self._forward(data, writer, answers=answers)
            answered = answers

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        if answers and self.mode is Mode.GARBLE:
            data = bytes(byte ^ 0x5A for byte in data)
        if answers and self.mode is Mode.TRICKLE:
            for byte in data:
                writer.write(bytes([byte]))
                await asyncio.sleep(1.0)
            return
        writer.write(data)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
