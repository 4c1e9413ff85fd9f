"""Mutated responses from a real server: each gives an observation or a declared failure, and blocks nothing."""

import gzip
import itertools
import random
import zlib
from collections.abc import Iterator

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.http.cookies import Cookies
from support.hostile import assert_iterations_are_short
from support.http_servers import Conversation, attempt, check, serving

ROUNDS = 1_500

JSON = b'{"status": "ok", "items": [1, 2.5e3, {"a": "\\u00e9"}], "n": 12345678901234567890}'
SEEDS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 83\r\n\r\n" + JSON,
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;a=b\r\n{"a"\r\n4\r\n: 1}\r\n0\r\nT: 1\r\n\r\n',
    b"HTTP/1.0 200 OK\nX: a\n b\nConnection: keep-alive, close\n\nuntil the end",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: ../a/./b?c=%20d#e\r\nSet-Cookie: a=1; Path=/; Max-Age=5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(JSON),
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, deflate\r\n\r\n" + zlib.compress(gzip.compress(JSON)),
    b'HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\n\r\n\x28\xb5\x2f\xfd\x00\x58\x39\x00\x00{"a":1}',
    b'HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n\x0b\x03\x80{"a":1}\x03',
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-16\r\n\r\n\xff\xfe{\0}\0",
)
TOKENS = (
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b"\xff", b";", b",", b"0\r\n\r\n", b"\r\n\r\n"),
    *(
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"HTTP/1.1 200 OK\r\n",
    ),
    *(
        b"Content-Encoding: br\r\n",
        b"Content-Type: a/b; charset=gb18030\r\n",
        b"charset=utf-32",
        b"7fffffffffffffff",
    ),
    *(
        b"99999999999999999999",
        b"-1",
        b"[" * 200,
        b'{"a":' * 50,
        b"\\ud800",
        b"NaN",
        b"1e999",
        b"\x1f\x8b\x08",
    ),
)


def mutated(seeds: tuple[bytes, ...], rng: random.Random) -> bytes:
    """Return one of the seeds after up to five mutations."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 5)):
        at, other = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        match rng.randrange(7):
            case 0:
                data[at:at] = rng.choice(TOKENS)
            case 1:
                data[at:other] = b""
            case 2:
                data[at:other] = bytes(data[at:other]) * min(
                    rng.choice((2, 3, 40, 900)), 65_536 // (other - at + 1)
                )
            case 3:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 4:
                data[at:] = rng.choice(seeds)[rng.randrange(30) :]
            case 5:
                data[at:other] = bytes(data[at:other]).swapcase()
            case _:
                data[at:at] = rng.randbytes(rng.choice((1, 10, 1_000)))
    return bytes(data)


async def probe_mutated_responses(rounds: int, seed: int) -> dict[Reason | None, int]:
    """Make that many attempts, and return how often each reason was reported."""
    rng = random.Random(seed)
    seen: dict[Reason | None, int] = {}

    async def talk(conversation: Conversation) -> None:
        await conversation.request()
        data = mutated(SEEDS, rng)
        cut = rng.randrange(len(data) + 1)
        for piece in (data[:cut], data[cut:]):
            await conversation.send(piece)

    async with serving(talk) as server:
        api = check(
            server.url(),
            body_limit=4096,
            expect={
                "headers": {"X": {"not": "b"}},
                "body": "(a|b)*c",
                "json": {"status": "ok", "items": {"length": {">": 1}}, "n": {"path": "items[0]"}},
            },
        )
        for _ in range(rounds):
            try:
                reason = (await attempt(api, timeout=30)).reason
            except Failure as failure:
                reason = failure.reason
            assert reason is None or reason in api.traits.reasons
            seen[reason] = seen.get(reason, 0) + 1
    return seen


async def test_mutated_responses_are_answers_or_declared_failures_within_10_ms() -> None:
    """None is `internal`, and none needs more than 10 ms of CPU in an iteration of the event loop."""
    seeds: Iterator[int] = itertools.count(1)
    await probe_mutated_responses(20, 0)  # loads modules

    async def attack() -> None:
        seen = await probe_mutated_responses(ROUNDS, next(seeds))
        assert Reason.INTERNAL not in seen
        assert {Reason.PROTOCOL, Reason.EOF, Reason.EXPECT} <= seen.keys()

    await assert_iterations_are_short(attack)


def test_mutated_cookies_never_raise() -> None:
    """Whatever a server sets."""
    rng = random.Random(1)
    seeds = (
        b"a=1; Path=/; Domain=example.com; Secure; HttpOnly; SameSite=Lax",
        b'b="x y"; Expires=Wed, 21 Oct 2037 07:28:00 GMT; Max-Age=100; Version=1',
    )
    for _ in range(ROUNDS):
        cookies = Cookies()
        cookies.take("http://www.example.com/a", [mutated(seeds, rng)])
        cookies.value_for("https://www.example.com/a")
