"""A proxy for the gossip of a cluster, which goes over TCP and UDP on one port."""

import asyncio
import socket
from contextlib import suppress
from typing import Final, Self

from support.proxy import Mode, Proxy

_Address = tuple[str, int]
_LONGEST: Final = 65536


class GossipProxy:
    """A proxy on a port of 127.0.0.1, for TCP and UDP, in front of another port of 127.0.0.1."""

    def __init__(self, upstream: int) -> None:
        self._tcp = Proxy(upstream)
        self._upstream = ("127.0.0.1", upstream)
        self._udp = _datagram_socket()
        self._clients: dict[_Address, socket.socket] = {}
        self._passes = True

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._tcp.port

    async def __aenter__(self) -> Self:
        await self._tcp.__aenter__()
        self._udp.bind(("127.0.0.1", self.port))
        asyncio.get_running_loop().add_reader(self._udp, self._forward)
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in (self._udp, *self._clients.values()):
            asyncio.get_running_loop().remove_reader(each)
            each.close()
        await self._tcp.__aexit__()

    def cut(self) -> None:
        """Let nothing through."""
        self._passes = False
        self._tcp.mode = Mode.RESET
        self._tcp.reset()

    def heal(self) -> None:
        """Let everything through again."""
        self._passes = True
        self._tcp.mode = Mode.PASS

    def _forward(self) -> None:
        """Send each datagram from a socket of the client's own, to which the replies come."""
        with suppress(OSError):
            data, client = self._udp.recvfrom(_LONGEST)
            if self._passes:
                self._socket_of(client).sendto(data, self._upstream)

    def _socket_of(self, client: _Address) -> socket.socket:
        if client not in self._clients:
            self._clients[client] = _datagram_socket()
            asyncio.get_running_loop().add_reader(self._clients[client], self._reply, client)
        return self._clients[client]

    def _reply(self, client: _Address) -> None:
        with suppress(OSError):
            data = self._clients[client].recv(_LONGEST)
            if self._passes:
                self._udp.sendto(data, client)


def _datagram_socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made
