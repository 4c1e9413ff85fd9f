"""Kind redis against servers that send too much: every limit of docs/security.md, and the CPU of the event loop."""

import asyncio
import tracemalloc
from contextlib import suppress

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.redis.info import read_fields
from connection_exporter.kinds.redis.protocol import (
    DEPTH_LIMIT,
    ELEMENT_LIMIT,
    LINE_LIMIT,
    REPLY_LIMIT,
    Refusal,
    Reply,
    ReplyReader,
)
from hypothesis import given
from hypothesis import strategies as st
from support.attempts import attempt, held
from support.hostile import assert_iterations_are_short, flooding
from support.redis_servers import HEALTHY, answering, check_of
from support.streams import serving

KIB = 1024
MIB = 1024 * KIB
MEMORY_LIMIT = 8 * MIB
"""Of Python's objects; a session keeps one reply of 1 MiB and one read of 256 KiB, in a few copies."""

FLOODS = {
    "statuses": (b"+\r\n" * (256 * KIB // 3), b"", Reason.PROTOCOL),
    "statuses without end": (b"", b"+\r\n" * (256 * KIB // 3), Reason.PROTOCOL),
    "errors without end": (b"", b"-E\r\n" * 64 * KIB, Reason.PROTOCOL),
    "pushes": (b"", b">1\r\n+a\r\n" * 32 * KIB, Reason.PROTOCOL),
    "attributes": (b"", b"|1\r\n+a\r\n+b\r\n" * 16 * KIB, Reason.PROTOCOL),
    "inline text": (b"", b"hello\r\n" * 32 * KIB, Reason.PROTOCOL),
    "an array of tiny elements": (b"*1000000\r\n", b":1\r\n" * 64 * KIB, Reason.PROTOCOL),
    "the largest array": (b"*2147483647\r\n", b"+\r\n" * 64 * KIB, Reason.PROTOCOL),
    "a push of ten million elements": (b">10000000\r\n", b"+\r\n" * 64 * KIB, Reason.PROTOCOL),
    "arrays within arrays": (b"*1\r\n" * 10_000, b"", Reason.PROTOCOL),
    "wide arrays within arrays": (b"*100000000\r\n" * 7, b"", Reason.PROTOCOL),
    "a line without end": (b"+", b"x" * 256 * KIB, Reason.PROTOCOL),
    "a length without end": (b"$", b"1" * 256 * KIB, Reason.PROTOCOL),
    "an error without end": (b"-ERR ", b"\xff" * 256 * KIB, Reason.PROTOCOL),
    "a string of 100 MB": (b"+OK\r\n+PONG\r\n$100000000\r\n", b"x" * 256 * KIB, Reason.TOO_LARGE),
    "a string of 4 EiB": (b"+OK\r\n+PONG\r\n$4611686018427387904\r\n", b"", Reason.TOO_LARGE),
    "strings in an array": (b"*200\r\n", (b"$10000\r\n" + b"x" * 10_000 + b"\r\n") * 110, Reason.TOO_LARGE),
    "line feeds alone": (b"", b"\n" * 256 * KIB, Reason.PROTOCOL),
    "a megabyte to PING": (b"+OK\r\n$1000000\r\n" + b"\0" * 1_000_000 + b"\r\n+\r\n", b"", Reason.PROTOCOL),
}


@pytest.mark.parametrize(("head", "piece", "reason"), FLOODS.values(), ids=FLOODS)
async def test_a_flood_ends_the_attempt_and_holds_up_nothing(
    head: bytes, piece: bytes, reason: Reason
) -> None:
    """No iteration of the event loop takes more than 10 ms of CPU, memory is bounded, and a reason is reported."""
    results: list[object] = []

    async def attack() -> None:
        result = await attempt(check_of(port), timeout=30)
        assert isinstance(result, Failure), result
        results.append(result.reason)

    with flooding(head + piece, request_end=b"INFO\r\n") as port:
        await assert_iterations_are_short(attack)
        tracemalloc.start()
        try:
            await attack()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await asyncio.sleep(0.01)  # for the transport to close, before the server waits for it
    assert set(results) == {reason}
    assert peak < MEMORY_LIMIT


async def test_one_byte_at_a_time_costs_little_per_iteration() -> None:
    """A long INFO in the smallest pieces is a good answer in the end."""
    info = b"# Server\r\nrole:master\r\n" + b"x" * 20_000
    answer = b"+OK\r\n+PONG\r\n$%d\r\n%b\r\n" % (len(info), info)

    async def attack() -> None:
        result = await attempt(check_of(port), timeout=30)
        assert result.reason is None, result

    with flooding(answer, at_a_time=1, request_end=b"INFO\r\n") as port:
        await assert_iterations_are_short(attack)
        await asyncio.sleep(0.01)


def replies_of(data: bytes, *, at_most: int = 1000) -> list[Reply]:
    return ReplyReader("it").feed(data, at_most=at_most)


@pytest.mark.parametrize(
    ("most", "too_much", "reason"),
    [
        (
            b"$%d\r\n%b\r\n" % (REPLY_LIMIT - 20, b"x" * (REPLY_LIMIT - 20)),
            b"$%d\r\n" % REPLY_LIMIT,
            "too_large",
        ),
        (b"+%b\r\n" % (b"x" * (LINE_LIMIT - 3)), b"+" + b"x" * LINE_LIMIT, "protocol"),
        (
            b"*%d\r\n" % ELEMENT_LIMIT + b":1\r\n" * ELEMENT_LIMIT,
            b"*%d\r\n" % (ELEMENT_LIMIT + 1),
            "protocol",
        ),
        (b"*1\r\n" * DEPTH_LIMIT + b":1\r\n", b"*1\r\n" * (DEPTH_LIMIT + 1), "protocol"),
        (b"*2\r\n*100\r\n" + b":1\r\n" * 100 + b"*100\r\n", b"*2\r\n*200\r\n*200\r\n", "protocol"),
    ],
    ids=["reply", "line", "elements", "depth", "elements of nested arrays"],
)
def test_each_limit_is_where_the_documentation_says(most: bytes, too_much: bytes, reason: str) -> None:
    """What is just within a limit is parsed, and one more is refused before hiredis is fed with it."""
    replies_of(most)
    with pytest.raises(Failure) as raised:
        replies_of(too_much)
    assert raised.value.reason == reason


@pytest.mark.parametrize("first", [b"%", b"~", b">", b"|", b"_", b",", b"#", b"(", b"=", b"!", b"\r", b"H"])
def test_a_type_that_resp2_does_not_have_is_refused(first: bytes) -> None:
    """A server sends types of RESP3 only to a client that asked for them."""
    with pytest.raises(Failure) as raised:
        replies_of(first + b"1\r\n+a\r\n+b\r\n")
    assert raised.value.reason is Reason.PROTOCOL


async def test_an_error_without_a_text_has_a_message() -> None:
    """An empty one would tell people nothing."""
    async with serving(answering(HEALTHY.replace(b"+PONG", b"-"))) as port:
        result = await attempt(check_of(port))
    assert result.reason is Reason.QUERY
    assert result.message == "an error without a text"


def test_more_replies_than_requested_are_refused() -> None:
    """They could be taken for the replies to a later request."""
    assert replies_of(b"+A\r\n+B\r\n", at_most=2) == [b"A", b"B"]
    with pytest.raises(Failure) as raised:
        replies_of(b"+A\r\n+B\r\n+C\r\n", at_most=2)
    assert raised.value.reason is Reason.PROTOCOL


def test_fields_of_info_are_searched_for_in_its_first_64_kib() -> None:
    """Whatever the length of INFO, looking for our fields takes a bounded time."""
    assert read_fields(b"x" * 65_000 + b"\nrole:master\r\n") == {"role": "master"}
    assert read_fields(b"x" * 66_000 + b"\nrole:master\r\n") == {}


async def test_thousands_of_wanted_fields_cost_no_more_than_their_search() -> None:
    """Of the same field, which comes again and again, few are looked at."""

    async def attack() -> dict[str, str]:
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # so that this iteration is measured from its beginning
        return read_fields(b"\nrole:" * 11_000)

    assert list(await assert_iterations_are_short(attack, limit=0.003)) == ["role"]


async def test_no_reply_of_a_megabyte_is_kept_until_the_next_probe() -> None:
    """Only PONG is kept, to be compared with the next one."""
    info = b"cluster_state:ok\r\n".ljust(MIB // 2, b"x")
    reply = b"+PONG\r\n$%d\r\n%b\r\n" % (len(info), info)
    async with serving(answering(b"+OK\r\n" + reply)) as port:
        tracemalloc.start()
        try:
            async with held(check_of(port, depth=False, cluster=True)):
                kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert kept < len(info)


_VALUES = st.text(st.sampled_from("master019\n:rol\xe9"), max_size=5) | st.just("9" * 120)
_KEYS = [
    "role",
    "redis_version",
    "maxmemory",
    "maxmemory_policy",
    "used_memory",
    "used_memory_rss",
    "x",
    "# Server",
]


@given(st.lists(st.tuples(st.sampled_from(_KEYS), _VALUES), max_size=12))
def test_fields_of_info_are_those_that_a_search_for_each_key_finds(lines: list[tuple[str, str]]) -> None:
    """The one search for all keys overlooks none, whatever the values are, and takes the first of several."""
    info = "".join(f"\r\n{key}:{value}" for key, value in lines) + "\r\n"
    expected = {}
    for key in ("role", "redis_version", "maxmemory", "maxmemory_policy", "used_memory"):
        _, found, rest = info.partition(f"\n{key}:")
        if found:
            expected[key] = rest.partition("\r")[0][:100]
    assert read_fields(info.encode()) == expected


_ELEMENTS = st.recursive(
    st.one_of(
        st.integers(-(2**63), 2**63 - 1).map(lambda n: (b":%d\r\n" % n, n)),
        st.binary(max_size=50).map(lambda b: (b"$%d\r\n%b\r\n" % (len(b), b), b)),
        st.from_regex(rb"[a-z ]{0,20}", fullmatch=True).map(lambda b: (b"+%b\r\n" % b, b)),
        st.just((b"$-1\r\n", None)),
    ),
    lambda inner: st.lists(inner, max_size=4).map(
        lambda items: (b"*%d\r\n%b" % (len(items), b"".join(w for w, _ in items)), [v for _, v in items])
    ),
    max_leaves=10,
)


@given(st.lists(_ELEMENTS, max_size=5), st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_replies_are_the_same_however_they_are_cut(
    elements: list[tuple[bytes, Reply]], cuts: list[int]
) -> None:
    """The check of lengths and hiredis agree on where each reply ends."""
    wire = b"".join(encoded for encoded, _ in elements)
    reader, replies, at = ReplyReader("it"), list[Reply](), 0
    while at < len(wire):
        size = cuts[at % len(cuts)]
        replies += reader.feed(wire[at : at + size], at_most=len(elements) - len(replies))
        at += size
    assert replies == [value for _, value in elements]


_AFTER_PONG = st.sampled_from(
    [b"$5\r\n", b"$05\r\n", b"$0\r\n", b"$-1\r\n", b"$1000000\r\n", b"+OK\r\n", b"-ERR x\r\n", b"-NOAUTH x\r\n",
     b"*1\r\n", b"hello", b"\r\n", b"\r\r", b"+PONG\r\n", b":5\r\n"]
)  # fmt: skip


@given(st.lists(_AFTER_PONG, max_size=4), st.integers(1, 3))
def test_the_usual_replies_are_the_same_when_the_parser_reads_them(pieces: list[bytes], at_most: int) -> None:
    """The shortcut takes a whole PONG, and an INFO. One that comes in two reads goes through the parser."""

    def outcome(reads: list[bytes]) -> object:
        reader, replies = ReplyReader("it"), list[Reply]()
        try:
            for data in reads:
                replies += reader.feed(data, at_most=at_most - len(replies))
        except Failure as failure:
            return failure.reason
        return replies, reader.payload

    data = b"".join([b"+PONG\r\n", *pieces])
    assert outcome([data]) == outcome([data[:1], data[1:]])


@given(
    st.lists(st.sampled_from([b"+", b"-", b":", b"$", b"*", b"1", b"0", b"-1", b"\r", b"\n", b"\r\n", b"x"]))
)
def test_any_bytes_are_replies_or_a_failure(pieces: list[bytes]) -> None:
    """No other exception, whatever comes."""
    reader = ReplyReader("it")
    with suppress(Failure):
        for piece in pieces:
            assert all(
                isinstance(reply, bytes | int | list | Refusal | None)
                for reply in reader.feed(piece, at_most=3)
            )
