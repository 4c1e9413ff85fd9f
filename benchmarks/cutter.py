"""Owns a way to a server that can be cut, connection by connection, and that does TLS for servers that do none."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

_CHUNK: Final = 65536


class Cutter:
    """Passes on what comes to ``port``, and knows the connections that are open."""

    def __init__(self) -> None:
        self.port = 0
        self.open: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def before(
        cls, port: int, *, tls: ssl.SSLContext | None = None, postgresql: bool = False
    ) -> AsyncIterator["Cutter"]:
        """Stand before a server of 127.0.0.1 while the block runs.

        ``postgresql``: a client asks for TLS first, in clear (SSLRequest; PostgreSQL docs, 55.2.10).
        """
        cutter = cls()

        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if postgresql and tls is not None:
                await reader.readexactly(8)
                writer.write(b"S")
                await writer.start_tls(tls)
            await cutter._pass_on(reader, writer, port)

        at_once = None if postgresql else tls
        server = await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=at_once, backlog=4096)
        cutter.port = server.sockets[0].getsockname()[1]
        try:
            yield cutter
        finally:
            server.close()
            for task in cutter._tasks:
                task.cancel()
            await asyncio.gather(*cutter._tasks, return_exceptions=True)

    @staticmethod
    def cut(sock: socket.socket) -> None:
        """End a connection now: the exporter is sent a FIN by the kernel before this returns."""
        with suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)  # uvloop's own sockets cannot

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        sock: socket.socket = writer.get_extra_info("socket")
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open.add(sock)
        onward: asyncio.StreamWriter | None = None
        copies: set[asyncio.Task[None]] = set()
        try:
            answers, onward = await asyncio.open_connection("127.0.0.1", port)
            copies = {
                asyncio.create_task(_copy(reader, onward)),
                asyncio.create_task(_copy(answers, writer)),
            }
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass
        finally:
            for copy in copies:
                copy.cancel()
            self._tasks.discard(task)
            self.open.discard(sock)
            writer.transport.abort()
            if onward is not None:
                onward.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
