"""Each fast path of the exposition writes what the plain way would."""

import math
from dataclasses import replace

from connection_exporter.config import EXAMPLE
from connection_exporter.kind import Metric, MetricType
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import build
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Histogram, Record
from connection_exporter.net import Network
from connection_exporter.system.clock import SystemClock
from connection_exporter.web.families import family_of
from connection_exporter.web.samples import (
    family_of_labelled_counts,
    family_of_labelled_values,
    labels_of,
    number,
    numbers,
)
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


@given(st.lists(st.floats(1e9, 1e10, exclude_max=True) | st.sampled_from(TIMES), min_size=1, max_size=20))
def test_timestamps_are_written_as_the_reference_library_does(values: list[float]) -> None:
    """Those of one time together: they begin with the same digit, and few are whole."""
    assert numbers(values) == [floatToGoString(value) for value in values]  # type: ignore[no-untyped-call,unused-ignore]


COUNTS = st.dictionaries(st.sampled_from(["a", "b%s", "%"]), st.integers(0, 2_000_000) | st.floats(0, 9))


@given(st.lists(COUNTS, max_size=5), st.sampled_from(["cause", "kin", "reason", "to"]))
def test_labelled_lines_are_written_as_if_each_was(every: list[dict[str, float]], label: str) -> None:
    """Both ways: those of numbers that are filled in, and those of counts that are kept."""
    shown = iter(every * 2)
    records = [Board(build(load_text(EXAMPLE).services, Network()), SystemClock()).records()[0]] * len(every)

    def read(_: Record) -> tuple[tuple[str, ...], tuple[float, ...]]:
        values = next(shown)
        return tuple(values), tuple(values.values())

    pairs = {"name": "database", "kind": "postgresql"}
    expected = ""
    for values in every:
        for key, value in values.items():
            labels = ",".join(f'{k}="{v}"' for k, v in sorted({**pairs, label: key}.items()))
            expected += f"connection_it{{{labels}}} {floatToGoString(value)}\n"  # type: ignore[no-untyped-call,unused-ignore]
    for make in (family_of_labelled_values, family_of_labelled_counts):
        family = make("connection_it", "It.", MetricType.GAUGE, label, read)
        assert family.text(records, [labels_of(record) for record in records]) == expected


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
    assert family.text([record], [labels_of(record)]).splitlines() == [
        *(
            f'connection_it_bucket{{kind="{kind}",le="{bound}",{name}}} {count}'
            for bound, count in zip(("0.5", "1.0", "5.0", "+Inf"), counts, strict=True)
        ),
        f'connection_it_count{{kind="{kind}",{name}}} {counts[-1]}',
        f'connection_it_sum{{kind="{kind}",{name}}} {floatToGoString(histogram.sum)}',  # type: ignore[no-untyped-call,unused-ignore]
    ]
