"""Each fast path of the exposition writes what the plain way would."""

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
from connection_exporter.config import EXAMPLE
from connection_exporter.core.health import Event, Reason
from connection_exporter.kind import Metric, MetricType
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import build
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Histogram, Report
from connection_exporter.net import Network
from connection_exporter.system.clock import SystemClock
from connection_exporter.web.families import (
    STATE_SECONDS,
    family_of,
    spent,
    spent_until,
)
from connection_exporter.web.samples import label_pairs, number, numbers
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.utils import floatToGoString

EDGES = (
    0,
    0.0,
    -0.0,
    1,
    -1,
    999_999,
    1_000_000,
    -1_000_000,
    999_999.5,
    1e6,
    1e21,
    1e-4,
    9.9e-5,
    1e-7,
    True,
    False,
)
TIMES = (1e9, 1.7e9, 1_700_000_000.125, 9_999_999_999.5, 1e10)


NUMBERS = (
    st.floats()
    | st.floats(0, 2e10)
    | st.floats(0, 1e-3)
    | st.integers(-(10**17), 10**17)
    | st.sampled_from((*EDGES, *TIMES, math.inf, -math.inf, math.nan))
)


@given(st.lists(NUMBERS, max_size=20))
def test_a_number_is_written_as_the_reference_library_does(values: list[float]) -> None:
    """Any, by itself and among others."""
    expected = [floatToGoString(value) for value in values]  # type: ignore[no-untyped-call,unused-ignore]
    assert [number(value) for value in values] == expected
    assert numbers(values) == expected


@pytest.mark.parametrize("events", [(), (Event.BEGUN,), (Event.BEGUN, Event.ANSWERED_GOOD), (Event.STOPPED,)])
@pytest.mark.parametrize("later", [0.0, 12.25, 5e6])
def test_the_one_number_that_moves_fits_between_the_lines_that_do_not(
    events: Iterable[Event], later: float
) -> None:
    """In each status, five lines come out as if all had been written."""
    board = Board(build(load_text(EXAMPLE).services, Network()), SystemClock())
    for event in events:
        board.put("redis", Report(event, Reason.REFUSED if event is Event.FAILED else None))
    record = board.record("redis")
    now = record.entered + later
    parts = spent(record, label_pairs(record))
    record.seconds_in[record.status] += now - record.entered
    assert spent_until(now, [parts, parts]) == STATE_SECONDS.text([record], [label_pairs(record)]) * 2


@given(st.lists(st.floats(0, 10), max_size=20), st.integers(0, 10**7), st.sampled_from(["tcp", "a%sb", "%d"]))
def test_a_histogram_is_written_as_if_each_line_was(values: list[float], more: int, kind: str) -> None:
    """Its lines are filled in at once. From a million on, a count has an exponent."""
    histogram = Histogram((0.5, 1.0, 5.0))
    for value in values:
        histogram.observe(value)
    histogram._counts[1] += more
    board = Board([replace(build(load_text(EXAMPLE).services, Network())[0], kind=kind)], SystemClock())
    record = board.records()[0]
    record.histograms["it"] = histogram
    family = family_of(Metric("connection_it", "It.", MetricType.HISTOGRAM, "it", histogram.bounds))
    name, counts = f'name="{record.name}"', [floatToGoString(count) for count in histogram.cumulative()]  # type: ignore[no-untyped-call,unused-ignore]
    assert family.text([record], [label_pairs(record)]).splitlines() == [
        *(
            f'connection_it_bucket{{kind="{kind}",le="{bound}",{name}}} {count}'
            for bound, count in zip(("0.5", "1.0", "5.0", "+Inf"), counts, strict=True)
        ),
        f'connection_it_count{{kind="{kind}",{name}}} {counts[-1]}',
        f'connection_it_sum{{kind="{kind}",{name}}} {floatToGoString(histogram.sum)}',  # type: ignore[no-untyped-call,unused-ignore]
    ]
