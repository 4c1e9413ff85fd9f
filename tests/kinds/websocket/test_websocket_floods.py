"""A WebSocket server that sends without end: the event loop keeps running, and the session ends at a stated limit.

The servers run in threads of their own, so the CPU time of the loop's thread is only what the exporter spends.
"""

import asyncio
import random

import pytest
import trustme
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.websocket.check import WebsocketCheck
from support.attempts import attempt
from support.certificates import presenting
from support.hostile import assert_iterations_are_short
from support.watched import on_uvloop
from support.websocket_servers import check_of, deflated, flooding, frame, serving_upgraded

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
FRESH_DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"
TEXT, BINARY, FIRST, CONT, COMPRESSED, PING, PONG = 0x81, 0x82, 0x01, 0x00, 0xC1, 0x89, 0x8A

FLOODS = {
    "empty messages": (frame(TEXT) * 32768, "frames per second"),
    "messages of 300 bytes": (frame(BINARY, b"x" * 300) * 512, "frames per second"),
    "pings": (frame(PING) * 32768, "control frames per second"),
    "long pings": (frame(PING, b"x" * 125) * 2048, "control frames per second"),
    "pongs": (frame(PONG) * 32768, "control frames per second"),
}
COMPRESSED_FLOODS = {
    "tiny compressed messages": (DEFLATE, frame(COMPRESSED, b"\x00") * 16384, "frames per second"),
    "tiny messages with an inflater each": (
        FRESH_DEFLATE,
        frame(COMPRESSED, b"\x02\x00") * 8192,
        "frames per second",
    ),
    "small bombs": (DEFLATE, frame(COMPRESSED, deflated(bytes(60_000))) * 1024, "MiB per second"),
    "bombs": (DEFLATE, frame(COMPRESSED, deflated(bytes(4 * 1024**2))), "MiB per second"),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_ends_the_session_and_never_blocks_the_loop(name: str) -> None:
    """Frames, control frames and bytes per second are limited, and the message names the limit."""
    data, limit = FLOODS[name]
    with flooding(data) as port:
        await _ends(port, limit)


@pytest.mark.parametrize("name", COMPRESSED_FLOODS)
async def test_a_compressed_flood_ends_the_session_and_never_blocks_the_loop(name: str) -> None:
    """Bytes count after decompression, which is done in steps of 258 KiB at most."""
    headers, data, limit = COMPRESSED_FLOODS[name]
    with flooding(data, headers=headers) as port:
        await _ends(port, limit, compression=True)


@on_uvloop
async def test_a_flood_over_tls_ends_the_session(authority: trustme.CA) -> None:
    """On the event loop that the exporter uses, where a read returns what many TLS records held."""
    with flooding(frame(TEXT) * 32768, tls=presenting(authority.issue_cert("127.0.0.1"))) as port:
        await _ends(port, "frames per second", tls={"verify": False})


async def test_large_messages_without_end_never_block_the_loop() -> None:
    """Whether they exceed the limit on bytes per second depends on how fast the server is."""
    with flooding(frame(BINARY, b"x" * 1024**2)) as port:

        async def attack() -> None:
            async with check_of(port).connect() as session:
                await asyncio.wait([session.lost], timeout=3)
            assert not session.lost.done() or session.lost.result().reason is Reason.PROTOCOL

        await assert_iterations_are_short(attack)


async def test_endless_empty_fragments_end_the_session() -> None:
    """The number of fragments in one message is limited, whatever their size."""
    with flooding(frame(CONT) * 32768, first=frame(FIRST)) as port:
        await _ends(port, "fragments")


@pytest.mark.parametrize(
    ("headers", "first", "data"),
    [
        ("", frame(FIRST), frame(CONT, b"x" * 1024) * 64),
        ("", b"", b"\x82\x7f" + (2**63 - 1).to_bytes(8)),
        (DEFLATE, b"", frame(COMPRESSED, deflated(bytes(64 * 1024**2)))),
        (DEFLATE, frame(0x41), frame(CONT, deflated(bytes(65536)) + b"\x00\x00\xff\xff") * 64),
    ],
    ids=["fragments", "announced", "bomb", "bomb in fragments"],
)
async def test_a_message_of_any_form_is_limited_in_bytes(headers: str, first: bytes, data: bytes) -> None:
    """`max_message_size` holds for frames, fragments and what they inflate to."""
    with flooding(data, first=first, headers=headers) as port:
        failure = await _lost(port, compression=bool(headers))
    assert failure.reason is Reason.TOO_LARGE
    assert "max_message_size 4194304" in failure.message


async def test_the_largest_messages_that_are_allowed_never_block_the_loop() -> None:
    """64 MiB in one frame, and a bomb that inflates to 64 MiB, are received while a dialogue waits."""
    large = frame(TEXT, b"x" * 64 * 1024**2)
    bomb = frame(COMPRESSED, deflated(bytes(64 * 1024**2)))
    for headers, message in (("", large), (DEFLATE, bomb)):
        with flooding(b"", first=message + frame(TEXT, b"ready"), headers=headers) as port:
            check = check_of(
                port,
                compression=bool(headers),
                max_message_size=64 * 1024**2,
                on_connect=[{"expect": "^ready$", "within": "20s"}],
                timeout="25s",
            )

            async def attack(check: WebsocketCheck = check) -> None:
                async with asyncio.timeout(25), check.connect() as session:
                    assert not session.lost.done()

            await assert_iterations_are_short(attack)


async def test_an_expensive_pattern_never_blocks_the_loop() -> None:
    """RE2 needs time for each byte and instruction, so fewer bytes of a message are searched."""
    letters = random.Random(1).choices("ab", k=65_536)
    message = frame(TEXT, "".join(letters).encode())
    pattern = "([ab]*a[ab]{200}c|(([ab]{1,100}){1,9})x)"
    with flooding(b"", first=message * 8 + frame(TEXT, b"no more")) as port:
        check = check_of(
            port, on_connect=[{"expect": f"{pattern}|^no more$", "within": "20s"}], timeout="25s"
        )

        async def attack() -> None:
            async with asyncio.timeout(25), check.connect() as session:
                assert not session.lost.done()

        await assert_iterations_are_short(attack)


async def test_a_server_that_does_not_read_what_a_dialogue_sends_is_given_up() -> None:
    """What waits to be sent is limited."""

    async def never_read(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(20)

    async with serving_upgraded(never_read) as port:
        failure = await attempt(check_of(port, on_connect=[{"send": "x" * 2**20}] * 16))
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.PROTOCOL
    assert "does not read" in failure.message


async def test_a_server_that_pings_and_never_reads_is_given_up() -> None:
    """Pongs that are never read do not fill the memory."""
    with flooding(frame(PING, b"x" * 125) * 100) as port:
        assert (await _lost(port)).reason is Reason.PROTOCOL


async def test_a_busy_stream_is_no_flood() -> None:
    """Thousands of messages in one burst are received, counted, and cause no loss."""

    async def burst(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(5):
            writer.write(frame(TEXT, b'{"symbol": "BTCUSDT", "price": "65000.10"}') * 4000)
            await writer.drain()
            await asyncio.sleep(0.2)
        ping = await reader.readexactly(10)
        pong = bytes(a ^ b for a, b in zip(ping[6:], ping[2:6], strict=True))
        writer.write(frame(PONG, pong))
        await reader.read()

    async with serving_upgraded(burst) as port, check_of(port).connect() as session:
        async with asyncio.timeout(20):
            first = await session.probe()
        assert first.counts["messages"] == 20_000
        assert not session.lost.done()


async def _ends(port: int, limit: str, **config: object) -> None:
    failure = await _lost(port, **config)
    assert failure.reason is Reason.PROTOCOL
    # A machine under load may be too slow to receive that many per second; then the last limit applies.
    assert limit in failure.message or "than the exporter can read" in failure.message


async def _lost(port: int, **config: object) -> Failure:
    """Attack the exporter, hold the limit on iterations, and return why the session was lost."""
    failures: list[Failure] = []

    async def attack() -> None:
        async with check_of(port, **config).connect() as session:
            failures.append(await asyncio.wait_for(session.lost, 30))

    await assert_iterations_are_short(attack)
    return failures[-1]
