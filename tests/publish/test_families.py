"""Each fast path of the exposition writes what the plain way would."""

import gzip
import math
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib
from prometheus_client import CollectorRegistry
from prometheus_client.utils import floatToGoString

from exporter.board import Board
from exporter.building import build
from exporter.clock import SystemClock
from exporter.config import EXAMPLE, load_text
from exporter.core.health import Event, Reason
from exporter.net import Network
from exporter.publish.exposition import Exposition
from exporter.publish.families import STATE_SECONDS, around_seconds_here, label_pairs, number, seconds_here
from exporter.record import Report

EDGES = (0, 0.0, -0.0, 1, -1, 999_999, 1_000_000, -1_000_000, 999_999.5, 1e6, 1e21, 1e-7, True, False)


@given(
    st.floats() | st.integers(-(10**17), 10**17) | st.sampled_from((*EDGES, math.inf, -math.inf, math.nan))
)
def test_a_number_is_written_as_the_reference_library_does(value: float) -> None:
    """Any."""
    assert number(value) == floatToGoString(value)  # type: ignore[no-untyped-call,unused-ignore]


@pytest.mark.parametrize("events", [(), (Event.BEGUN,), (Event.BEGUN, Event.ANSWERED_GOOD), (Event.STOPPED,)])
def test_the_one_number_that_moves_fits_between_the_lines_that_do_not(events: Iterable[Event]) -> None:
    """In each status, five lines come out as if all had been written."""
    board = Board(build(load_text(EXAMPLE).services, Network()), SystemClock())
    for event in events:
        board.put("redis", Report(event, Reason.REFUSED if event is Event.FAILED else None))
    record = board.record("redis")
    now = record.entered + 12.25
    seconds = {**record.seconds_in, record.status: seconds_here(record, now)}
    before, after = around_seconds_here(record, label_pairs(record))
    plain = STATE_SECONDS.write(seconds.items(), label_pairs(record))
    assert f"{before}{number(seconds_here(record, now))}{after}" == plain


async def test_what_the_quick_compressor_makes_is_what_zlib_makes_of_it() -> None:
    """Each is the other's oracle: what isal packs, zlib unpacks, to the byte."""
    board = Board(build(load_text(EXAMPLE).services, Network()), SystemClock())
    parts = [number(value).encode() * 50 for value in range(1000)]
    quick, plain = isal_zlib.compressobj(1, 8, 31), zlib.compressobj(1, 8, 31)
    packed = [b"".join([*map(one.compress, parts), one.flush()]) for one in (quick, plain)]
    assert {zlib.decompress(one, 31) for one in packed} == {b"".join(parts)}
    answer = await Exposition(board, CollectorRegistry()).answer(None, "gzip")
    assert zlib.decompress(answer.body, 31) == gzip.decompress(answer.body)
