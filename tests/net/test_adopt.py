"""A socket that is passed to the event loop is closed exactly once."""

import asyncio
import gc
import os
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest
import uvloop
from connection_exporter.net import Network
from connection_exporter.net.adopt import adopt
from connection_exporter.net.pacing import PacedProtocol, Pacer


class EndsAtOnce(asyncio.Protocol):
    """Aborts its connection as soon as it is made."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()  # uvloop's class does not inherit from it


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_a_connection_that_ends_while_it_is_made_closes_no_other_descriptor(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Its descriptor may belong to another file by the time the socket is garbage-collected."""

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            network = Network()
            link = await network.dial("127.0.0.1", listener.getsockname()[1])
            number = link.sock.fileno()
            await adopt(link, EndsAtOnce, where="it", secured=None)
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


class EndsItsTask(PacedProtocol):
    """Cancels the task that makes its connection. It leaves all that arrives to the pacer."""

    def __init__(self, pacer: Pacer) -> None:
        super().__init__(pacer)
        self._task = asyncio.current_task()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._task is not None
        self._task.cancel()

    def _slice_size(self) -> int:
        return 1

    def _parse(self, data: bytes) -> None:
        del data

    def _end_of(self, exc: Exception | None) -> None:
        del exc


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_what_a_connection_received_is_not_parsed_if_its_making_is_cancelled(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Its transport is closed, and to read on would raise, amid the turns of other connections."""
    logged: list[dict[str, Any]] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            network = Network()
            link = await network.dial("127.0.0.1", listener.getsockname()[1])
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(b"x" * 1000)
                adopting = asyncio.ensure_future(
                    adopt(link, lambda: EndsItsTask(network.pacer), where="it", secured=None)
                )
                with pytest.raises(asyncio.CancelledError):
                    await adopting
                await asyncio.sleep(0.1)  # for the turns of the pacer

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())
    assert logged == []
