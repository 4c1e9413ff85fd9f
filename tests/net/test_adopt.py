"""A socket that was handed to the event loop is closed once, by whoever has it."""

import asyncio
import gc
import os
import socket
from collections.abc import Callable
from typing import cast

import pytest
import uvloop

from exporter.net import Network
from exporter.net.adopt import adopt


class EndsAtOnce(asyncio.Protocol):
    """Gives its connection up as soon as it has it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()  # uvloop's is none by inheritance


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_a_connection_that_ends_while_it_is_made_takes_nobody_elses_descriptor(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Its number may belong to another by the time it is collected, and must not be closed again."""

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            link = await Network().dial("127.0.0.1", listener.getsockname()[1])
            number = link.sock.fileno()
            await adopt(link, EndsAtOnce, tls=None, server_name="it", where="it")
            await asyncio.sleep(0.01)  # for the transport to close
            others = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
            assert number in others
            del link
            gc.collect()
            await asyncio.sleep(0.01)
            gc.collect()
            for other in others:
                os.fstat(other)
                os.close(other)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())
