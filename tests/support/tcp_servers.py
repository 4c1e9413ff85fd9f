"""TCP servers for tests that follow a short script, and checks of kind tcp on them."""

import asyncio

from connection_exporter.kinds.tcp.check import TcpCheck
from connection_exporter.kinds.tcp.config import TcpConfig
from connection_exporter.net import Network

from support.streams import Handler


def check_of(port: int = 1, **given: object) -> TcpCheck:
    keys: dict[str, object] = {"kind": "tcp", "host": "127.0.0.1", "port": port, **given}
    return TcpCheck(TcpConfig.model_validate(keys), Network())


def says(*sent: bytes) -> Handler:
    """Send each text, and then wait for the end."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in sent:
            writer.write(piece)
            await writer.drain()
        while await reader.read(65536):
            pass

    return talk


def answers(replies: dict[bytes, bytes], *, greeting: bytes = b"") -> Handler:
    """Answer each line by its reply; a line that has none is answered by nothing."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        while line := await reader.readline():
            writer.write(replies.get(line.rstrip(b"\r\n"), b""))

    return talk
