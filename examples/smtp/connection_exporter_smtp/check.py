"""Owns kind smtp: one connection to a mail server, greeted once and asked NOOP at each probe (RFC 5321)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connection_exporter.config.url import host_and_port
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Metric, MetricType, Observation, Session, Traits
from connection_exporter.net import Network, translated
from connection_exporter.net.failures import REASONS

from connection_exporter_smtp import SmtpConfig


class SmtpCheck:
    """One mail server."""

    traits = Traits(
        reasons=REASONS | {Reason.QUERY},
        metrics=(
            Metric(
                "connection_smtp_reply_code",
                "Code of the server's last reply.",
                MetricType.GAUGE,
                "reply_code",
            ),
        ),
    )

    def __init__(self, config: SmtpConfig, network: Network) -> None:
        self._config = config
        self._network = network

    @property
    def address(self) -> str:
        """The configured host:port."""
        return host_and_port(self._config.host, self._config.port)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """Connect and read the greeting. Raises `Failure`."""
        link = await self._network.dial(self._config.host, self._config.port)
        with translated(self.address):
            reader, writer = await asyncio.open_connection(sock=link.sock)
        held = _Held(self.address, reader, writer, link.peer, link.addresses)
        try:
            await held.greet()
            yield held
        finally:
            held.reading.cancel()
            writer.transport.abort()


class _Held:
    """A greeted connection, which one task reads, so that its end is noticed at once."""

    def __init__(
        self,
        address: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        peer: str | None,
        addresses: frozenset[str],
    ) -> None:
        self.peer = peer
        self.addresses = addresses
        self.lost: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self._address = address
        self._reader = reader
        self._writer = writer
        self._replies: asyncio.Queue[bytes] = asyncio.Queue(maxsize=16)
        self.reading = asyncio.create_task(self._read())

    async def greet(self) -> None:
        """Read the greeting. Raises `Failure` when it is not one."""
        code = await self._reply()
        if code != 220:
            raise Failure(Reason.PROTOCOL, f"{self._address} greeted with {code}, not 220")

    async def probe(self) -> Observation:
        """Send NOOP and judge the reply. Raises `Failure` when the link is gone."""
        self._writer.write(b"NOOP\r\n")
        code = await self._reply()
        if code == 250:
            return Observation(details={"reply_code": code})
        return Observation(Reason.QUERY, f"answered NOOP with {code}, not 250", {"reply_code": code})

    async def _reply(self) -> int:
        line = await self._replies.get()
        if not line:
            raise self.lost.result()
        try:
            return int(line[:3])
        except ValueError:
            raise Failure(Reason.PROTOCOL, f"{self._address} does not speak SMTP") from None

    async def _read(self) -> None:
        """Hand on each line, until there are no more: that ends the session."""
        failure = Failure(Reason.EOF, f"{self._address} closed the connection")
        try:
            with translated(self._address):
                while line := await self._reader.readline():
                    await self._replies.put(line)
        except Failure as error:
            failure = error
        except ValueError:
            failure = Failure(Reason.PROTOCOL, f"{self._address} sends lines without end")
        self.lost.set_result(failure)
        await self._replies.put(b"")
