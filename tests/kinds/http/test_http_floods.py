"""Hostile HTTP servers: whatever they send, no iteration of the event loop takes more than 10 ms of CPU."""

import asyncio
import gzip
import random
import sys
from collections.abc import Awaitable
from importlib import import_module
from typing import Any

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Observation
from support.hostile import assert_iterations_are_short, flooding
from support.http_servers import attempt, check, reply

brotli: Any = import_module("brotli")
zstd: Any = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def dynamic_blocks(count: int) -> bytes:
    """Return ``count`` empty blocks of 90 bits, for each of which zlib builds two tables (RFC 1951, section 3.2.7)."""
    value = length = 0
    fields = [(0, 1), (2, 2), (0, 5), (0, 5), (14, 4)]
    order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1]
    fields += [(1 if symbol in (18, 1) else 0, 3) for symbol in order]
    fields += [(1, 1), (127, 7), (1, 1), (107, 7), (0, 1), (0, 1), (0, 1)]
    for number, bits in fields * count:
        value |= number << length
        length += bits
    return value.to_bytes((length + 7) // 8, "little")


async def result_of(probe: Awaitable[Observation]) -> Observation | Failure:
    try:
        return await probe
    except Failure as failure:
        return failure


async def outcome(port: int, **keys: object) -> Observation | Failure:
    return await result_of(attempt(check(f"http://127.0.0.1:{port}/", **keys), timeout=40))


async def reason_of_flood(head: bytes, piece: bytes = b"", **keys: object) -> Reason | None:
    """Attack with ``head`` and ``piece``, hold the limit on iterations, and return the reason that is reported."""
    with flooding(head, piece) as port:
        await outcome(port, **keys)  # the first attempt also loads modules

        async def attack() -> None:
            reasons.append((await outcome(port, **keys)).reason)

        reasons: list[Reason | None] = []
        await assert_iterations_are_short(attack)
    assert len(set(reasons)) == 1
    return reasons[0]


@pytest.mark.parametrize(
    ("head", "piece", "reason"),
    [
        pytest.param(CHUNKED, b"1\r\nx\r\n" * 40_000, Reason.TOO_LARGE, id="chunks of one byte"),
        pytest.param(CHUNKED + b"5;", b"x" * 2**20, Reason.TOO_LARGE, id="a chunk extension of megabytes"),
        pytest.param(CHUNKED, b"1;a=b\r\nx\r\n" * 30_000, Reason.TOO_LARGE, id="many chunk extensions"),
        pytest.param(CHUNKED + b"0\r\n", b"a:\r\n" * 60_000, Reason.TOO_LARGE, id="trailers without end"),
        pytest.param(CHUNKED + b"0\r\na: ", b"x" * 2**20, Reason.TOO_LARGE, id="a trailer without end"),
        pytest.param(
            b"", b"HTTP/1.1 100 \r\n\r\n" * 15_000, Reason.TOO_LARGE, id="interim responses without end"
        ),
        pytest.param(
            b"",
            b"HTTP/1.1 103 \r\na:b\r\n\r\n" * 15_000,
            Reason.TOO_LARGE,
            id="interim responses with headers",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"a:\r\n" * 60_000, Reason.TOO_LARGE, id="headers without end"),
        pytest.param(b"HTTP/1.1 200 OK\r\na: ", b"x" * 2**20, Reason.TOO_LARGE, id="a header without end"),
        pytest.param(b"HTTP/1.1 200 ", b"x" * 2**20, Reason.TOO_LARGE, id="a reason phrase without end"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 2**20, Reason.TOO_LARGE, id="a body without end"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 4000 + b"\r\n\r\n",
            b"x" * 2**20,
            Reason.PROTOCOL,
            id="a length of 4,000 digits",
        ),
        pytest.param(EMPTY, EMPTY * 6_000, None, id="responses that nobody requested"),
        pytest.param(reply(b"x" * 65_000), b"\r\n" * 100_000, None, id="line breaks after the response"),
        pytest.param(b"\r\n" * 100_000, b"\r\n", Reason.PROTOCOL, id="line breaks before the response"),
        pytest.param(
            reply(b"", "302 Found", "Location: http://" + 'é"<>' * 10_000 + "/"),
            b"",
            Reason.REDIRECT,
            id="a Location of 60 KB",
        ),
        pytest.param(
            reply(b"", "302 Found", "Location: /" + 'é"<%20' * 1_000 + "?" + "&= é" * 200),
            b"",
            Reason.REDIRECT,
            id="a Location of 8 KB",
        ),
        pytest.param(
            reply(b"", "302 Found", "Location: " + "a/../" * 1_600),
            b"",
            Reason.REDIRECT,
            id="a Location of dots",
        ),
    ],
)
async def test_a_flood_costs_no_iteration_more_than_10_ms(
    head: bytes, piece: bytes, reason: Reason | None
) -> None:
    """The attempt ends with a stated reason; a complete response is good whatever follows it."""
    assert await reason_of_flood(head, piece) is reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"[" * 65_536, Reason.EXPECT, id="brackets"),
        pytest.param(b"[" * 900 + b"]" * 900, Reason.EXPECT, id="deep lists"),
        pytest.param(b'{"a":' * 13_000, Reason.EXPECT, id="objects"),
        pytest.param(b'{"status": ' + b"1" * 60_000 + b"}", Reason.EXPECT, id="an integer of 60,000 digits"),
        pytest.param(b'{"status": ' + b"1" * 60_000 + b".5}", Reason.EXPECT, id="a number of 60,000 digits"),
        pytest.param(
            b"[" + b",".join([b"1" * 4200] * 15) + b"]", Reason.EXPECT, id="integers of 4,200 digits"
        ),
        pytest.param(b"[" + b"0.1," * 16_000 + b"1]", Reason.EXPECT, id="numbers"),
        pytest.param(b"[" + b"[]," * 21_000 + b"1]", Reason.EXPECT, id="empty lists"),
        pytest.param(
            b"{" + b",".join(b'"%d":0' % n for n in range(7000)) + b',"status":"ok"}', None, id="many keys"
        ),
        pytest.param(b'{"status": "' + b"x" * 65_000 + b'"}', Reason.EXPECT, id="a long string"),
        pytest.param(b'{"status": "' + rb"\ud83d" * 10_000 + b'"}', Reason.EXPECT, id="half surrogate pairs"),
        pytest.param(b'{"status": "' + b"\xff" * 65_000 + b'"}', Reason.EXPECT, id="invalid UTF-8"),
    ],
)
async def test_json_of_64_kib_costs_no_iteration_more_than_10_ms(body: bytes, reason: Reason | None) -> None:
    """Parsing it and evaluating many conditions included."""
    conditions = {"status": "ok", **{f"other{number}": {"exists": False} for number in range(20)}}
    reason_seen = await reason_of_flood(reply(body), expect={"json": conditions})
    assert reason_seen is reason


@pytest.mark.parametrize(
    ("pattern", "alphabet"),
    [
        ("^(a+)+!$", "a"),
        (".{0,200}error", "ab\u00e9\u20ac\U0001f600"),
        ("[ab]*a[ab]{200}c", "ab"),
        ("(([ab]{1,100}){1,9})x", "ab"),
    ],
)
async def test_the_worst_bodies_for_a_pattern_cost_no_iteration_more_than_10_ms(
    pattern: str, alphabet: str
) -> None:
    """RE2 is linear, but needs seconds for 64 KiB in the worst case: it runs in a thread, without Python's lock."""
    letters = random.Random(1).choices(alphabet, k=65_536)
    body = "".join(letters).encode()[:65_536]
    assert await reason_of_flood(reply(body), expect={"body": pattern}) is Reason.EXPECT


async def test_the_worst_headers_for_a_pattern_cost_no_iteration_more_than_10_ms() -> None:
    """Headers may have 64 KiB too."""
    value = "".join(random.Random(1).choices("ab", k=60_000))
    head = reply(b"", "200 OK", f"X: {value}")
    assert await reason_of_flood(head, expect={"headers": {"X": "[ab]*a[ab]{200}c"}}) is Reason.EXPECT


@pytest.mark.parametrize(
    ("coding", "packed", "reason"),
    [
        pytest.param("gzip", gzip.compress(bytes(60 * 2**20)), Reason.TOO_LARGE, id="a bomb"),
        pytest.param(
            "gzip", gzip.compress(gzip.compress(bytes(60 * 2**20))), Reason.EXPECT, id="a bomb in gzip"
        ),
        pytest.param("gzip", gzip.compress(b"") * 1_000, Reason.EXPECT, id="as many gzip members as allowed"),
        pytest.param("gzip", gzip.compress(b"") * 3_200, Reason.TOO_LARGE, id="empty gzip members"),
        pytest.param("deflate", b"\0\0\0\xff\xff" * 13_000, Reason.EXPECT, id="empty stored blocks"),
        pytest.param("deflate", dynamic_blocks(5_800), Reason.EXPECT, id="empty blocks with tables"),
        pytest.param("br", brotli.compress(bytes(60 * 2**20)), Reason.TOO_LARGE, id="a brotli bomb"),
        pytest.param("br", b"\x03" * 65_000, Reason.EXPECT, id="data after an empty brotli stream"),
        pytest.param("zstd", zstd.compress(bytes(60 * 2**20)), Reason.TOO_LARGE, id="a zstd bomb"),
        pytest.param("zstd", zstd.compress(b"") * 5_000, Reason.TOO_LARGE, id="empty zstd frames"),
        pytest.param(
            "zstd", b"\x50\x2a\x4d\x18\0\0\0\0" * 8_000, Reason.TOO_LARGE, id="skippable zstd frames"
        ),
        pytest.param("gzip, " * 5_000 + "gzip", gzip.compress(b""), Reason.EXPECT, id="thousands of codings"),
    ],
)
async def test_a_compressed_body_costs_no_iteration_more_than_10_ms(
    coding: str, packed: bytes, reason: Reason
) -> None:
    """It is decompressed in a thread, up to `body_limit`."""
    assert len(packed) <= 65_536
    head = reply(packed, "200 OK", f"Content-Encoding: {coding}")
    assert await reason_of_flood(head, expect={"body": "never"}) is reason


@pytest.mark.parametrize(
    "charset", ["windows-1252", "utf-32", "gb18030", "iso-2022-jp", "punycode", "x" * 5_000]
)
async def test_a_charset_costs_no_iteration_more_than_10_ms(charset: str) -> None:
    """A body that is not valid in it is decoded in a thread, piece by piece; no codec is quadratic."""
    body = bytes(random.Random(1).choices(b"\x81\x8d\xff\x1b$B", k=65_000))
    head = reply(body, "200 OK", f"Content-Type: text/plain; charset={charset}")
    assert await reason_of_flood(head, expect={"body": "never"}) is Reason.EXPECT


@pytest.mark.parametrize("at_a_time", [1, 7])
async def test_a_large_response_in_tiny_packets_is_read(at_a_time: int) -> None:
    """As quickly as it arrives."""
    head = chunked(b"x" * 500, 1)
    with flooding(head, at_a_time=at_a_time) as port:
        await outcome(port)

        async def attack() -> None:
            seen = await outcome(port, expect={"body": "^x{500}$"})
            assert seen.reason is None

        await assert_iterations_are_short(attack)


async def test_data_before_the_request_ends_the_connection_at_once() -> None:
    """A megabyte of responses that wait for the request are not taken for its response twice."""
    with flooding(b"", EMPTY * 6_000, waits_for_request=False) as port:
        api = check(f"http://127.0.0.1:{port}/")

        async def attack() -> None:
            for _ in range(5):
                async with asyncio.timeout(20), api.connect() as session:
                    await asyncio.sleep(0.01)
                    results = [await result_of(session.probe()) for _ in range(3)]
                for result in results:
                    if isinstance(result, Failure):
                        assert result.reason in (Reason.PROTOCOL, Reason.RESET, Reason.EOF)
                    else:
                        assert not result.details["reused_connection"]

        await assert_iterations_are_short(attack)
