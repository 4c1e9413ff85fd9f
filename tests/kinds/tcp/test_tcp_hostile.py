"""Kind tcp against servers that send too much, too slowly, or nothing: every limit of docs/security.md."""

import asyncio
import tracemalloc

import pytest
from connection_exporter.config.patterns import CompiledPattern
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.tcp.connection import DIALOGUE_LINES
from connection_exporter.kinds.tcp.dialogue import Bytes, Line
from hypothesis import given
from hypothesis import strategies as st
from support.attempts import attempt, held
from support.hostile import assert_iterations_are_short, flooding
from support.streams import serving
from support.tcp_servers import check_of, says

KIB = 1024
MIB = 1024 * KIB
MEMORY_LIMIT = 4 * MIB

FLOODS = {
    "line breaks": b"\n" * 256 * KIB,
    "short lines": b"ab\r\n" * 64 * KIB,
    "a line without end": b"ab" * 128 * KIB,
    "zeros": b"\0" * 256 * KIB,
    "not UTF-8": b"\xff\xc3" * 128 * KIB,
}


@pytest.mark.parametrize("pattern", ["^220 ", "(a|b)*a(a|b){20}c"])
@pytest.mark.parametrize("piece", FLOODS.values(), ids=FLOODS)
async def test_a_flood_that_holds_no_answer_ends_the_dialogue(piece: bytes, pattern: str) -> None:
    """No iteration of the event loop takes more than 10 ms of CPU, even with a costly pattern; memory is bounded."""
    results: list[object] = []

    async def once() -> None:
        results.append(await attempt(check_of(port, on_connect={"expect": pattern})))
        await asyncio.sleep(0)  # the socket is closed

    with flooding(b"", piece, waits_for_request=False) as port:
        await assert_iterations_are_short(once)
        tracemalloc.start()
        await once()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    for result in results:
        assert isinstance(result, Failure)
        assert result.reason is Reason.EXPECT
        assert "is not in the first" in result.message
    assert peak < MEMORY_LIMIT


async def test_a_flood_between_probes_ends_the_session() -> None:
    """What arrives meanwhile is counted, not kept."""
    results: list[Failure] = []

    async def once() -> None:
        async with held(check_of(port)) as (session, _):
            async with asyncio.timeout(20):
                results.append(await session.lost)
        await asyncio.sleep(0)

    with flooding(b"", b"x" * 256 * KIB, waits_for_request=False) as port:
        await assert_iterations_are_short(once)
        tracemalloc.start()
        await once()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert {result.reason for result in results} == {Reason.TOO_LARGE}
    assert peak < MEMORY_LIMIT


async def test_bytes_that_come_one_at_a_time_cost_little() -> None:
    """Each is a reason for a search, and counts as more than one byte."""

    async def once() -> None:
        seen = await attempt(
            check_of(port, timeout="3s", on_connect={"expect": "(a|b)*a(a|b){20}c"}), timeout=3
        )
        assert isinstance(seen, Failure)
        assert seen.reason is Reason.EXPECT

    with flooding(b"ab" * 1500, waits_for_request=False, at_a_time=1) as port:
        await assert_iterations_are_short(once)


async def test_a_long_line_is_searched_at_its_beginning_alone() -> None:
    """Its rest is no line of its own, and the next line is found."""
    long = b"x" * 5000 + b"220 not here\r\n220 here\r\n"
    async with serving(says(long)) as port:
        seen = await attempt(check_of(port, on_connect={"expect": "220 (not )?here"}))
        assert not isinstance(seen, Failure)
        late = await attempt(check_of(port, on_connect=[{"expect": "220 not", "within": "200ms"}]))
    assert isinstance(late, Failure)
    assert late.reason is Reason.EXPECT


async def test_too_many_lines_are_not_searched() -> None:
    """An answer after so many is too late."""
    async with serving(says(b"a\n" * (DIALOGUE_LINES + 10) + b"220\n")) as port:
        seen = await attempt(check_of(port, on_connect={"expect": "220"}))
    assert isinstance(seen, Failure)
    assert seen.reason is Reason.EXPECT


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_an_answer_is_found_however_it_is_cut(pieces: list[bytes]) -> None:
    """Bytes in any packets, and lines that have ended."""
    whole = b"".join(pieces)
    lines = whole.replace(b"\r\n", b"\n").split(b"\n")
    for answer, there in (
        (Bytes(b"\n\0"), b"\n\0" in whole),
        (Line(CompiledPattern("^ab?$")), bool({b"a", b"ab"} & set(lines))),
    ):
        buffer, found = bytearray(), False
        for piece in pieces:
            buffer += piece
            found = found or answer.take(buffer) is not None
        assert found or not there
        assert len(buffer) <= 1064
