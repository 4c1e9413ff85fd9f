"""The response parser, without a network: the pieces do not matter, and it never raises."""

from connection_exporter.kind import Failure
from connection_exporter.net.http1.reader import HEADERS_LIMIT
from connection_exporter.net.http1.response import Response, ResponseParser
from hypothesis import given
from hypothesis import strategies as st

LIMIT = 64

ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.0 500 No\r\nX: y\r\n\r\nuntil the end",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n" + b"x" * 65,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n" + b"x" * 65 + b"\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
    b"HTTP/1.1 200\nX : y\n z\nContent-Length: 2\r\nContent-Length: 2\n\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1\r\na\r\n2 \r\n\r\n\r\n3;x=y\r\nabc\r\n1\r\n\n\r\n0\r\nT: 1\nU: 2\r\n 3\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\nb\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\n\nHTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
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


def read(data: bytes, cuts: list[int], *, bodyless: bool = False) -> ResponseParser:
    reader = ResponseParser("here", body_limit=LIMIT, bodyless=bodyless)
    at = 0
    for cut in [*sorted(c % (len(data) + 1) for c in cuts), len(data)]:
        if cut > at and reader.outcome is None:
            reader.feed(data[at:cut])
        at = cut
    reader.end(None)
    return reader


def essence(reader: ResponseParser) -> object:
    outcome = reader.outcome
    if isinstance(outcome, Response):
        body = outcome.body if outcome.complete else None
        return (
            *(outcome.status, outcome.version, outcome.headers, body, outcome.complete),
            outcome.irregular if outcome.complete else None,
        )
    assert isinstance(outcome, Failure)
    return outcome.reason


@given(data=st.sampled_from(ANSWERS), cuts=st.lists(st.integers(0, 200), max_size=8), bodyless=st.booleans())
def test_the_pieces_in_which_bytes_arrive_do_not_matter(data: bytes, cuts: list[int], bodyless: bool) -> None:
    """TCP does not preserve the boundaries of writes."""
    assert essence(read(data, cuts, bodyless=bodyless)) == essence(read(data, [], bodyless=bodyless))


@given(
    pieces=st.lists(
        st.sampled_from([b"0", b"00", b"2", b";x", b"\r\n", b"\n", b"ab", b"T: 1", b" "])
        | st.sampled_from([b"2\r\nab\r\n", b"0\r\n\r\n"]),
        max_size=10,
    )
)
def test_chunks_in_one_piece_are_read_like_single_bytes(pieces: list[bytes]) -> None:
    """The quick way for regular chunks and the end of the body has the same result."""
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(pieces)
    whole, single = read(data, []), read(data, list(range(len(data))))
    assert essence(whole) == essence(single)
    if isinstance(whole.outcome, Failure):
        assert str(whole.outcome) == str(single.outcome)


@given(data=bytes_like_http, cuts=st.lists(st.integers(0, 500), max_size=5), bodyless=st.booleans())
def test_there_is_always_an_outcome(data: bytes, cuts: list[int], bodyless: bool) -> None:
    """Whatever arrives: a response within the limits or a failure, and no exception."""
    reader = read(data, cuts, bodyless=bodyless)
    assert reader.outcome is not None
    if isinstance(reader.outcome, Response):
        assert len(reader.outcome.body) <= LIMIT
        assert 100 <= reader.outcome.status <= 999
        assert reader.outcome.processing_seconds >= 0
        assert reader.outcome.transfer_seconds >= 0


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c\xe9"]), st.binary(max_size=3))))
def test_the_values_of_a_header_are_all_of_that_name(headers: list[tuple[bytes, bytes]]) -> None:
    """Also of one that is absent, which is not searched for."""
    response = Response(200, "1.1", tuple(headers), b"", True, 0.0, 0.0)
    for name in ("A", "b", "Cé", "d", "\u20ac"):
        wanted = name.lower().encode("latin-1", "replace")
        assert response.values(name) == [value for key, value in headers if key == wanted]


@given(piece=st.binary(min_size=1, max_size=64))
def test_a_response_without_end_has_an_outcome_within_the_limits(piece: bytes) -> None:
    """Headers and body are bounded, whatever their content."""
    for head in (b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n", ANSWERS[1][:-5] + b"\r\n"):
        reader = ResponseParser("here", body_limit=LIMIT, bodyless=False)
        reader.feed(head)
        block = piece * (4096 // len(piece) + 1)
        fed = 0
        while reader.outcome is None:
            reader.feed(block)
            fed += len(block)
            assert fed < 2 * HEADERS_LIMIT
