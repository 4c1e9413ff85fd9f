"""The judging of answers, without a network: each condition, and what the message says came instead."""

import json

import pytest
from http_servers import config

from exporter.checks.http_answer import Answer
from exporter.checks.http_expect import Expectation
from exporter.core.health import Reason


def answer(body: bytes | str = b"", *, status: int = 200, complete: bool = True, **headers: str) -> Answer:
    return Answer(
        status=status,
        version="1.1",
        headers=tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
        body=body.encode() if isinstance(body, str) else body,
        complete=complete,
        processing_seconds=0.0,
        transfer_seconds=0.0,
    )


def faults(given: Answer, **expect: object) -> list[tuple[Reason, str]]:
    read = config("http://api/", expect=expect)
    return Expectation(read.expect, body_limit=read.body_limit, hide=lambda text: text).faults(given)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, {}),
        (204, {}),
        (299, {}),
        (404, {"status": 404}),
        (301, {"status": [200, "3xx"]}),
        (418, {"status": "4xx"}),
    ],
)
def test_an_expected_status_is_good(status: int, expected: dict[str, object]) -> None:
    """Any 2xx if nothing is said; a number, a class, or a list of them."""
    assert faults(answer(status=status), **expected) == []


@pytest.mark.parametrize(
    ("status", "expected", "reason", "message"),
    [
        (500, {}, Reason.EXPECT, "status 500 Internal Server Error, expected 2xx"),
        (404, {}, Reason.EXPECT, "status 404 Not Found, expected 2xx"),
        (304, {"status": [200, "5xx"]}, Reason.EXPECT, "status 304 Not Modified, expected 200, 5xx"),
        (200, {"status": [204]}, Reason.EXPECT, "status 200 OK, expected 204"),
        (799, {}, Reason.EXPECT, "status 799, expected 2xx"),
        (401, {}, Reason.AUTH, "status 401 Unauthorized, expected 2xx"),
        (407, {}, Reason.AUTH, "status 407 Proxy Authentication Required, expected 2xx"),
    ],
)
def test_another_status_is_told(
    status: int, expected: dict[str, object], reason: Reason, message: str
) -> None:
    """With its name; 401 and 407 are about credentials."""
    assert faults(answer(status=status), **expected) == [(reason, message)]


def test_headers_match_by_pattern() -> None:
    """Names in any case, patterns anywhere in the value."""
    given = answer(content_type="application/json; charset=utf-8", x_version="2.4")
    assert faults(given, headers={"Content-Type": "json", "X-VERSION": r"^2\.\d$"}) == []
    assert faults(given, headers={"Content-Type": "^text/html", "ETag": "."}) == [
        (Reason.EXPECT, "header Content-Type is application/json; charset=utf-8, expected '^text/html'"),
        (Reason.EXPECT, "header ETag is missing"),
    ]


def test_body_matches_by_pattern() -> None:
    """As UTF-8, anywhere; what is no UTF-8 harms nothing."""
    assert faults(answer("alles grün"), body="gr.n$") == []
    assert faults(answer(b"\xff\xfe ok \x00"), body=r"\bok\b") == []
    assert faults(answer("maintenance\n"), body="^ok$") == [
        (Reason.EXPECT, "the body is 'maintenance\\n', expected '^ok$'")
    ]
    assert faults(answer(""), body=".") == [(Reason.EXPECT, "the body is empty, expected '.'")]


def test_a_pattern_that_would_explode_elsewhere_is_quick() -> None:
    """RE2 does not backtrack."""
    assert len(faults(answer("a" * 60000 + "!"), body="^(a+)+$")) == 1


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
def test_a_condition_on_json_that_holds(path: str, condition: object) -> None:
    """Paths and comparisons."""
    assert faults(answer(json.dumps(DOCUMENT)), json={path: condition}) == []


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
        ("status", {"exists": False}, 'json status is "ok", expected it not to be there'),
        ("missing", {"exists": True}, "json missing is missing, expected it to be there"),
    ],
)
def test_a_condition_on_json_that_does_not_hold(path: str, condition: object, message: str) -> None:
    """The message says what came instead."""
    assert faults(answer(json.dumps(DOCUMENT)), json={path: condition}) == [(Reason.EXPECT, message)]


@pytest.mark.parametrize(
    "body",
    ["", "<html>", "{", b"\xff\xff", "[" * 60000, '{"status": ' + "1" * 5000 + "}"],
    ids=lambda b: str(b[:5]),
)
def test_what_is_no_json_is_told(body: bytes | str) -> None:
    """However it fails to be."""
    (reason, message), *others = faults(answer(body), json={"status": "ok"})
    assert reason is Reason.EXPECT
    assert message.startswith("the body is not JSON: ")
    assert not others
    assert len(message) < 200


def test_every_failed_condition_is_told() -> None:
    """The first gives the reason, in the order status, headers, body, JSON."""
    found = faults(
        answer('{"status": "down"}', status=503),
        headers={"X": "."},
        body="up",
        json={"status": "up", "n": {">": 1}},
    )
    assert [reason for reason, _ in found] == [Reason.EXPECT] * 5
    assert found[0][1].startswith("status 503")
    assert found[-1][1] == "json n is missing, expected > 1"


def test_a_body_that_is_cut_is_not_looked_into() -> None:
    """It is too large, and that is all one can say."""
    found = faults(answer("{", complete=False, status=500), json={"a": 1}, body="x")
    assert [reason for reason, _ in found] == [Reason.EXPECT, Reason.TOO_LARGE]


def test_long_values_are_shown_in_part() -> None:
    """A message is for people."""
    for message in (
        text for _, text in faults(answer('"' + "x" * 5000 + '"', y="z" * 5000), body="a", headers={"y": "a"})
    ):
        assert len(message) < 200
        assert "…" in message
