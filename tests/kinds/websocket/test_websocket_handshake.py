"""The response to an upgrade request: what other clients accept is accepted, and its size is limited."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Observation
from connection_exporter.kinds.websocket.connection import WebsocketConnection
from connection_exporter.net import Network
from support import streams
from support.attempts import attempt
from support.websocket_servers import check_of, config_of, frame, response_to


async def upgraded(respond: Callable[[str], bytes], **config: object) -> Observation | Failure:
    """Attempt a session with a server that sends what ``respond`` makes of the request, and answers pings."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        await send(writer, respond(request))
        while True:
            ping = await reader.readexactly(10)
            writer.write(frame(0x8A, bytes(a ^ b for a, b in zip(ping[6:], ping[2:6], strict=True))))

    send: Callable[[asyncio.StreamWriter, bytes], Awaitable[None]] = _send_at_once
    if config.pop("byte_by_byte", False):
        send = _send_byte_by_byte
    async with streams.serving(serve) as port:
        return await attempt(check_of(port, **config))


async def _send_at_once(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)


async def _send_byte_by_byte(writer: asyncio.StreamWriter, data: bytes) -> None:
    for index in range(len(data)):
        writer.write(data[index : index + 1])
        await asyncio.sleep(0)


ACCEPTED = {
    "a header line of 60 KiB": lambda request: response_to(request, f"X-Policy: {'x' * 61_000}\r\n"),
    "200 headers": lambda request: response_to(request, "X-Trace: 1\r\n" * 200),
    "bare line feeds": lambda request: response_to(request).replace(b"\r\n", b"\n"),
    "a folded header": lambda request: response_to(request).replace(b"Upgrade: web", b"Upgrade:\r\n web"),
    "a space before the colon": lambda request: response_to(request).replace(b"Upgrade:", b"Upgrade :"),
    "other cases": lambda request: response_to(request).replace(b": websocket", b": WebSocket"),
    "no reason phrase": lambda request: response_to(request).replace(b" Switching Protocols", b""),
    "an early hint": lambda request: b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + response_to(request),
    "a message in the same packet": lambda request: response_to(request) + frame(0x81, b"hello") * 100,
}


@pytest.mark.parametrize(
    ("name", "byte_by_byte"),
    [(name, False) for name in ACCEPTED] + [(name, True) for name in ACCEPTED if "KiB" not in name],
)
async def test_an_unusual_response_is_accepted(name: str, byte_by_byte: bool) -> None:
    """In one packet, and byte by byte."""
    answer = await upgraded(ACCEPTED[name], byte_by_byte=byte_by_byte)
    assert isinstance(answer, Observation), answer
    assert answer.reason is None


async def test_messages_in_the_packet_of_the_response_are_counted() -> None:
    """They are not lost between the two parsers."""
    answer = await upgraded(ACCEPTED["a message in the same packet"])
    assert isinstance(answer, Observation)
    assert answer.counts["messages"] == 100


REFUSED = {
    "headers over 64 KiB": (
        lambda request: response_to(request, f"X-Policy: {'x' * 66_000}\r\n"),
        Reason.TOO_LARGE,
        "longer than 64 KiB",
    ),
    "headers without end": (
        lambda _: b"HTTP/1.1 101 Switching Protocols\r\n" + b"a:\r\n" * 20_000,
        Reason.TOO_LARGE,
        "more than 1000 headers",
    ),
    "interim responses without end": (
        lambda _: b"HTTP/1.1 103 Early Hints\r\n\r\n" * 4000,
        Reason.TOO_LARGE,
        "more than 1000 headers",
    ),
    "a long list": (
        lambda request: response_to(request, f"Sec-WebSocket-Extensions: {'a,' * 20_000}\r\n"),
        Reason.PROTOCOL,
        "20004 items",
    ),
    "an extension that was not offered": (
        lambda request: response_to(request, "Sec-WebSocket-Extensions: permessage-deflate\r\n"),
        Reason.PROTOCOL,
        "no extensions supported",
    ),
    "a header without a colon": (
        lambda request: response_to(request, "garbage\r\n"),
        Reason.PROTOCOL,
        "violates HTTP: a header without a colon: 'garbage'",
    ),
    "TLS": (lambda _: b"\x15\x03\x03\x00\x02\x02\x32", Reason.PROTOCOL, "wss://"),
    "an invalid status": (
        lambda _: b"HTTP/1.1 hello\r\n\r\n",
        Reason.PROTOCOL,
        "the status line is 'HTTP/1.1 hello'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_response_that_cannot_be_accepted_is_a_failure(name: str) -> None:
    """With the reason, and what is wrong with it."""
    respond, reason, message = REFUSED[name]
    failure = await upgraded(respond)
    assert isinstance(failure, Failure)
    assert failure.reason is reason
    assert message in failure.message


async def test_a_response_in_the_moment_of_the_deadline_is_not_parsed_any_more() -> None:
    """The attempt is cancelled, but its task has not run yet when the response arrives: uvloop reads in between."""
    response: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        response.set_result(response_to((await reader.readuntil(b"\r\n\r\n")).decode()))
        await reader.read()

    async with streams.serving(serve) as port:
        config = config_of(host="127.0.0.1", port=port)
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: WebsocketConnection(config, (), Network().pacer), "127.0.0.1", port
        )
        opening = asyncio.create_task(connection.open([]))
        arrived = await response
        opening.cancel()
        connection.data_received(arrived)
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert connection.upgrade is None
        connection.leave()
