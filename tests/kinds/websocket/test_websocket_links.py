"""Kind websocket: how a connection ends, and servers that are not WebSocket servers."""

import asyncio
import socket
import struct
from http import HTTPStatus
from pathlib import Path

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from support import streams
from support.attempts import attempt, held
from support.streams import Handler
from support.websocket_servers import check_of, serving, serving_upgraded
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1000, Reason.IDLE_CLOSED),
        (1001, Reason.IDLE_CLOSED),
        (1008, Reason.CLOSED),
        (1011, Reason.CLOSED),
        (4001, Reason.CLOSED),
    ],
)
async def test_a_close_frame_is_noticed_immediately(code: int, reason: Reason) -> None:
    """Codes 1000 and 1001 are `idle_closed`. The failure contains the code and the reason text."""
    close = asyncio.Event()

    async def _closes(connection: ServerConnection) -> None:
        await close.wait()
        await connection.close(code, "as I please")

    async with serving(_closes) as port, held(check_of(port)) as (session, _):
        close.set()
        failure = await asyncio.wait_for(session.lost, 5)
        assert failure.reason is reason
        assert f"code {code}" in failure.message
        assert "as I please" in failure.message
        with pytest.raises(Failure):
            await session.probe()


async def test_a_close_frame_during_a_probe_is_not_idle_closed() -> None:
    """The server closes instead of answering a ping, so the reason is `closed` even with code 1000."""

    async def _closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x88\x02" + struct.pack("!H", 1000))
        await reader.read()

    async with serving_upgraded(_closes) as port:
        failure = await attempt(check_of(port))
        assert isinstance(failure, Failure)
        assert failure.reason is Reason.CLOSED


@pytest.mark.parametrize(("linger", "reason"), [(False, Reason.EOF), (True, Reason.RESET)])
async def test_eof_and_reset_are_different_reasons(linger: bool, reason: Reason) -> None:
    """Both are noticed immediately."""
    cut = asyncio.Event()

    async def _cuts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frame = await reader.readexactly(10)
        writer.write(b"\x8a\x04" + bytes(a ^ b for a, b in zip(frame[6:], frame[2:6], strict=True)))
        await cut.wait()
        if linger:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with serving_upgraded(_cuts) as port, held(check_of(port)) as (session, _):
        cut.set()
        assert (await asyncio.wait_for(session.lost, 5)).reason is reason


async def test_a_server_that_does_not_answer_a_ping_times_out() -> None:
    """The failure says that the pong is missing."""

    async def _silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with serving_upgraded(_silent) as port:
        failure = await attempt(check_of(port), timeout=0.2)
        assert failure.reason is Reason.TIMEOUT
        assert "a ping" in failure.message


async def test_a_server_that_does_not_answer_the_upgrade_times_out() -> None:
    """The failure says that the response to the upgrade is missing."""

    async def _silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with streams.serving(_silent) as port:
        failure = await attempt(check_of(port), timeout=0.2)
        assert failure.reason is Reason.TIMEOUT
        assert "upgrade" in failure.message


async def test_cancelled_attempts_leave_nothing_open() -> None:
    """Fifty attempts reach their deadline, and no file descriptor stays open."""
    async with streams.serving(lambda reader, _: _forever(reader)) as port:
        check = check_of(port)
        await attempt(check, timeout=0.5)
        await asyncio.sleep(0.1)
        before = _open_files()
        await asyncio.gather(*(attempt(check, timeout=1) for _ in range(50)))
        async with asyncio.timeout(5):
            while _open_files() > before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def _forever(reader: asyncio.StreamReader) -> None:
    await reader.read(-1)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (200, Reason.PROTOCOL),
        (302, Reason.REDIRECT),
        (401, Reason.AUTH),
        (403, Reason.AUTH),
        (404, Reason.MISSING),
        (429, Reason.SLOTS_FULL),
        (500, Reason.PROTOCOL),
        (503, Reason.PROTOCOL),
    ],
)
async def test_a_refused_upgrade_reports_the_status(status: int, reason: Reason) -> None:
    """Redirects are not followed; the failure contains the target without login and query."""

    def _refuse(connection: ServerConnection, _: Request) -> Response:
        response = connection.respond(HTTPStatus(status), "no")
        response.headers["Location"] = "https://me:sec/ret@elsewhere.example/login?token=secret"
        return response

    async with serving(process_request=_refuse) as port:
        failure = await attempt(check_of(port))
        assert isinstance(failure, Failure)
        assert failure.reason is reason
        assert str(status) in failure.message
        assert "sec" not in failure.message
        assert ("elsewhere.example" in failure.message) is (status == 302)


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    await reader.read(-1)


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def _wrong_key(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
    writer.write(b"Sec-WebSocket-Accept: bm8=\r\n\r\n")
    await reader.read(-1)


async def _closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(65536)
    writer.transport.abort()


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (_garbage, Reason.PROTOCOL),
        (_endless, Reason.PROTOCOL),
        (_wrong_key, Reason.PROTOCOL),
        (_closes, Reason.EOF),
    ],
)
async def test_a_server_of_another_protocol_is_recognized(handler: Handler, reason: Reason) -> None:
    """The exporter does not wait for the end of what it sends."""
    async with streams.serving(handler) as port:
        failure = await attempt(check_of(port))
        assert isinstance(failure, Failure)
        assert failure.reason is reason


async def test_frames_that_break_the_protocol_end_the_session() -> None:
    """A masked frame from a server is forbidden (RFC 6455, section 5.1)."""

    async def _breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x81\x81abcdx")
        await reader.read(-1)

    async with serving_upgraded(_breaks) as port:
        assert (await attempt(check_of(port))).reason is Reason.PROTOCOL


async def test_a_message_over_max_message_size_is_too_large() -> None:
    """A frame whose header announces more than max_message_size is refused before its payload is read."""

    async def _huge(connection: ServerConnection) -> None:
        await connection.send("x" * 5000)
        await connection.wait_closed()

    async with serving(_huge) as port:
        failure = await attempt(check_of(port, max_message_size=4096))
        assert failure.reason is Reason.TOO_LARGE
        assert "4096" in failure.message
