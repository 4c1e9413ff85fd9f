"""The head of a response: the quick ways for regular headers have the result of the plain ones."""

from connection_exporter.net.http1.head import (
    _FRAMING,
    Head,
    Malformed,
    _framing_values,
    _status_line,
    _take_irregular_fields,
    parse_head,
)
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.sampled_from(
    [b"Content-Length", b"transfer-encoding", b"CONNECTION", b"X", b"X ", b"a b", b"", b"\xe9"]
)
VALUES = st.sampled_from(
    [b"", b" 5", b"\tchunked \t", b" close", b" a:b", b" \xe9", b" \x00", b" \x7f", b" x\r"]
)
LINES = st.tuples(
    NAMES, st.sampled_from([b":", b":", b":", b""]), VALUES, st.sampled_from([b"\r\n", b"\r\n", b"\n"])
)
FIELDS = st.lists(
    LINES.map(b"".join) | st.sampled_from([b" folded\r\n", b"\tfolded\n", b"X: y\r\n"]), max_size=5
)
ENDS = st.sampled_from([b"\r\n", b"\n"])


def plain(data: bytes) -> Head:
    """Parse a head line by line, as if no header were regular."""
    first, _, _ = data.partition(b"\n")
    head = _status_line(first.removesuffix(b"\r"))
    _take_irregular_fields(head, data, data[len(first) + 1 :].removesuffix(b"\n").removesuffix(b"\r"))
    return head


@given(ENDS, FIELDS.map(b"".join), ENDS)
def test_regular_headers_are_those_that_are_read_line_by_line(
    first: bytes, fields: bytes, last: bytes
) -> None:
    """Whatever is irregular among them, and with the same error."""
    data = b"HTTP/1.1 200 OK" + first + fields + last
    try:
        expected: object = plain(data)
    except Malformed as error:
        expected = str(error)
    try:
        found: object = parse_head(data)
    except Malformed as error:
        found = str(error)
    assert found == expected


@given(st.lists(st.tuples(st.sampled_from([*_FRAMING, b"x", b"y"]), st.binary(max_size=3)), max_size=8))
def test_what_decides_the_framing_is_every_header_of_its_name(headers: list[tuple[bytes, bytes]]) -> None:
    """Whether names are repeated or not."""
    head = Head(200, "1.1", b"OK", headers, [])
    assert _framing_values(head) == [head.values(name) for name in _FRAMING]
