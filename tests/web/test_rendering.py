"""A long response is sent in parts that bound what a slow client costs, and are not too many."""

from connection_exporter.web.rendering import in_parts
from hypothesis import given
from hypothesis import strategies as st

PART = 65_536
LENGTHS = st.integers(0, 100) | st.integers(0, 3 * PART) | st.sampled_from([PART // 4 - 1, PART // 4, PART])


@given(st.lists(LENGTHS, max_size=30))
def test_parts_are_neither_too_long_nor_too_many(lengths: list[int]) -> None:
    """Together they are the whole."""
    pieces = [bytes([place % 256]) * length for place, length in enumerate(lengths)]
    parts = in_parts(pieces)
    assert b"".join(parts) == b"".join(pieces)
    assert all(0 < len(part) <= PART for part in parts)
    cuts = sum(length // PART for length in lengths)
    assert len(parts) <= 1 + cuts + 8 * len(b"".join(pieces)) / PART


def test_a_piece_that_is_long_enough_is_not_copied() -> None:
    """A board as JSON consists of such pieces."""
    pieces = [b"x" * 50_000, b"y" * PART]
    assert all(part is piece for part, piece in zip(in_parts(pieces), pieces, strict=True))
