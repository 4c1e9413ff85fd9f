"""Servers of plain streams on the loopback interface, and what leads from one stream to another."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(
    handle: Handler, *, tls: ssl.SSLContext | None = None, path: str | Path | None = None
) -> AsyncIterator[int]:
    """Serve until the block ends, on the Unix socket ``path`` if it is given; yield the port.

    A connection is closed when ``handle`` returns, and aborted at the end of the block. Whatever a client does to its
    connection is no error.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        transport = writer.transport
        protocol = transport.get_protocol()
        try:
            with suppress(OSError, EOFError, asyncio.LimitOverrunError):
                await handle(reader, writer)
        except asyncio.CancelledError:
            if not writer.is_closing():  # Python 3.11.2 cannot abort what is closed already
                writer.transport.abort()
        finally:
            tasks.discard(task)
            writer.close()
            if tls is None and transport.get_protocol() is not protocol:  # start_tls leaves it open
                transport.abort()

    if path is None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    else:
        server = await asyncio.start_unix_server(connected, path)
    try:
        yield server.sockets[0].getsockname()[1] if path is None else 0
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.02)  # for what close and abort have put off


async def join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    up_reader: asyncio.StreamReader,
    up_writer: asyncio.StreamWriter,
) -> None:
    """Pass on what comes from either side until one of them ends; then abort the upper one."""
    await either_ends(_pump(reader, up_writer), _pump(up_reader, writer), abort=up_writer)


async def either_ends(*pumps: Coroutine[Any, Any, None], abort: asyncio.StreamWriter) -> None:
    """Run both pumps until one of them ends; then ``abort`` a stream, and end the other."""
    tasks = [asyncio.create_task(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        abort.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
