"""Owns one WebSocket connection: its frames, its pings, and the moment and manner of its end.

It is the connection of the websockets library with its reading side replaced: messages are counted where
they arrive instead of being queued for a reader, so a busy stream costs no task and no memory.
"""

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.datastructures import HeadersLike
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, PayloadTooBig
from websockets.extensions.permessage_deflate import enable_client_permessage_deflate
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import Event, State
from websockets.typing import Origin, Subprotocol
from websockets.uri import WebSocketURI

from exporter.check import Failure
from exporter.checks.websocket_dialogue import Dialogue, Line
from exporter.config.kinds.websocket import WebsocketConfig
from exporter.core.health import Reason
from exporter.net import failure_from

_POLITE: Final = (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY)
_UNREAD_LIMIT: Final = 1024 * 1024
"""Bytes that wait to be sent to a server that does not read. We send little but pongs."""

_BY_STATUS: Final = {
    401: Reason.AUTH,
    403: Reason.AUTH,
    407: Reason.AUTH,
    404: Reason.MISSING,
    410: Reason.MISSING,
    429: Reason.SLOTS_FULL,
}

_log = logging.getLogger(f"{__name__}.driver")
_log.setLevel(logging.ERROR)  # at debug, websockets would log headers and messages, secrets and all


class WebsocketLink(ClientConnection):
    """One connection, made once. ``greeting`` is the dialogue that follows the handshake."""

    def __init__(self, config: WebsocketConfig, greeting: Sequence[Line]) -> None:
        super().__init__(
            _protocol(config),
            ping_interval=None,
            close_timeout=None,
            max_queue=None,
            write_limit=_UNREAD_LIMIT,
        )
        self.lost: asyncio.Future[Failure] = self.loop.create_future()
        self.ended: Failure | None = None
        self.messages = 0
        self.last_message: float | None = None
        self.quiet_since = time.monotonic()
        self.probing = True
        self._address = config.address
        self._limit = config.max_message_size
        self._parts: list[bytes] = []
        self._payload = b""
        self._pong: asyncio.Future[Failure | float] | None = None
        self.dialogue = Dialogue(greeting, self._say)

    async def upgrade(self, headers: HeadersLike, user_agent: str) -> None:
        """Do the opening handshake. Raises `Failure`."""
        try:
            await self.handshake(headers, user_agent)
        except (InvalidHandshake, ConnectionClosed) as error:  # the latter before our request was out
            raise self.ended or self._how_it_ended(None) from error
        if self.ended is not None:
            raise self.ended

    async def round_trip(self) -> float:
        """Send a ping and return the seconds until its pong. Raises `Failure` when the link is gone."""
        if self.ended is not None:
            raise self.ended
        self._payload = os.urandom(4)
        self._pong = self.loop.create_future()
        began = time.perf_counter()
        self.protocol.send_ping(self._payload)
        self._flush()
        came = await self._pong
        if isinstance(came, Failure):
            raise came
        return came - began

    async def talk(self, lines: Sequence[Line]) -> Failure | None:
        """Play a dialogue; return what is amiss. Raises `Failure` when the link is gone."""
        if self.ended is not None:
            raise self.ended
        self.dialogue = Dialogue(lines, self._say)
        self.dialogue.begin()
        return await self.finish()

    async def finish(self) -> Failure | None:
        """Wait for the end of the dialogue; return what is amiss. Raises `Failure` when the link is gone."""
        try:
            amiss = await self.dialogue.over
        finally:
            self.dialogue.end()
        if self.ended is not None:
            raise self.ended
        return amiss

    def leave(self) -> None:
        """Say goodbye if that takes no waiting, and close. May be called at any time, and again."""
        if self.ended is None:
            self.ended = Failure(Reason.CLOSED, f"{self._address}: closed by us")
        self.dialogue.end()
        if self.protocol.state is State.OPEN and not self.transport.is_closing():
            self.protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
        self.transport.abort()

    def process_event(self, event: Event) -> None:
        """Take the response to the handshake, or a frame."""
        if isinstance(event, Response):
            super().process_event(event)
            if self.protocol.state is State.OPEN:
                self.dialogue.begin()
        elif isinstance(event, Frame):
            self._take(event)

    def data_received(self, data: bytes) -> None:
        """Notice at once that the server says goodbye, or is no WebSocket at all."""
        super().data_received(data)
        if self.protocol.handshake_exc is not None:
            self._end(None)
            self.transport.abort()  # or an endless answer would be waited for to its end
        elif self.protocol.state in (State.CLOSING, State.CLOSED):
            self._end(None)

    def eof_received(self) -> None:
        """Note an end with no goodbye."""
        super().eof_received()
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note any other end."""
        super().connection_lost(exc)
        self._end(exc)

    def pause_writing(self) -> None:
        """Give up a server that sends pings and reads no pong: the memory it takes has no bound."""
        super().pause_writing()
        self._end(Failure(Reason.PROTOCOL, f"{self._address} does not read what it is sent"))

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            if self._pong is not None and not self._pong.done() and bytes(frame.data) == self._payload:
                self._pong.set_result(time.perf_counter())
            return
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if not frame.fin or self._parts:
            self._parts.append(bytes(frame.data))
            if not frame.fin:
                return
            message = b"".join(self._parts)
            self._parts.clear()
        else:
            message = bytes(frame.data)
        if self.dialogue.over.done() or not self.dialogue.hears(message):
            self.messages += 1
            self.last_message = time.time()
            self.quiet_since = time.monotonic()

    def _say(self, text: str) -> None:
        if self.protocol.state is State.OPEN:
            self.protocol.send_text(text.encode())
            self._flush()

    def _flush(self) -> None:
        try:
            self.send_data()
        except (OSError, RuntimeError) as error:  # uvloop's, where asyncio's transport says nothing
            self._end(error)

    def _end(self, exc: Exception | None) -> None:
        if self.ended is not None:
            return
        failure = self.ended = self._how_it_ended(exc)
        self.lost.set_result(failure)
        self.dialogue.end(failure)
        if self._pong is not None and not self._pong.done():
            self._pong.set_result(failure)

    def _how_it_ended(self, exc: Exception | None) -> Failure:
        protocol, address = self.protocol, self._address
        refused = protocol.handshake_exc
        cut_short = protocol.reader.eof and isinstance(refused and refused.__cause__, EOFError)
        if refused is not None and not cut_short:
            return _refusal(refused, address)
        if protocol.close_rcvd is not None:
            code, text = protocol.close_rcvd.code, protocol.close_rcvd.reason
            reason = Reason.IDLE_CLOSED if code in _POLITE and not self.probing else Reason.CLOSED
            return Failure(reason, f"{address} closed with code {code}" + (f": {text[:120]}" if text else ""))
        broken = protocol.parser_exc
        if isinstance(broken, PayloadTooBig):
            limit = f"max_message_size {self._limit}"
            return Failure(Reason.TOO_LARGE, f"{address} sent a message of more than {limit} bytes")
        if broken is not None and not isinstance(broken, EOFError):
            return Failure(Reason.PROTOCOL, f"{address} breaks the WebSocket protocol: {broken}")
        failure = failure_from(exc, address) if exc is not None else None
        return failure or Failure(Reason.EOF, f"{address} closed the connection with no goodbye")


def _protocol(config: WebsocketConfig) -> ClientProtocol:
    host = "localhost" if config.host.startswith("/") else config.host
    path, _, query = config.path.partition("?")
    return ClientProtocol(
        WebSocketURI(config.tls is not None, host, config.port_in_use, path, query),
        origin=Origin(config.origin) if config.origin is not None else None,
        extensions=enable_client_permessage_deflate(None) if config.compression else None,
        subprotocols=[Subprotocol(name) for name in config.subprotocols] or None,
        max_size=config.max_message_size,
        logger=_log,
    )


def _refusal(error: Exception, address: str) -> Failure:
    """Say what an upgrade that did not come about means."""
    if not isinstance(error, InvalidStatus):
        told = error.__cause__ or error
        return Failure(Reason.PROTOCOL, f"{address} is no WebSocket server: {str(told)[:120]}")
    response = error.response
    status, phrase = response.status_code, response.reason_phrase[:40]
    message = f"{address} refused the upgrade with status {status} {phrase}".rstrip()
    if 300 <= status < 400:
        scheme, separator, rest = response.headers.get("Location", "").partition("?")[0].rpartition("://")
        where = f"{scheme}{separator}{rest.rpartition('@')[2]}"  # without a login, however that is written
        return Failure(Reason.REDIRECT, f"{message}, leading to {where[:120]}" if where else message)
    return Failure(_BY_STATUS.get(status, Reason.PROTOCOL), message)
