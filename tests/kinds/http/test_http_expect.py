"""The conditions of `expect`, without a network: which ones hold, and what the message says was received instead."""

import json

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kinds.http.expect import Expectation
from connection_exporter.net.http1.response import Response
from support.http_servers import config


def answer(body: bytes | str = b"", *, status: int = 200, complete: bool = True, **headers: str) -> Response:
    return Response(
        status=status,
        version="1.1",
        headers=tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
        body=body.encode() if isinstance(body, str) else body,
        complete=complete,
        processing_seconds=0.0,
        transfer_seconds=0.0,
    )


def response_with(*headers: tuple[bytes, bytes]) -> Response:
    return answer()._replace(headers=headers)


def violations(given: Response, **expect: object) -> list[tuple[Reason, str]]:
    read = config("http://api/", expect=expect)
    return Expectation(read.expect, body_limit=read.body_limit).violations(given)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, {}),
        (204, {}),
        (299, {}),
        (404, {"status": 404}),
        (301, {"status": [200, "3xx"]}),
        (418, {"status": "4xx"}),
        (299, {"status": "200-299"}),
        (404, {"status": ["2XX", "404"]}),
        (299, {"status": "<300"}),
        (503, {"status": ">= 400"}),
        (500, {"status": "!=200"}),
        (302, {"status": {">=": 200, "<": 400}}),
        (302, {"status": {"<": "400", ">": "301"}}),
        (999, {"status": 999}),
        (600, {"status": ["2xx", {">": 599}]}),
    ],
)
def test_an_expected_status_is_good(status: int, expected: dict[str, object]) -> None:
    """Any 2xx by default; otherwise a number, a class, or a list of them."""
    assert violations(answer(status=status), **expected) == []


@pytest.mark.parametrize(
    ("status", "expected", "reason", "message"),
    [
        (500, {}, Reason.EXPECT, "status 500 Internal Server Error, expected 2xx"),
        (404, {}, Reason.EXPECT, "status 404 Not Found, expected 2xx"),
        (304, {"status": [200, "5xx"]}, Reason.EXPECT, "status 304 Not Modified, expected 200, 5xx"),
        (200, {"status": [204]}, Reason.EXPECT, "status 200 OK, expected 204"),
        (
            300,
            {"status": ["200-299", 404]},
            Reason.EXPECT,
            "status 300 Multiple Choices, expected 200-299, 404",
        ),
        (
            304,
            {"status": {">=": 200, "<": 304}},
            Reason.EXPECT,
            "status 304 Not Modified, expected >= 200 and < 304",
        ),
        (799, {}, Reason.EXPECT, "status 799, expected 2xx"),
        (401, {}, Reason.AUTH, "status 401 Unauthorized, expected 2xx"),
        (407, {}, Reason.AUTH, "status 407 Proxy Authentication Required, expected 2xx"),
    ],
)
def test_an_unexpected_status_is_reported(
    status: int, expected: dict[str, object], reason: Reason, message: str
) -> None:
    """With its standard phrase; 401 and 407 have the reason `auth`."""
    assert violations(answer(status=status), **expected) == [(reason, message)]


def test_headers_match_by_pattern() -> None:
    """Names match in any case, and patterns anywhere in the value."""
    given = answer(content_type="application/json; charset=utf-8", x_version="2.4")
    assert violations(given, headers={"Content-Type": "json", "X-VERSION": r"^2\.\d$"}) == []
    assert violations(given, headers={"Content-Type": "^text/html", "ETag": "."}) == [
        (Reason.EXPECT, "header Content-Type is application/json; charset=utf-8, expected '^text/html'"),
        (Reason.EXPECT, "header ETag is missing"),
    ]


@pytest.mark.parametrize(
    ("condition", "messages"),
    [
        ({"absent": True}, ["header X is a, b, expected it to be absent"]),
        ({"absent": False}, []),
        ({"not": "c"}, []),
        ({"not": "^b$"}, ["header X is a, b, expected no match for '^b$'"]),
        ({"matches": "^b$"}, []),
        ({"matches": "^a, b$", "not": "c"}, []),
        (
            {"matches": "c", "not": "a"},
            ["header X is a, b, expected 'c'", "header X is a, b, expected no match for 'a'"],
        ),
    ],
)
def test_a_header_that_is_sent_twice(condition: object, messages: list[str]) -> None:
    """A pattern may match either value, or both joined by a comma; `not` must match none of them."""
    given = response_with((b"x", b"a"), (b"x", b"b"))
    assert [message for _, message in violations(given, headers={"X": condition})] == messages


@pytest.mark.parametrize(
    ("condition", "messages"),
    [
        ({"absent": True}, []),
        ({"not": "."}, []),
        ({"absent": False}, ["header X is missing"]),
        ({"matches": ".", "not": "c"}, ["header X is missing"]),
    ],
)
def test_a_header_that_is_missing(condition: object, messages: list[str]) -> None:
    """It satisfies `absent`, and a `not` alone."""
    assert [message for _, message in violations(answer(), headers={"X": condition})] == messages


def test_a_header_may_be_utf_8_or_latin_1() -> None:
    """RFC 9110 allows neither, and servers send both."""
    for value in ("grün".encode(), "grün".encode("latin-1")):
        assert violations(response_with((b"x", value)), headers={"X": "^gr.n$"}) == []


def test_a_body_must_match_all_patterns_and_none_of_the_others() -> None:
    """`body` and `not_body` take a pattern, or a list of them."""
    given = answer("all systems operational")
    assert violations(given, body=["^all", "operational$"], not_body=["error", "down"]) == []
    assert violations(given, not_body="down") == []
    assert violations(answer(), not_body="down") == []
    assert violations(given, body=["^all", "x"], not_body=["error", "sys.*al"]) == [
        (Reason.EXPECT, "the body is 'all systems operational', expected 'x'"),
        (Reason.EXPECT, "the body is 'all systems operational', expected no match for 'sys.*al'"),
    ]


@pytest.mark.parametrize(
    ("content_type", "codec", "word"),
    [
        ("application/json; charset=ISO-8859-1", "latin-1", "grün"),
        ('application/json;charset="iso-8859-1"', "latin-1", "grün"),
        ("text/plain; version=1; Charset=Windows-1252", "cp1252", "10 €"),
        ("application/json; charset=utf-8", "utf-8", "grün"),
        ("application/json; charset=utf-16", "utf-16", "grün"),
        ("application/json; charset=utf-16", "utf-16-be", "grün"),
        ("application/json; charset=UTF-16LE", "utf-16-le", "grün"),
        ("application/json; charset=utf-32", "utf-32", "grün"),
        ("application/json; charset=utf-32", "utf-32-le", "grün"),
        ("application/json", "utf-16", "grün"),
        ("application/json", "utf-16-le", "grün"),
        ("application/json", "utf-16-be", "grün"),
        ("application/json", "utf-8-sig", "grün"),
        ("application/json; charset=iso-8859-1", "utf-8-sig", "grün"),
        ("application/json; charset=made-up", "utf-8", "grün"),
        ("application/json; charset=punycode", "utf-8", "grün"),
        ("text/html; charset=Shift_JIS", "shift_jis", "日本"),
        ("application/json; charset=gb18030", "gb18030", "中文"),
        ("", "utf-8", "grün"),
    ],
)
def test_the_charset_is_honoured(content_type: str, codec: str, word: str) -> None:
    """For JSON, for patterns and in messages; a byte order mark decides, and an unknown charset is UTF-8."""
    given = answer(f'{{"name": "{word}"}}'.encode(codec), content_type=content_type)
    assert violations(given, json={"name": word}, body=f'"{word}"') == []
    ((_, message),) = violations(given, body="never")
    assert word in message


def test_a_body_that_is_not_valid_in_its_charset_is_searched_all_the_same() -> None:
    """What cannot be decoded becomes U+FFFD, as in jq and in Go."""
    assert violations(answer(b'{"status": "ok", "x": "\xff"}'), json={"status": "ok"}) == []
    assert violations(answer(b"\xe4 ok", content_type="text/plain; charset=utf-8"), body="^\ufffd ok$") == []


def test_body_matches_by_pattern() -> None:
    """A pattern matches anywhere in the body, read as UTF-8; other bytes do no harm."""
    assert violations(answer("alles grün"), body="gr.n$") == []
    assert violations(answer(b"\xff\xfd ok \x00"), body=r"\bok\b") == []
    assert violations(answer("maintenance\n"), body="^ok$") == [
        (Reason.EXPECT, "the body is 'maintenance\\n', expected '^ok$'")
    ]
    assert violations(answer(""), body=".") == [(Reason.EXPECT, "the body is empty, expected '.'")]


def test_a_pattern_that_backtracks_in_other_engines_is_quick() -> None:
    """RE2 does not backtrack."""
    assert len(violations(answer("a" * 60000 + "!"), body="^(a+)+$")) == 1


DOCUMENT = {
    "status": "ok",
    "load": 0.75,
    "count": 5,
    "on": True,
    "nothing": None,
    "a.b": {"c d": 1},
    "items": [{"state": "open", "ages": [1, 2, 3]}, {"state": "closed"}],
    "since": "2026-01-02",
}


@pytest.mark.parametrize(
    ("path", "condition"),
    [
        ("status", "ok"),
        ("count", 5),
        ("count", 5.0),
        ("on", True),
        ("nothing", None),
        ("nothing", {"exists": True}),
        ("missing", {"exists": False}),
        ("status.deeper", {"exists": False}),
        ("items[0].state", "open"),
        ("items[-1].state", {"!=": "open"}),
        ("items[0].ages[2]", {">": 2, "<=": 3}),
        ("items[7]", {"exists": False}),
        ('["a.b"]["c d"]', 1),
        ("load", {"<": 1}),
        ("since", {">=": "2026-01-01"}),
        ("status", {"in": ["ok", "degraded"]}),
        ("nothing", {"in": [None, 0]}),
        ("status", {"matches": "^o"}),
        ("status", {"==": "ok"}),
    ],
)
def test_a_condition_on_json_holds(path: str, condition: object) -> None:
    """Each kind of path and comparison."""
    assert violations(answer(json.dumps(DOCUMENT)), json={path: condition}) == []


@pytest.mark.parametrize(
    ("path", "condition", "message"),
    [
        ("status", "up", 'json status is "ok", expected "up"'),
        ("count", "5", 'json count is 5, expected "5"'),
        ("count", True, "json count is 5, expected true"),
        ("on", 1, "json on is true, expected 1"),
        ("nothing", False, "json nothing is null, expected false"),
        ("missing", "x", 'json missing is missing, expected "x"'),
        ("missing", {"!=": "x"}, 'json missing is missing, expected != "x"'),
        ("status[0]", "o", 'json status[0] is missing, expected "o"'),
        ("items.state", "o", 'json items.state is missing, expected "o"'),
        ("items[-3]", 1, "json items[-3] is missing, expected 1"),
        ("items", 1, "json items is a list, expected 1"),
        ("items[0]", 1, "json items[0] is an object, expected 1"),
        ("load", {">=": 0.8}, "json load is 0.75, expected >= 0.8"),
        ("status", {">": 1}, 'json status is "ok", expected > 1'),
        ("on", {">": 0}, "json on is true, expected > 0"),
        ("count", {"<": "6"}, 'json count is 5, expected < "6"'),
        ("status", {"in": ["up", 1]}, 'json status is "ok", expected one of "up", 1'),
        ("status", {"matches": "^x"}, "json status is \"ok\", expected a match for '^x'"),
        ("count", {"matches": "5"}, "json count is 5, expected a match for '5'"),
        ("status", {"exists": False}, 'json status is "ok", expected it not to exist'),
        ("missing", {"exists": True}, "json missing is missing, expected it to exist"),
    ],
)
def test_a_condition_on_json_does_not_hold(path: str, condition: object, message: str) -> None:
    """The message says what was received instead."""
    assert violations(answer(json.dumps(DOCUMENT)), json={path: condition}) == [(Reason.EXPECT, message)]


@pytest.mark.parametrize(
    "body",
    ["", "<html>", "{", b"\xff\xff", "[" * 60000, '{"status": ' + "1" * 5000 + "}"],
    ids=lambda b: str(b[:5]),
)
def test_a_body_that_is_not_json_is_reported(body: bytes | str) -> None:
    """Whatever makes it invalid."""
    (reason, message), *others = violations(answer(body), json={"status": "ok"})
    assert reason is Reason.EXPECT
    assert message.startswith("the body is not JSON: ")
    assert not others
    assert len(message) < 200


def test_every_violated_condition_is_reported() -> None:
    """The first one gives the reason, in the order status, headers, body, JSON."""
    found = violations(
        answer('{"status": "down"}', status=503),
        headers={"X": "."},
        body="up",
        json={"status": "up", "n": {">": 1}},
    )
    assert [reason for reason, _ in found] == [Reason.EXPECT] * 5
    assert found[0][1].startswith("status 503")
    assert found[-1][1] == "json n is missing, expected > 1"


def test_a_body_that_exceeds_the_limit_is_not_searched() -> None:
    """The only thing known about it is that it is too large."""
    found = violations(answer("{", complete=False, status=500), json={"a": 1}, body="x")
    assert [reason for reason, _ in found] == [Reason.EXPECT, Reason.TOO_LARGE]


def test_long_values_are_cut_in_messages() -> None:
    """The beginning is shown."""
    for message in (
        text
        for _, text in violations(answer('"' + "x" * 5000 + '"', y="z" * 5000), body="a", headers={"y": "a"})
    ):
        assert len(message) < 200
        assert "…" in message
