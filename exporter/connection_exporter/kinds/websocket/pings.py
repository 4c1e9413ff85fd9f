"""Owns pings and pongs as they are sent. Must not know a socket.

`websockets.client.ClientProtocol` can do the same, but takes 200 opcodes for each.
"""

import os
from typing import Final

_PING: Final = b"\x89\x84"  # it is masked, as every frame from a client is
PONG: Final = b"\x8a\x04"
"""The header of a pong from a server, with 4 bytes of payload, as our pings have."""


def ping() -> tuple[bytes, bytes]:
    """Return a ping, and its random payload.

    The key that masks the payload is random as well (RFC 6455, section 5.3), and so is the result. That is why the key
    and the masked payload can be drawn together, and the payload follows from them.
    """
    drawn = os.urandom(8)
    payload = int.from_bytes(drawn[:4]) ^ int.from_bytes(drawn[4:])
    return _PING + drawn, payload.to_bytes(4)


def pong(payload: bytes) -> bytes:
    """Return the pong that answers a ping with ``payload``, masked with a random key."""
    key = os.urandom(4)
    mask = (key * 32)[: len(payload)]
    masked = int.from_bytes(payload) ^ int.from_bytes(mask)
    return bytes((0x8A, 0x80 | len(payload))) + key + masked.to_bytes(len(payload))
