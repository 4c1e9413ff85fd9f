"""Kind websocket: how a link ends, and what is no WebSocket."""

import asyncio
import socket
import struct
from http import HTTPStatus
from pathlib import Path

import pytest
from attempts import attempt, held
from websocket_servers import Raw, check_of, serving, serving_raw
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from exporter.check import Failure
from exporter.core.health import Reason


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
async def test_a_close_is_noticed_at_once_with_its_code(code: int, reason: Reason) -> None:
    """Only 1000 and 1001 are polite; the code and the server's words are in the message."""
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


async def test_a_close_in_mid_probe_is_no_idle_close() -> None:
    """A server that closes instead of answering a ping is not just tidying up."""

    async def _closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x88\x02" + struct.pack("!H", 1000))
        await reader.read()

    async with serving_raw(_closes, upgraded=True) as port:
        failure = await attempt(check_of(port))
        assert isinstance(failure, Failure)
        assert failure.reason is Reason.CLOSED


@pytest.mark.parametrize(("linger", "reason"), [(False, Reason.EOF), (True, Reason.RESET)])
async def test_an_end_with_no_goodbye_is_told_from_a_reset(linger: bool, reason: Reason) -> None:
    """FIN and RST are two reasons, and each is noticed at once."""
    cut = asyncio.Event()

    async def _cuts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frame = await reader.readexactly(10)
        writer.write(b"\x8a\x04" + bytes(a ^ b for a, b in zip(frame[6:], frame[2:6], strict=True)))
        await cut.wait()
        if linger:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with serving_raw(_cuts, upgraded=True) as port, held(check_of(port)) as (session, _):
        cut.set()
        assert (await asyncio.wait_for(session.lost, 5)).reason is reason


async def test_a_server_that_answers_no_ping_times_out() -> None:
    """Upgraded and silent: what was waited for is told."""

    async def _silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with serving_raw(_silent, upgraded=True) as port:
        failure = await attempt(check_of(port), timeout=0.2)
        assert failure.reason is Reason.TIMEOUT
        assert "no ping" in failure.message


async def test_a_server_that_does_not_answer_the_upgrade_times_out() -> None:
    """Connected and silent is another message."""

    async def _silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with serving_raw(_silent) as port:
        failure = await attempt(check_of(port), timeout=0.2)
        assert failure.reason is Reason.TIMEOUT
        assert "upgrade" in failure.message


async def test_cancelled_attempts_leave_nothing_open() -> None:
    """Fifty attempts that ran into their deadline, and no file descriptor of ours more than before."""
    async with serving_raw(lambda reader, _: _forever(reader)) as port:
        check = check_of(port)
        await attempt(check, timeout=0.05)
        await asyncio.sleep(0.1)
        before = _open_files()
        await asyncio.gather(*(attempt(check, timeout=0.1) for _ in range(50)))
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
async def test_a_refused_upgrade_says_its_status(status: int, reason: Reason) -> None:
    """Redirects are not followed; where they lead is told, without the query."""

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
async def test_what_is_no_websocket_is_told(handler: Raw, reason: Reason) -> None:
    """Nothing of it is waited for to its end."""
    async with serving_raw(handler) as port:
        failure = await attempt(check_of(port))
        assert isinstance(failure, Failure)
        assert failure.reason is reason


async def test_frames_that_break_the_protocol_end_the_session() -> None:
    """A masked frame from a server is forbidden (RFC 6455, section 5.1)."""

    async def _breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x81\x81abcdx")
        await reader.read(-1)

    async with serving_raw(_breaks, upgraded=True) as port:
        assert (await attempt(check_of(port))).reason is Reason.PROTOCOL


async def test_a_message_without_bound_is_too_large() -> None:
    """A frame that announces more than max_message_size is refused before it is read."""

    async def _huge(connection: ServerConnection) -> None:
        await connection.send("x" * 5000)
        await connection.wait_closed()

    async with serving(_huge) as port:
        failure = await attempt(check_of(port, max_message_size=4096))
        assert failure.reason is Reason.TOO_LARGE
        assert "4096" in failure.message


async def test_a_server_that_only_pings_and_never_reads_is_given_up() -> None:
    """Pongs that nobody reads would fill our memory."""

    async def _pings(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        while True:
            writer.write((b"\x89\x7d" + b"x" * 125) * 1000)
            await writer.drain()

    async with serving_raw(_pings, upgraded=True) as port, check_of(port).connect() as session:
        failure = await asyncio.wait_for(session.lost, 20)
        assert failure.reason is Reason.PROTOCOL
