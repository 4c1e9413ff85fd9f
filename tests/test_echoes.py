"""Servers of each kind that echo what they were sent: in errors, close reasons, reason phrases and redirects."""

import asyncio
import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest
from connection_exporter.core.health import Status
from connection_exporter.kinds import load_text
from connection_exporter.monitor import snapshot
from connection_exporter.monitor.monitor import Monitor

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SECRETS = ("tr0ub4dor&3", 'p@ss "word"/%41\\', "пароль-секрет-1", "correct horse battery staple")


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                await serve(reader, writer)
                await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(once, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def redis_with_auth_renamed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as Redis does: with the first characters of each argument."""
    while head := await reader.readline():
        words = []
        for _ in range(int(head[1:])):
            size = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size + 2))[:-2])
        arguments = b" ".join(b"'%s'" % word[:128] for word in words[1:])
        error = b"-ERR unknown command '%s', with args beginning with: %s \r\n" % (words[0], arguments)
        writer.write(error.replace(b"\n", b"") if b"\n" in error[:-2] else error)


async def postgresql_with_the_password_in_its_error(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    (size,) = struct.unpack("!i", await reader.readexactly(4))
    startup = await reader.readexactly(size - 4)
    if startup[:4] == struct.pack("!i", 80877103):  # SSLRequest
        writer.write(b"N")
        (size,) = struct.unpack("!i", await reader.readexactly(4))
        await reader.readexactly(size - 4)
    writer.write(b"R" + struct.pack("!ii", 8, 3))  # AuthenticationCleartextPassword
    await reader.readexactly(1)
    (size,) = struct.unpack("!i", await reader.readexactly(4))
    password = (await reader.readexactly(size - 4))[:-1]
    fields = b'SFATAL\0VFATAL\0C28P01\0Mno entry for app with password "' + password + b'"\0\0'
    writer.write(b"E" + struct.pack("!i", len(fields) + 4) + fields)


async def http_with_the_request_in_its_reason(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    echoed = b" ".join(
        line for line in head if line.lower().startswith((b"authorization", b"cookie", b"x-key"))
    )
    writer.write(b"HTTP/1.1 401 no " + echoed + b"\r\nContent-Length: %d\r\n\r\n" % len(echoed) + echoed)


async def http_that_redirects_to_the_token(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    login = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization: basic "))
    password = base64.b64decode(login.split()[-1]).decode().partition(":")[2]
    writer.write(
        b"HTTP/1.1 302 Found\r\nLocation: /login/"
        + quote(password).encode()
        + b"\r\nContent-Length: 0\r\n\r\n"
    )


async def websocket_with_the_message_in_its_close_reason(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")).split()[
        -1
    ]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    _, length = await reader.readexactly(2)
    mask = await reader.readexactly(4)
    message = bytes(byte ^ mask[i % 4] for i, byte in enumerate(await reader.readexactly(length & 127)))
    reason = b"bad: " + message[:100].decode("utf-8", "ignore").encode()
    writer.write(b"\x88" + bytes([len(reason) + 2]) + struct.pack("!H", 4001) + reason)
    await writer.drain()
    await reader.read(100)


async def anything_that_echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(100):
        if not (chunk := await reader.read(65536)):
            return
        writer.write(chunk)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    ("keys", "serve"),
    [
        ('kind: redis, password: "${SECRET}"', redis_with_auth_renamed),
        ('kind: redis, password: "${SECRET}"', anything_that_echoes),
        ('kind: postgresql, user: app, password: "${SECRET}"', postgresql_with_the_password_in_its_error),
        ('kind: postgresql, user: app, password: "${SECRET}"', anything_that_echoes),
        ('kind: http, user: app, password: "${SECRET}"', http_with_the_request_in_its_reason),
        ('kind: http, user: app, password: "${SECRET}"', http_that_redirects_to_the_token),
        ('kind: http, user: app, password: "${SECRET}"', anything_that_echoes),
        (
            'kind: tcp, on_connect: {send: "${SECRET}", expect: x, within: 200ms}',
            anything_that_echoes,
        ),
        (
            'kind: websocket, on_connect: {send: "${SECRET}", expect: x}',
            websocket_with_the_message_in_its_close_reason,
        ),
        ('kind: websocket, user: app, password: "${SECRET}"', anything_that_echoes),
        ('kind: websocket, user: app, password: "${SECRET}"', http_with_the_request_in_its_reason),
    ],
)
async def test_what_a_server_echoes_is_not_published(keys: str, serve: Serve, secret: str) -> None:
    """Neither on the board nor in a transition, which is what events, log, history and callbacks get."""
    async with serving(serve) as port:
        text = f"services: {{it: {{{keys}, host: 127.0.0.1, port: {port}, retries: 1, canary: off}}}}"
        async with Monitor(load_text(text, environ={"SECRET": secret})) as monitor:
            await monitor.force_check()
            record = monitor.board.record("it")
            assert record.status is not Status.HEALTHY
            assert record.trouble.message
            published = json.dumps(snapshot.with_transitions(record), ensure_ascii=False)
    pieces = {
        secret,
        secret[:8],
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        secret.encode().decode("latin-1"),
    }
    pieces |= {
        base64.b64encode(f"app:{secret}".encode()).decode()[8:20],
        repr(secret)[1:-1],
        ascii(secret)[1:-1],
    }
    assert [piece for piece in pieces if piece in published] == []
