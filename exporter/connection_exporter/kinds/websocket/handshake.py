"""Owns the upgrade: the request, and what the headers of the response mean. Must not know a socket.

websockets limits a header line to 8 KiB and 128 headers, and only environment variables change that. So the headers are
read as those of any response are, and `websockets.client.ClientProtocol` gets those that concern it.
"""

import logging
from collections.abc import Sequence
from string import punctuation
from typing import Final, NamedTuple
from urllib.parse import quote

from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.websocket.config import WebsocketConfig
from connection_exporter.net.http1.head import Head
from connection_exporter.net.names import header_host

_LIST_ITEMS_LIMIT: Final = 100
"""Items in the headers that websockets parses. It takes 3 µs for each, and a real answer has fewer than ten."""

_CHECKED: Final = (b"connection", b"upgrade")
"""Headers that websockets checks, beside those that begin with `sec-websocket-`."""

_BY_STATUS: Final = {
    401: Reason.AUTH,
    403: Reason.AUTH,
    407: Reason.AUTH,
    404: Reason.MISSING,
    410: Reason.MISSING,
    429: Reason.SLOTS_FULL,
}

_log = logging.getLogger(f"{__name__}.driver")
_log.setLevel(logging.ERROR)  # at debug level, websockets logs headers and messages, which hold secrets


class UpgradeRefused(Failure):
    """The server has answered the upgrade request with another status than 101."""

    def __init__(self, reason: Reason, message: str, status: int) -> None:
        super().__init__(reason, message)
        self.status = status


class Upgrade(NamedTuple):
    """What a response with status 101 has agreed to."""

    subprotocol: str | None
    compression: bool


def client_protocol(config: WebsocketConfig) -> ClientProtocol:
    """Return the protocol of a new connection."""
    path, _, query = quote(config.path, safe=punctuation).partition("?")
    return ClientProtocol(
        WebSocketURI(config.tls is not None, header_host(config.host), config.port_in_use, path, query),
        # memLevel 5 uses 12 KiB for compression where zlib's default uses 128.
        extensions=[ClientPerMessageDeflateFactory(compress_settings={"memLevel": 5})]
        if config.compression
        else None,
        subprotocols=[Subprotocol(name) for name in config.subprotocols] or None,
        max_size=config.max_message_size,
        logger=_log,
    )


def upgrade_request(protocol: ClientProtocol, headers: Sequence[tuple[str, str]]) -> bytes:
    """Return the request of a connection. A Host among the ``headers`` replaces the one that follows from the URL."""
    request = protocol.connect()
    if any(name.lower() == "host" for name, _ in headers):
        del request.headers["Host"]
    lines = [f"GET {request.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in (*request.headers.raw_items(), *headers)]
    # Not by `send_request`: since version 16, it cannot send a character that ISO-8859-1 does not have.
    return "\r\n".join([*lines, "", ""]).encode()


def upgrade_from(head: Head, protocol: ClientProtocol, address: str) -> Upgrade:
    """Return what a response with ``head`` agrees to, and open ``protocol``. Raises `Failure`."""
    if head.status != 101:
        raise _refusal(head, address)
    headers = [
        (name, value)
        for name, value in head.headers
        if name in _CHECKED or name.startswith(b"sec-websocket-")
    ]
    listed = b",".join([value for _, value in headers])
    items = 1 + listed.count(b",") + listed.count(b";")
    if items > _LIST_ITEMS_LIMIT:
        raise _no_server(address, f"its upgrade headers list {items} items")
    lines = [b"HTTP/1.1 101 ", *(b"%s: %s" % header for header in headers), b"", b""]
    protocol.receive_data(b"\r\n".join(lines))
    protocol.events_received()
    refused = protocol.handshake_exc
    if refused is not None:
        raise _no_server(address, str(refused.__cause__ or refused)[:120])
    values = dict(headers)
    subprotocol = values.get(b"sec-websocket-protocol")
    return Upgrade(
        subprotocol.decode("latin-1") if subprotocol is not None else None,
        b"sec-websocket-extensions" in values,
    )


def _no_server(address: str, problem: str) -> Failure:
    return Failure(Reason.PROTOCOL, f"{address} is not a WebSocket server: {problem}")


def _refusal(head: Head, address: str) -> Failure:
    message = f"{address} refused the upgrade with status {head.shown_status}"
    if 300 <= head.status < 400:
        location = next(iter(head.values(b"location")), b"")
        target = _without_login(location.decode("latin-1"))
        text = f"{message}, leading to {target[:120]}" if target else message
        return UpgradeRefused(Reason.REDIRECT, text, head.status)
    return UpgradeRefused(_BY_STATUS.get(head.status, Reason.PROTOCOL), message, head.status)


def _without_login(location: str) -> str:
    """Return ``location`` without user, password and query, which may be secret."""
    scheme, separator, rest = location.partition("?")[0].rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
