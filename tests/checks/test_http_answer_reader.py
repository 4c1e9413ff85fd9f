"""The reader of answers, without a network: the same whatever the pieces, and never an exception."""

from hypothesis import given
from hypothesis import strategies as st

from exporter.check import Failure
from exporter.checks.http_answer import HEADERS_LIMIT, Answer, AnswerReader

LIMIT = 64

ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.0 500 No\r\nX: y\r\n\r\nuntil the end",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n" + b"x" * 65,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n" + b"x" * 65 + b"\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
    b"nonsense",
)

bytes_like_http = st.lists(
    st.one_of(
        st.sampled_from(
            [*ANSWERS, b"HTTP/1.1 ", b"200 OK\r\n", b"\r\n", b"Content-Length: ", b"0\r\n", b"chunked"]
        ),
        st.binary(max_size=20),
    ),
    max_size=12,
).map(b"".join)


def read(data: bytes, cuts: list[int], *, bodyless: bool = False) -> AnswerReader:
    reader = AnswerReader("here", body_limit=LIMIT, bodyless=bodyless)
    at = 0
    for cut in [*sorted(c % (len(data) + 1) for c in cuts), len(data)]:
        if cut > at and reader.outcome is None:
            reader.feed(data[at:cut])
        at = cut
    reader.end(None)
    return reader


def essence(reader: AnswerReader) -> object:
    outcome = reader.outcome
    if isinstance(outcome, Answer):
        body = outcome.body if outcome.complete else None
        return (outcome.status, outcome.version, outcome.headers, body, outcome.complete)
    assert isinstance(outcome, Failure)
    return outcome.reason


@given(data=st.sampled_from(ANSWERS), cuts=st.lists(st.integers(0, 200), max_size=8), bodyless=st.booleans())
def test_the_pieces_do_not_matter(data: bytes, cuts: list[int], bodyless: bool) -> None:
    """TCP has no messages."""
    assert essence(read(data, cuts, bodyless=bodyless)) == essence(read(data, [], bodyless=bodyless))


@given(data=bytes_like_http, cuts=st.lists(st.integers(0, 500), max_size=5), bodyless=st.booleans())
def test_there_is_always_an_outcome(data: bytes, cuts: list[int], bodyless: bool) -> None:
    """Whatever comes: an answer within its limits or a failure, and no exception."""
    reader = read(data, cuts, bodyless=bodyless)
    assert reader.outcome is not None
    if isinstance(reader.outcome, Answer):
        assert len(reader.outcome.body) <= LIMIT
        assert 100 <= reader.outcome.status <= 999
        assert reader.outcome.processing_seconds >= 0
        assert reader.outcome.transfer_seconds >= 0


@given(piece=st.binary(min_size=1, max_size=64))
def test_what_never_ends_has_an_outcome_within_the_limits(piece: bytes) -> None:
    """Headers and body are bounded, whatever they are made of."""
    for head in (b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n", ANSWERS[1][:-5] + b"\r\n"):
        reader = AnswerReader("here", body_limit=LIMIT, bodyless=False)
        reader.feed(head)
        block = piece * (4096 // len(piece) + 1)
        fed = 0
        while reader.outcome is None:
            reader.feed(block)
            fed += len(block)
            assert fed < 2 * HEADERS_LIMIT
