"""Owns one connection to PostgreSQL: dialling it for asyncpg, and how it ends.

asyncpg neither retries nor pools here. A session ends by `terminate`, since `close` waits for the server,
and a cancelled query opens a connection of its own.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any, Final

from asyncpg.connect_utils import TLSUpgradeProto

from exporter.check import Failure
from exporter.checks.postgresql_errors import reason_of
from exporter.core.health import Reason
from exporter.net import Link, Network, failure_from, translated
from exporter.net.adopt import adopt

_ENDS: Final = re.compile(rb"[SV](?:FATAL|PANIC)\0")
"""The severity of an error that ends the session: V is always in English, and PgBouncer sends S alone."""


class DialingLoop:
    """The event loop as asyncpg sees it: all of the real one, but connections are dialled by `Network`.

    asyncpg takes a loop and connects through it. This is the seam by which names are resolved our way,
    sockets get their options, and a `Tap` stands between transport and driver from the first byte.
    """

    def __init__(
        self, network: Network, *, socket_path: str | None, server_name: str | None, where: str
    ) -> None:
        self.link: Link | None = None
        self.tap: Tap | None = None
        self.tls: Any = None
        self._network = network
        self._socket_path = socket_path
        self._server_name = server_name
        self._where = where
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    @property
    def seconds(self) -> float:
        """How long resolving and connecting took."""
        return self.link.resolve_seconds + self.link.connect_seconds if self.link else 0.0

    @property
    def ended(self) -> Failure | None:
        """How the link ended, if it has."""
        return self.tap.lost.result() if self.tap is not None and self.tap.lost.done() else None

    async def create_connection(self, factory: Callable[[], Any], host: str, port: int) -> tuple[Any, Any]:
        """Dial, as asyncpg asks; it does TLS afterwards, on the same transport."""
        self.link = await self._network.dial(self._socket_path or host, port)
        transport, tap = await adopt(
            self.link, lambda: self._tapped(factory()), tls=None, server_name=host, where=self._where
        )
        return _Transport(transport, self), tap.driver

    async def start_tls(self, transport: Any, protocol: Any, context: Any, *, server_hostname: str) -> Any:
        """Do TLS under the name that is configured. Raises `Failure`."""
        name = self._server_name or server_hostname
        with translated(self._where):
            secured = await self._loop.start_tls(transport.real, protocol, context, server_hostname=name)
        assert secured is not None
        self.tls = secured.get_extra_info("ssl_object")
        return _Transport(secured, self)

    def _tapped(self, driver: Any) -> "Tap":
        self.tap = Tap(driver, self._where)
        return self.tap


class _Transport:
    """A transport as asyncpg sees it: a protocol that it sets gets a tap as well."""

    def __init__(self, real: Any, dialer: DialingLoop) -> None:
        self.real = real
        self.write = real.write
        self._dialer = dialer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def set_protocol(self, protocol: Any) -> None:
        tap = self._dialer._tapped(protocol)  # noqa: SLF001 - the two are one seam
        tap.transport = self.real
        self.real.set_protocol(tap)


class Tap(asyncio.Protocol):
    """Stands between transport and driver, passes everything on, and tells at once how the link ended.

    asyncpg drops the server's last words ("terminating connection due to administrator command") when no
    query is under way, and never returns from a message whose length is below 4: both are seen to here.
    """

    def __init__(self, driver: Any, where: str) -> None:
        self.driver = driver
        self.transport: Any = None
        self.asking = True
        self.lost: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        self._where = where
        self._frames = Frames()
        self._heard = False
        self._last_words: Failure | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass on."""
        self.transport = transport
        self.driver.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what is PostgreSQL's, and remember an error that ends the session."""
        self._last_words = self._fatal(data) if _ENDS.search(data) else None
        first, self._heard = not self._heard, True
        if first and isinstance(self.driver, TLSUpgradeProto) and data[:1] not in (b"S", b"N", b"E"):
            self._give_up(f"{data[:1]!r} answers no SSLRequest")
            return
        if not (first and data in (b"S", b"N")) and not self._frames.follow(data):
            self._give_up("what came is no message of it")
            return
        try:
            self.driver.data_received(data)
        except Exception as error:  # noqa: BLE001 - asyncpg decodes what it is sent without doubting it
            self._give_up(type(error).__name__)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on, and tell how it ended."""
        if not self.lost.done():
            self.lost.set_result(self._last_words or self._how_it_ended(exc))
        self.driver.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """Pass on."""
        return self.driver.eof_received()  # type: ignore[no-any-return]

    def pause_writing(self) -> None:
        """Pass on."""
        self.driver.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self.driver.resume_writing()

    def _give_up(self, why: str) -> None:
        self._last_words = Failure(
            Reason.PROTOCOL, f"{self._where} does not speak PostgreSQL's protocol: {why}"
        )
        self.transport.abort()

    def _how_it_ended(self, exc: Exception | None) -> Failure:
        told = failure_from(exc, self._where) if exc is not None else None
        if told is not None:
            return told
        if self.asking:
            return Failure(Reason.EOF, f"{self._where} closed the connection")
        return Failure(Reason.IDLE_CLOSED, f"{self._where} closed the idle connection")

    def _fatal(self, data: bytes) -> Failure:
        """Read the code and message that follow the severity in an ErrorResponse (PostgreSQL docs, 55.8)."""
        rest = _ENDS.split(data, maxsplit=1)[1]
        fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in rest.split(b"\0") if part}
        state, text = fields.get(b"C", ""), fields.get(b"M", "closed")
        return Failure(reason_of(state, text) or Reason.EOF, f"{self._where}: {text} ({state})")


class Frames:
    """Follows where messages begin and end: a type, four bytes of length, which counts itself, and a body."""

    LIMIT: Final = 16 * 1024 * 1024
    """Bytes. A longer message is not waited for: the driver would keep all of it."""

    _TYPES: Final = frozenset(b"123AcCdDEGHIKnNRsStTvVWZ")

    def __init__(self) -> None:
        self._begun = b""
        self._to_come = 0

    def follow(self, data: bytes) -> bool:
        """Take the next bytes, and tell whether they can be messages of PostgreSQL."""
        data, at = self._begun + data, self._to_come
        while len(data) - at >= 5:
            length = int.from_bytes(data[at + 1 : at + 5])
            if data[at] not in self._TYPES or not 4 <= length <= self.LIMIT:
                return False
            at += 1 + length
        self._begun, self._to_come = data[at:], max(at - len(data), 0)
        return True
