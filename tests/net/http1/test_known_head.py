"""A head that differs from the last one in its date alone: it is recognized, with the result that parsing it has."""

from typing import NamedTuple

import pytest
from connection_exporter.kind import Failure
from connection_exporter.net.http1.known import KnownHead
from connection_exporter.net.http1.response import Response, ResponseParser
from hypothesis import given
from hypothesis import strategies as st

FIRST, SECOND = b"Sun, 06 Nov 1994 08:49:37 GMT", b"Mon, 07 Nov 1994 18:59:00 GMT"
REGULAR = (
    b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: " + FIRST + b"\r\nX:  y \r\n"
    b"Content-Length: 5\r\nConnection: keep-alive\r\n\r\n"
)

lines = st.sampled_from(
    [
        *(b"Date: " + FIRST, b"Date: " + SECOND, b"date: " + FIRST, b"DATE: " + FIRST, b"Date:" + FIRST),
        *(b"Date: 0", b"Content-Length: 5", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"X: y"),
        *(b"Connection: close", b"Connection: keep-alive", b" folded", b"X : y", b"Set-Cookie: a=b", b""),
        *(b"HTTP/1.1 200 OK", b"HTTP/1.1 100 Continue", b"HTTP/1.0 503 No", b"HTTP/1.1 204 No Content"),
    ]
)
ends = st.sampled_from([b"\r\n"] * 8 + [b"\n"])
DATED = b"HTTP/1.1 200 OK\r\nDate: " + FIRST + b"\r\n"
HEADS = (
    REGULAR,
    b"HTTP/1.1 100 Continue\r\nDate: " + FIRST + b"\r\n\r\n" + REGULAR,
    b"HTTP/1.1 100 Continue\r\n\r\n" + REGULAR,
    DATED + b" folded\r\nContent-Length: 5\r\n\r\n",
    DATED + b"X : y\r\nContent-Length: 5\r\n\r\n",
    DATED + b"X: y\nContent-Length: 5\r\n\r\n",
    DATED + b"DATE: " + FIRST + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nDATE: " + FIRST + b"\r\nDate: " + FIRST + b"\r\n\r\n",
    DATED + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
)
heads = st.one_of(
    st.sampled_from(HEADS),
    st.builds(
        lambda status, fields: status + b"".join(map(b"".join, fields)) + b"\r\n",
        st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"]),
        st.lists(st.tuples(lines, ends), max_size=6),
    ),
)
bodies = st.sampled_from([b"", b"hello", b"hello, and more", b"3\r\nabc\r\n0\r\n\r\n"])
dates = st.one_of(
    st.sampled_from([FIRST, SECOND, b"", b"A" + b":" * 27 + b"T", b"\r\nContent-Length: 3"]),
    st.binary(max_size=30),
)


class Change(NamedTuple):
    """How a head differs from the one before."""

    date: bytes
    at: int
    inserted: bytes

    def of(self, head: bytes) -> bytes:
        changed = head.replace(FIRST, self.date)
        at = self.at % (len(changed) + 1)
        return changed[:at] + self.inserted + changed[at:]


NO_CHANGE = Change(SECOND, 0, b"")
changes = st.one_of(
    st.just(NO_CHANGE),
    st.builds(Change, dates, st.integers(0, 300), st.one_of(st.just(b""), st.binary(max_size=3), lines)),
)


def outcome(data: bytes, known: KnownHead | None, *, bodyless: bool = False, cut: int = 0) -> object:
    """Return all that a parser says of a response, except for its durations."""
    parser = ResponseParser("here", body_limit=64, bodyless=bodyless, known=known)
    for piece in (data[:cut], data[cut:]):
        if piece and parser.outcome is None:
            parser.feed(piece)
    parser.end(None)
    end = parser.outcome
    if isinstance(end, Response):
        return end._replace(processing_seconds=0, transfer_seconds=0), parser.reusable
    assert isinstance(end, Failure)
    return end.reason, end.message


@given(st.tuples(heads, bodies), changes, bodies, st.booleans(), st.integers(0, 300))
def test_what_is_recognized_is_what_would_be_parsed(
    before: tuple[bytes, bytes], change: Change, body: bytes, bodyless: bool, cut: int
) -> None:
    """Whatever has come before, and whatever is different."""
    known = KnownHead()
    outcome(b"".join(before), known, bodyless=bodyless)
    data = change.of(before[0]) + body
    assert outcome(data, known, bodyless=bodyless, cut=cut) == outcome(data, None, bodyless=bodyless, cut=cut)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "date",
    [
        *(FIRST, SECOND, FIRST[:-1], FIRST[:-3] + b"   ", FIRST[:-2] + b"\x01T", b"A" + b":" * 27 + b"T"),
        *(b"Sun, 06 Nov\r\nX: 08:49:37 GMT", b"Sun\r\n\r\n6 Nov 1994 08:49:37 GMT"),
    ],
)
def test_another_date_has_the_result_of_parsing(head: bytes, date: bytes) -> None:
    """Also with an interim head, folded or irregular headers, or several dates."""
    known = KnownHead()
    outcome(head + b"hello", known)
    data = head.replace(b"Date: " + FIRST, b"Date: " + date) + b"other"
    assert outcome(data, known) == outcome(data, None)


def test_a_head_with_another_date_is_recognized() -> None:
    """The headers have the new date, and the body is that of the new response."""
    known = KnownHead()
    outcome(REGULAR + b"hello", known)
    found = known.recognize(REGULAR.replace(FIRST, SECOND) + b"other")
    assert found is not None
    head, framing, rest = found
    assert (head.status, framing.length, framing.keeps_connection, rest) == (200, 5, True, b"other")
    assert head.headers[:3] == [(b"server", b"x"), (b"date", SECOND), (b"x", b"y")]


def test_two_recognized_heads_are_independent() -> None:
    """A canary may get its response while that to a probe is not complete."""
    known = KnownHead()
    outcome(REGULAR + b"hello", known)
    first, second = known.recognize(REGULAR), known.recognize(REGULAR.replace(FIRST, SECOND))
    assert first is not None
    assert second is not None
    assert (first[0].values(b"date"), second[0].values(b"date")) == ([FIRST], [SECOND])


def test_of_heads_that_always_differ_few_are_kept() -> None:
    """To keep a head that never comes again is lost work. One that comes again is recognized soon."""
    known = KnownHead()
    always_new = [REGULAR.replace(b"Server: x", b"Server: %d" % number) for number in range(16)]
    for head in always_new:
        outcome(head + b"hello", known)
    (kept,) = (head for head in always_new if known.recognize(head) is not None)
    outcome(REGULAR + b"hello", known)
    assert known.recognize(kept) is not None  # one exception is not kept, because the usual head comes again
    for _ in range(2):
        outcome(REGULAR + b"hello", known)
    assert known.recognize(REGULAR) is not None
