"""The last moments of a connection: whatever the client does then must not raise in the server."""

import asyncio
import socket
import struct

import pytest
import uvloop
from connection_exporter.net.linger import Client, Linger


class Table:
    """Counts the connections that linger."""

    def __init__(self) -> None:
        self.open: set[Client] = set()

    def opened(self, client: Client) -> None:
        self.open.add(client)

    def closed(self, client: Client) -> None:
        self.open.discard(client)


async def a_reset_before_the_end() -> int:
    loop, table = asyncio.get_running_loop(), Table()
    theirs = socket.socket()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs.connect(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()  # sends a reset, which the loop has not seen yet
    Linger(transport, table)
    async with asyncio.timeout(5):
        while table.open:  # noqa: ASYNC110 - the loop itself closes the connection
            await asyncio.sleep(0.01)
    return len(table.open)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_client_that_has_reset_the_connection_is_forgotten(new_loop: type) -> None:
    """Shutting down a socket that the peer has reset raises ENOTCONN."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(a_reset_before_the_end()) == 0
