"""Durations as people write them."""

import pytest
from connection_exporter.config.durations import format_duration, parse_duration
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1.5s", 1.5),
        ("0.1s", 0.1),
        ("1m500ms", 60.5),
        (" 30s ", 30),
        ("366d", 366 * 86400),
    ],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    """From milliseconds to days, also several together."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [30, "30", 1.5, "1.5"])
def test_a_number_without_a_unit_is_refused_with_a_hint(text: object) -> None:
    """Seconds are the likely guess, and are said, not taken."""
    with pytest.raises(ValueError, match=f"a duration needs a unit: write {text}s for seconds"):
        parse_duration(text)


@pytest.mark.parametrize("text", [0, "0", 0.0, "0.0", "0s", "0ms"])
def test_zero_needs_no_unit(text: object) -> None:
    """The limit of the field decides: with a unit, it would be refused as well."""
    assert parse_duration(text) == 0


def test_no_unit_is_suggested_for_a_number_that_is_too_large() -> None:
    """With the unit, it would be refused as well."""
    with pytest.raises(ValueError, match="a duration is at most 366d"):
        parse_duration(999_999_999)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "soon",
        "30 s",
        "-5s",
        "5 minutes",
        "5M",
        "1e3s",
        "٣s",
        "9" * 5000 + "s",
        True,
        None,
        [1],
        -5,
        -0.5,
    ],
)
def test_other_texts_are_refused_with_an_example_of_a_duration(text: object) -> None:
    """With examples."""
    with pytest.raises(ValueError, match="expected a duration such as 500ms, 30s or 5m"):
        parse_duration(text)


def test_a_duration_ends_at_a_year() -> None:
    """Timers of the event loop take no more."""
    with pytest.raises(ValueError, match="a duration is at most 366d"):
        parse_duration("366d1ms")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.05, "50ms"),
        (0.5, "500ms"),
        (1.0, "1s"),
        (90.0, "1m30s"),
        (86400.0, "1d"),
        (35.5, "35.5s"),
    ],
)
def test_a_duration_is_shown_as_one_would_write_it(seconds: float, text: str) -> None:
    """With the largest units that fit."""
    assert format_duration(seconds) == text


@given(st.integers(min_value=1, max_value=366 * 86_400_000))
def test_what_is_shown_can_be_written(milliseconds: int) -> None:
    """To the millisecond."""
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.001)
