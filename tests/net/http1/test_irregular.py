"""Irregular responses: what curl 7.88 and Go 1.26 accept is accepted, and the response says what is irregular.

Each row has the bytes of a response, which of the two accept them, and either what is irregular or a part of the
message. Who accepts them was found by sending these bytes to both.
"""

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net.http1.chunks import FOLDED_TRAILER, SPACES
from connection_exporter.net.http1.head import (
    BARE_LF,
    BODY_OF_204,
    CHUNKED_1_0,
    CLOSE_AND_KEEP,
    FOLDED,
    HTTP_2,
    KEEP_WITHOUT_LENGTH,
    NO_REASON,
    SPACE_BEFORE_COLON,
    SPACE_IN_NAME,
    SPACES_IN_STATUS_LINE,
    TWO_FRAMINGS,
    TWO_LENGTHS,
)
from connection_exporter.net.http1.response import Response, ResponseParser

BOTH, CURL, GO, NONE = "both", "curl", "go", "none"
DIFFER = "both, but they read it differently"
Row = tuple[bytes, str, str | tuple[str, ...]]

OK = b"Content-Length: 2\r\n\r\nok"
S = b"HTTP/1.1 200 OK\r\n"
CH = S + b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"2\r\nok\r\n0\r\n\r\n"


def te(coding: bytes) -> bytes:
    return S + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + CHUNKS


# fmt: off
STATUS_LINES: tuple[Row, ...] = (
    (b"HTTP/1.0 200 OK\r\n\r\nok", BOTH, ()),
    (b"HTTP/1.0 200 OK\r\n" + OK, BOTH, ()),
    (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nok", BOTH, (KEEP_WITHOUT_LENGTH,)),
    (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + OK, BOTH, ()),
    (S + b"Connection: keep-alive\r\n\r\nok", BOTH, (KEEP_WITHOUT_LENGTH,)),
    (b"HTTP/1.1 200 \r\n" + OK, BOTH, ()),
    (b"HTTP/1.1 200\r\n" + OK, BOTH, (NO_REASON,)),
    (b"HTTP/1.1  200 OK\r\n" + OK, BOTH, (SPACES_IN_STATUS_LINE,)),
    (b"HTTP/1.1 200  OK\r\n" + OK, BOTH, (SPACES_IN_STATUS_LINE,)),
    (b"HTTP/1.1\t200\tOK\r\n" + OK, NONE, "the version is"),
    (b"HTTP/1.1 OK\r\n" + OK, NONE, "the status line is"),
    (b"HTTP/1.1 20 OK\r\n" + OK, NONE, "the status line is"),
    (b"HTTP/1.1 2000 OK\r\n" + OK, NONE, "the status line is"),
    (b"HTTP/1.1 099 OK\r\n" + OK, GO, "the status line is"),
    (b"HTTP/1.1 600 OK\r\n" + OK, BOTH, ()),
    (b"HTTP/1.1 999 OK\r\n" + OK, BOTH, ()),
    (b"HTTP/1.1 200OK\r\n" + OK, CURL, "the status line is"),
    (b"HTTP/1.1 -20 OK\r\n" + OK, NONE, "the status line is"),
    (b"HTTP/1.1 +20 OK\r\n" + OK, GO, "the status line is"),
    (b"HTTP/1.1 2x0 OK\r\n" + OK, NONE, "the status line is"),
    ("HTTP/1.1 200 Schön\r\n".encode() + OK, BOTH, ()),
    (b"HTTP/1.1 200 O\0K\r\n" + OK, GO, "the status line is"),
    (b"HTTP/1.1 200 O\x01K\r\n" + OK, BOTH, ()),
    (b"http/1.1 200 OK\r\n" + OK, CURL, "the version is"),
    (b"HTTP/1.2 200 OK\r\n" + OK, GO, "the version is"),
    (b"HTTP/1.10 200 OK\r\n" + OK, NONE, "the version is"),
    (b"HTTP/2.0 200 OK\r\n" + OK, BOTH, (HTTP_2,)),
    (b"HTTP/2 200 OK\r\n" + OK, CURL, "the version is"),
    (b"HTTP/3 200 OK\r\n" + OK, NONE, "the version is"),
    (b"HTTP/0.9 200 OK\r\n" + OK, GO, "the version is"),
    (b"HTTP/1 200 OK\r\n" + OK, NONE, "the version is"),
    (b"HTTP/1. 200 OK\r\n" + OK, NONE, "the version is"),
    (b"HTTP/ 1.1 200 OK\r\n" + OK, CURL, "the version is"),
    (b"HTTP 1.1 200 OK\r\n" + OK, NONE, "does not speak HTTP"),
    (b"ICY 200 OK\r\n\r\nok", NONE, "does not speak HTTP"),
    (b"<html>ok</html>", NONE, "does not speak HTTP"),
    (b"\r\n" + S + OK, NONE, "does not speak HTTP"),
    (b"\n" + S + OK, NONE, "does not speak HTTP"),
    (b" " + S + OK, NONE, "does not speak HTTP"),
    (b"HTTP/1.1 200 OK\r\r\n" + OK, BOTH, ()),
    (b"HTTP/1.1 200 \tOK\r\n" + OK, BOTH, ()),
    (b"HTTP/1.1 200   \r\n" + OK, BOTH, (SPACES_IN_STATUS_LINE,)),
    (b"HTTP/1.1 200\n" + OK, BOTH, (NO_REASON, BARE_LF)),
)

HEADERS: tuple[Row, ...] = (
    (b"HTTP/1.1 200 OK\nX: y\nContent-Length: 2\n\nok", BOTH, (BARE_LF,)),
    (b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 2\r\n\nok", BOTH, (BARE_LF,)),
    (S + b"X: y\r\r\n" + OK, CURL, "the header 'X' contains a control character"),
    (S + b"X: a\rb\r\n" + OK, CURL, "the header 'X' contains a control character"),
    (b"HTTP/1.1 200 OK\rContent-Length: 2\r\rok", NONE, "in the middle of the response"),
    (S + b"X: a\r\n b\r\n" + OK, BOTH, (FOLDED,)),
    (S + b"X: a\r\n\tb\r\n" + OK, BOTH, (FOLDED,)),
    (S + b" X: a\r\n" + OK, NONE, "the first header begins with white space"),
    (b"HTTP/1.1 200 OK\nX: a\n b\nContent-Length: 2\n\nok", BOTH, (BARE_LF, FOLDED)),
    (S + b"Content-Length:\r\n 2\r\n\r\nok", GO, "the header 'Content-Length' is folded"),
    (S + b"X : y\r\n" + OK, BOTH, (SPACE_BEFORE_COLON,)),
    (S + b"X\t: y\r\n" + OK, CURL, "'X\\t' is not the name of a header"),
    (S + b"Content-Length : 2\r\n\r\nok", BOTH, (SPACE_BEFORE_COLON,)),
    (S + b"X Y: z\r\n" + OK, BOTH, (SPACE_IN_NAME,)),
    (S + b"X:y\r\n" + OK, BOTH, ()),
    (S + b"garbage\r\n" + OK, NONE, "a header without a colon: 'garbage'"),
    (S + b": y\r\n" + OK, CURL, "'' is not the name of a header"),
    (S + b"X/Y: y\r\n" + OK, CURL, "'X/Y' is not the name of a header"),
    (S + b"X(Y): y\r\n" + OK, CURL, "'X(Y)' is not the name of a header"),
    (S + b"X@Y: y\r\n" + OK, CURL, "'X@Y' is not the name of a header"),
    ("HTTP/1.1 200 OK\r\nXé: y\r\n".encode() + OK, CURL, "'X\\xc3\\xa9' is not the name of a header"),
    (S + b"X\x01Y: y\r\n" + OK, CURL, "'X\\x01Y' is not the name of a header"),
    (S + b"X: a\0b\r\n" + OK, NONE, "the header 'X' contains a control character"),
    (S + b"X: a\x01b\r\n" + OK, CURL, "the header 'X' contains a control character"),
    (S + b"X: a\x7fb\r\n" + OK, CURL, "the header 'X' contains a control character"),
    ("HTTP/1.1 200 OK\r\nX: é\r\n".encode() + OK, BOTH, ()),
    (S + b"X: \xe9\r\n" + OK, BOTH, ()),
    (S + b"X:\r\n" + OK, BOTH, ()),
    (S + b"X: y  \r\n" + OK, BOTH, ()),
    (b"HTTP/1.1 200 OK", NONE, "in the middle of the response"),
    (S + b" \r\n" + OK, NONE, "the first header begins with white space"),
    (S + b"Content-Length: 2\r\n \r\n\r\nok", BOTH, (FOLDED,)),
    (S + b"X: " + b"y" * 10_000 + b"\r\n" + OK, BOTH, ()),
    (S + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS, BOTH, (SPACE_BEFORE_COLON,)),
    (b"HTTP/1.1 302 Found\r\nLocation: /a\r\nLocation: /b\r\n" + OK, BOTH, ()),
    (S + b"Content-Length: 2\r\n\nok", BOTH, (BARE_LF,)),
    (S + b"Content-Length: 2\r\n\r\r\nok", CURL, "in the middle of the response"),
    (S + b"X: a\x0bb\r\n" + OK, CURL, "the header 'X' contains a control character"),
    (S + b"X  : y\r\n" + OK, BOTH, (SPACE_BEFORE_COLON,)),
    (S + b"X: a \r\n   b\r\n" + OK, BOTH, (FOLDED,)),
    (S + b"Transfer-Encoding : chunked\r\n" + OK, BOTH, (SPACE_BEFORE_COLON,)),
    (S + b"X:\r\n y\r\n" + OK, BOTH, (FOLDED,)),
)

FRAMINGS: tuple[Row, ...] = (
    (S + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, BOTH, (TWO_FRAMINGS,)),
    (CH + b"Content-Length: 3\r\n\r\n" + CHUNKS, BOTH, (TWO_FRAMINGS,)),
    (S + b"Content-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, NONE, "Content-Length is 'x'"),
    (CH + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n" + CHUNKS, CURL, "there are two different Content-Lengths"),
    (S + b"Content-Length: 2\r\n" + OK, BOTH, (TWO_LENGTHS,)),
    (S + b"Content-Length: 3\r\n" + OK, CURL, "there are two different Content-Lengths"),
    (S + b"Content-Length: 2, 2\r\n\r\nok", CURL, "Content-Length is '2, 2'"),
    (S + b"Content-Length: +2\r\n\r\nok", CURL, "Content-Length is '+2'"),
    (S + b"Content-Length: -2\r\n\r\nok", NONE, "Content-Length is '-2'"),
    (S + b"Content-Length: 02\r\n\r\nok", BOTH, ()),
    (S + b"Content-Length: 2 \r\n\r\nok", BOTH, ()),
    (S + b"Content-Length: 2x\r\n\r\nok", CURL, "Content-Length is '2x'"),
    (S + b"Content-Length: 0x2\r\n\r\nok", CURL, "Content-Length is '0x2'"),
    (S + b"Content-Length: \r\n\r\nok", NONE, "Content-Length is ''"),
    (S + b"Content-Length: 2.0\r\n\r\nok", CURL, "Content-Length is '2.0'"),
    (S + b"Content-Length: 99999999999999999999999\r\n\r\nok", CURL, "Content-Length is '99999999999999999999999'"),
    (S + b"Content-Length: 2;\r\n\r\nok", CURL, "Content-Length is '2;'"),
    (S + b"Content-Length: 5\r\n\r\nok", NONE, "in the middle of the response"),
    (S + b"Content-Length: 2 2\r\n\r\nok", CURL, "Content-Length is '2 2'"),
    (te(b"CHUNKED"), BOTH, ()),
    (te(b"gzip, chunked"), NONE, "Transfer-Encoding is 'gzip, chunked'"),
    (te(b"chunked, gzip"), NONE, "Transfer-Encoding is 'chunked, gzip'"),
    (S + b"Transfer-Encoding: identity\r\n\r\nok", CURL, "Transfer-Encoding is 'identity'"),
    (S + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", CURL, "Transfer-Encoding is 'identity'"),
    (te(b"identity, chunked"), CURL, "Transfer-Encoding is 'identity, chunked'"),
    (CH + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS, CURL, "Transfer-Encoding is 'chunked, chunked'"),
    (te(b"chunked, chunked"), CURL, "Transfer-Encoding is 'chunked, chunked'"),
    (S + b"Transfer-Encoding: \r\n\r\nok", CURL, "Transfer-Encoding is ''"),
    (S + b"Transfer-Encoding: foo\r\n\r\nok", NONE, "Transfer-Encoding is 'foo'"),
    (te(b"xchunked"), NONE, "Transfer-Encoding is 'xchunked'"),
    (te(b"chunked;q=1"), NONE, "Transfer-Encoding is 'chunked;q=1'"),
    (te(b"\"chunked\""), NONE, "Transfer-Encoding is '\"chunked\"'"),
    (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, DIFFER, (CHUNKED_1_0,)),
    (b"HTTP/1.1 204 No Content\r\n" + OK, BOTH, (BODY_OF_204,)),
    (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, BOTH, (BODY_OF_204,)),
    (b"HTTP/1.1 304 Not Modified\r\n" + OK, BOTH, ()),
    (b"HTTP/1.1 205 Reset\r\n" + OK, BOTH, ()),
    (S + b"Connection: close, keep-alive\r\n" + OK, BOTH, (CLOSE_AND_KEEP,)),
    (b"HTTP/1.0 200 OK\r\nProxy-Connection: keep-alive\r\n" + OK, BOTH, ()),
    (S + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKS, DIFFER, "the header 'Transfer-Encoding' is folded"),
    (CH + b" x\r\n\r\n" + CHUNKS, CURL, "the header 'Transfer-Encoding' is folded"),
    (S + b"Connection: keep-alive,\r\n close\r\n" + OK, BOTH, (FOLDED, CLOSE_AND_KEEP)),
    (S + b"Content-Length: 2\r\n \r\n\t\r\n\r\nok", BOTH, (FOLDED,)),
    (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: foo\r\n\r\nok", GO, "Transfer-Encoding is 'foo'"),
    (CH.replace(b"/1.1", b"/1.0") + b"Content-Length: 9\r\n\r\n" + CHUNKS, DIFFER, (TWO_FRAMINGS, CHUNKED_1_0)),
    (S + b"Content-Length: 02\r\n" + OK, CURL, "there are two different Content-Lengths"),
    (S + b"Content-Length: 9223372036854775807\r\n\r\nok", NONE, "Content-Length is '9223372036854775807'"),
    (S + b"Content-Length: 00000000000000000000002\r\n\r\nok", BOTH, ()),
    (b"HTTP/1.1 204 No\r\nContent-Length: x\r\n\r\n", CURL, "Content-Length is 'x'"),
    (b"HTTP/1.1 204 No\r\nTransfer-Encoding: foo\r\n\r\n", CURL, "Transfer-Encoding is 'foo'"),
)

CHUNKS_OF_BODIES: tuple[Row, ...] = (
    (CH + b"\r\n" + CHUNKS, BOTH, ()),
    (CH + b"\r\n2 \r\nok\r\n0\r\n\r\n", BOTH, (SPACES,)),
    (CH + b"\r\n2      \r\nok\r\n0  \r\n\r\n", BOTH, (SPACES,)),
    (CH + b"\r\n2\t\r\nok\r\n0\r\n\r\n", BOTH, (SPACES,)),
    (CH + b"\r\n 2\r\nok\r\n0\r\n\r\n", NONE, "b' 2' is not the size of a chunk"),
    (CH + b"\r\n2;a=b\r\nok\r\n0\r\n\r\n", BOTH, ()),
    (CH + b"\r\n2 ; a=b\r\nok\r\n0\r\n\r\n", CURL, "b'2 ; a=b' is not the size of a chunk"),
    (CH + b"\r\n2 garbage\r\nok\r\n0\r\n\r\n", CURL, "b'2 garbage' is not the size of a chunk"),
    (CH + b"\r\n2garbage\r\nok\r\n0\r\n\r\n", CURL, "b'2garbage' is not the size of a chunk"),
    (CH + b"\r\n0x2\r\nok\r\n0\r\n\r\n", NONE, "b'0x2' is not the size of a chunk"),
    (CH + b"\r\n-2\r\nok\r\n0\r\n\r\n", NONE, "b'-2' is not the size of a chunk"),
    (CH + b"\r\n+2\r\nok\r\n0\r\n\r\n", NONE, "b'+2' is not the size of a chunk"),
    (CH + b"\r\n0002\r\nok\r\n0000\r\n\r\n", BOTH, ()),
    (CH + b"\r\n" + b"0" * 17 + b"2\r\nok\r\n0\r\n\r\n", NONE, "b'000000000000000002' is not the size of a chunk"),
    (CH + b"\r\n" + b"0" * 15 + b"2\r\nok\r\n0\r\n\r\n", BOTH, ()),
    (CH + b"\r\nfffffffffffffffff\r\nok\r\n0\r\n\r\n", NONE, "b'fffffffffffffffff' is not the size of a chunk"),
    (CH + b"\r\nffffffffffffffff\r\nok\r\n0\r\n\r\n", NONE, "b'ffffffffffffffff' is not the size of a chunk"),
    (CH + b"\r\n\r\nok\r\n0\r\n\r\n", NONE, "b'' is not the size of a chunk"),
    (CH + b"\r\nzz\r\nok\r\n0\r\n\r\n", NONE, "b'zz' is not the size of a chunk"),
    (CH + b"\r\nA\r\n0123456789\r\n0\r\n\r\n", BOTH, ()),
    (CH + b"\r\n2\nok\r\n0\r\n\r\n", CURL, "a chunk size ends with a bare LF"),
    (CH + b"\r\n2\r\nok\n0\r\n\r\n", CURL, "a chunk is longer than its size says"),
    (CH + b"\r\n2\r\nok\r\n0\r\n\n", CURL, "the chunked encoding ends with a bare LF"),
    (CH + b"\r\n2\r\nok0\r\n\r\n", NONE, "a chunk is longer than its size says"),
    (CH + b"\r\n2\r\nokx\r\n0\r\n\r\n", NONE, "a chunk is longer than its size says"),
    (CH + b"\r\n2\r\r\nok\r\n0\r\n\r\n", CURL, "b'2\\r' is not the size of a chunk"),
    (CH + b"\r\n2\r\nok\r\n0\r\n", NONE, "in the middle of the response"),
    (CH + b"\r\n2\r\nok\r\n", NONE, "in the middle of the response"),
    (CH + b"\r\n2\r\nok\r\n0", NONE, "in the middle of the response"),
    (CH + b"\r\n2\r\nok\r\n0\r\nT: 1\r\n\r\n", BOTH, ()),
    (CH + b"\r\n2\r\nok\r\n0\r\nT: 1\r\n 2\r\n\r\n", BOTH, (FOLDED_TRAILER,)),
    (CH + b"\r\n2\r\nok\r\n0\r\ngarbage\r\n\r\n", NONE, "a header without a colon: 'garbage'"),
    (CH + b"\r\n2\r\nok\r\n0\r\nT : 1\r\n\r\n", BOTH, ()),
    (CH + b"\r\n2\r\nok\r\n0\r\nT: 1\n\n", CURL, "the chunked encoding ends with a bare LF"),
    (CH + b"\r\n2\r\nok\r\n0\r\nContent-Length: 5\r\n\r\n", BOTH, ()),
    (CH + b"\r\n2\r\nok\r\n0\r\nT: 1\nU: 2\r\n\r\n", BOTH, (BARE_LF,)),
    (CH + b"\r\n2\r\nok\r\n0\r\nT: \x01\r\n\r\n", CURL, "the header 'T' contains a control character"),
    (CH + b"\r\n2\r\nok\r\n0\r\n T: 1\r\n\r\n", CURL, "' T' is not the name of a header"),
    (CH + b"\r\n2;" + b"x" * 3000 + b"\r\nok\r\n0\r\n\r\n", BOTH, ()),
    (CH + b"\r\n2;" + b"x" * 5000 + b"\r\nok\r\n0\r\n\r\n", CURL, "too large"),
    (CH + b"\r\n2\r\nok\r\n0\r\nT: " + b"x" * 5000 + b"\r\n\r\n", NONE, "too large"),
    (CH + b"\r\n2\r\nok\r\n0\r\n" + b"T: xxxxx\r\n"*1000 + b"\r\n", CURL, "too large"),
    (CH + b"\r\n2;\r\nok\r\n0\r\n\r\n", BOTH, ()),
    (CH + b"\r\n2;\x01\r\nok\r\n0\r\n\r\n", BOTH, ()),
)

ENDS: tuple[Row, ...] = (
    (S + OK, BOTH, ()),
    (b"HTTP/1.1 100 Continue\r\n\r\n" + S + OK, BOTH, ()),
    (b"HTTP/1.1 100 Continue\n\n" + S + OK, BOTH, (BARE_LF,)),
    (b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n" + S + OK, BOTH, ()),
    (b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n" + S + OK, BOTH, ()),
    (b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n" + S + OK, BOTH, ()),
    (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + S + OK, BOTH, ()),
    (b"HTTP/1.1 199 X\r\n\r\n" + S + OK, BOTH, ()),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 6 + S + OK, BOTH, ()),
    (b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nok", BOTH, ()),
    (b"HTTP/1.1 101 Switching\r\n\r\nok", BOTH, ()),
    (S + OK + b"garbage", BOTH, ()),
    (S + OK + S + OK, BOTH, ()),
    (b"HTTP/1.1 200 OK\r\n\r\nok", BOTH, ()),
    (b"HTTP/1.1 200 OK\r\n", CURL, "in the middle of the response"),
    (b"HTTP/1.1 200 OK\r\nX: y\r\n", CURL, "in the middle of the response"),
    (b"HTTP/1.1 200 OK\r\nX: y", CURL, "in the middle of the response"),
)
# fmt: on


def parsed(data: bytes, *, at_a_time: int = 1 << 20) -> ResponseParser:
    parser = ResponseParser("here", body_limit=65536, bodyless=False)
    for start in range(0, len(data), at_a_time):
        if parser.outcome is None:
            parser.feed(data[start : start + at_a_time])
    parser.end(None)
    return parser


@pytest.mark.parametrize(
    ("data", "accepted_by", "expected"), [*STATUS_LINES, *HEADERS, *FRAMINGS, *CHUNKS_OF_BODIES, *ENDS]
)
@pytest.mark.parametrize("at_a_time", [1, 1 << 20])
def test_what_curl_and_go_accept_is_accepted(
    data: bytes, accepted_by: str, expected: str | tuple[str, ...], at_a_time: int
) -> None:
    """What one of them refuses is a violation of the protocol, and the message says what is wrong."""
    outcome = parsed(data, at_a_time=at_a_time).outcome
    if isinstance(expected, tuple):
        assert accepted_by in (BOTH, DIFFER)
        assert isinstance(outcome, Response), outcome
        assert outcome.complete
        assert outcome.irregular == expected
    elif expected == "too large":
        assert accepted_by in (CURL, NONE)
        assert isinstance(outcome, Response)
        assert not outcome.complete
    else:
        assert accepted_by != BOTH
        assert isinstance(outcome, Failure)
        assert outcome.reason in (Reason.PROTOCOL, Reason.EOF)
        assert expected in outcome.message


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (S + b"Content-Length : 2\r\n\r\nok until the end", b"ok until the end"),
        (S + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS, CHUNKS),
        (S + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, b"ok"),
        (S + b"Content-Length: 2\r\n" + OK, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n" + OK, b""),
    ],
)
def test_irregular_framing_is_read_as_curl_and_go_read_it(data: bytes, body: bytes) -> None:
    """A framing header with a space before its colon does not count."""
    outcome = parsed(data).outcome
    assert isinstance(outcome, Response)
    assert outcome.body == body


@pytest.mark.parametrize(
    ("data", "reusable"),
    [
        (S + OK, True),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", True),
        (S + OK + b"H", False),
        (te(b"chunked") + b"\r\n", False),
        (b"HTTP/1.1 204 No Content\r\n" + OK, False),
        (b"HTTP/1.0 200 OK\r\n" + OK, False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n" + OK, True),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, False),
        (S + b"Connection: keep-alive\r\nConnection: close\r\n" + OK, False),
        (S + b"Connection: keep-alive,\r\n close\r\n" + OK, False),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", False),
    ],
)
def test_a_connection_is_reused_only_if_nothing_is_left_over(data: bytes, reusable: bool) -> None:
    """What follows a response might be taken for the next one."""
    parser = parsed(data)
    assert isinstance(parser.outcome, Response)
    assert parser.reusable is reusable
