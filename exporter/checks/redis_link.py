"""Owns one connection to Redis: dialling, the handshake, errors in our words, and the moment that it ends.

It is redis-py's connection with three parts of our own: it is dialled by `Network`, it never retries or
reconnects, and its protocol tells how the link ended when it ends, whether or not anybody reads.
"""

import asyncio
import time
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from exporter.check import Failure, Json
from exporter.checks.redis_wire import Parser, Wire, refusal_of
from exporter.checks.secret_file import reading
from exporter.config.kinds.redis import RedisConfig
from exporter.core.health import Reason
from exporter.net import Link, Network
from exporter.net.adopt import adopt
from exporter.net.certificate import CERTIFICATE_EXPIRY, certificate_expiry


class RedisLink(AbstractConnection):
    """One connection, made once."""

    def __init__(self, config: RedisConfig, network: Network) -> None:
        with reading("password_file"):
            password = config.read_password()
        super().__init__(
            db=config.database,
            username=config.user,
            password=password,
            socket_timeout=None,  # the attempt's own deadline rules
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,  # old servers and ACLs refuse CLIENT SETINFO
            encoding_errors="replace",
            decode_responses=True,
            parser_class=Parser,
            protocol=2,
        )
        self._config = config
        self._network = network
        self._link: Link | None = None
        self._wire = Wire(config.address)
        self._connected = 0.0
        self.lost: asyncio.Future[Failure] = self._wire.lost
        self.phases: dict[str, Json] = {}
        self.certificate: dict[str, Json] = {}

    @property
    def peer(self) -> str | None:
        """The IP address at the other end."""
        return self._link.peer if self._link else None

    @property
    def addresses(self) -> frozenset[str]:
        """All IP addresses that the name led to."""
        return self._link.addresses if self._link else frozenset()

    async def open(self) -> None:
        """Dial, do TLS, authenticate, select the database. Raises `Failure`."""
        try:
            await self.connect()  # type: ignore[no-untyped-call]
        except (RedisError, ValueError) as error:
            raise self._failure(error) from error
        except asyncio.CancelledError as cancelled:
            if not self.phases:  # not yet connected: what was waited for has been said
                raise
            raise cancelled from Failure(
                Reason.TIMEOUT, f"{self._config.address} does not answer AUTH or SELECT"
            )
        self.phases["auth_seconds"] = time.monotonic() - self._connected

    def ask(self, question: bytes) -> None:
        """Send ``question``, to which all that comes until `rest` is the answer. Raises `Failure`."""
        if self._writer is None or self._wire.ended is not None or self._writer.transport.is_closing():
            raise self._wire.ended or Failure(Reason.EOF, f"{self._config.address}: the session is closed")
        self._wire.listen()
        self._writer.write(question)  # a few bytes: whether they arrive shows in the answer

    def rest(self) -> None:
        """Expect nothing more: from now on, what the server sends is out of turn."""
        self._wire.rest()

    async def answer(self) -> object:
        """Read one answer: text, or a `Refusal`. Raises `Failure` where there is no session any more."""
        try:
            return await self.read_response(disconnect_on_error=False)
        except (RedisError, ValueError) as error:
            refusal = refusal_of(error)
            if refusal is None or refusal.fatal:
                raise self._failure(error) from error
            return refusal

    def abort(self) -> None:
        """Close now, whatever the other end does. May be called at any time, and again."""
        self._wire.forget()
        self._parser.on_disconnect()  # type: ignore[no-untyped-call]
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def disconnect(self, *_: Any, **__: Any) -> None:
        """Do as redis-py asks when something went wrong, but without waiting for the server."""
        self.abort()

    async def _connect(self) -> None:
        config, loop = self._config, asyncio.get_running_loop()
        context = await self._network.tls_context(config.tls.options) if config.tls else None
        link = self._link = await self._network.dial(config.host, config.port)
        dialled = time.monotonic()
        transport, _ = await adopt(
            link,
            lambda: self._wire,
            tls=context,
            server_name=(config.tls.server_name if config.tls else None) or config.host,
            where=config.address,
        )
        self.phases = {"resolve_seconds": link.resolve_seconds, "connect_seconds": link.connect_seconds}
        if context is not None:
            self.phases["tls_seconds"] = time.monotonic() - dialled
            tls = transport.get_extra_info("ssl_object")
            self.certificate[CERTIFICATE_EXPIRY] = certificate_expiry(tls)
        self._connected = time.monotonic()
        self._reader = self._wire.reader
        self._writer = asyncio.StreamWriter(transport, self._wire, self._reader, loop)

    def _failure(self, error: Exception) -> Failure:
        """Say what ``error`` means for the link. How it ended counts for more than how a read failed."""
        address = self._config.address
        if isinstance(error.__cause__, Failure):  # redis-py wraps what `_connect` raises
            return error.__cause__
        if refusal := refusal_of(error):
            return Failure(refusal.reason, f"{address}: {refusal.line}")
        if (
            self._wire.ended is not None and not self._wire.forgotten
        ):  # by redis-py, which did not like what it read
            return self._wire.ended
        if not self.phases:
            return Failure(Reason.UNREACHABLE, f"{address}: {error}")
        return Failure(Reason.PROTOCOL, f"{address} does not speak Redis' protocol: {str(error)[:120]}")

    def _host_error(self) -> str:
        return self._config.address

    def repr_pieces(self) -> list[tuple[str, Any]]:
        """Name the server, for redis-py's ``repr``."""
        return [("address", self._config.address)]
