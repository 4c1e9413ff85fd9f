"""Owns the answer to an upgrade request: what its headers mean. Must not know a socket.

websockets limits a header line to 8 KiB and 128 headers, and only environment variables change that. So the headers are
read as those of any response are, and `websockets.client.ClientProtocol` gets those that concern it.
"""

from dataclasses import dataclass
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net.http1.head import Head

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


class UpgradeRefused(Failure):
    """The server has answered the upgrade request with another status than 101."""

    def __init__(self, reason: Reason, message: str, status: int) -> None:
        super().__init__(reason, message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A response with status 101.

    ``response`` has the headers that `ClientProtocol` needs to check it.
    """

    response: bytes
    subprotocol: str | None
    compression: bool


def upgrade_from(head: Head, address: str) -> Upgrade:
    """Return the upgrade that a response with ``head`` agrees to. Raises `Failure`."""
    if head.status != 101:
        raise _refusal(head, address)
    headers = [(name, value) for name, value in head.headers if _is_checked(name)]
    items = sum(1 + value.count(b",") + value.count(b";") for _, value in headers)
    if items > _LIST_ITEMS_LIMIT:
        problem = f"its upgrade headers list {items} items"
        raise Failure(Reason.PROTOCOL, f"{address} is not a WebSocket server: {problem}")
    values = dict(headers)
    subprotocol = values.get(b"sec-websocket-protocol")
    return Upgrade(
        b"".join([b"HTTP/1.1 101 \r\n", *(b"%s: %s\r\n" % header for header in headers), b"\r\n"]),
        subprotocol.decode("latin-1") if subprotocol is not None else None,
        b"sec-websocket-extensions" in values,
    )


def _is_checked(name: bytes) -> bool:
    return name in _CHECKED or name.startswith(b"sec-websocket-")


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
