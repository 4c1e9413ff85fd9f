"""gatus' conditions, written as `expect`: the same answers are good and bad.

Each row has the condition in gatus' words, ours, a body for which it holds and one for which it does not. The facts are
those of gatus' documentation; where the two differ, a row says so.
"""

import pytest
from support.http_servers import answers, ask, reply, serving

STATUSES = (
    ("[STATUS] == 201", 201, [201], [200, 500]),
    ("[STATUS] == any(200, 429)", [200, 429], [200, 429], [201, 500]),
    ("[STATUS] != 500", "!=500", [200, 501], [500]),
    ("[STATUS] < 300", "<300", [200, 299], [300, 404]),
    ("[STATUS] <= 300", "<=300", [300], [301]),
    ("[STATUS] > 200", ">200", [201, 500], [200]),
    ("[STATUS] >= 200, [STATUS] < 300", {">=": 200, "<": 300}, [200, 299], [301]),
    ("[STATUS] == pat(4*)", "4xx", [400, 499], [200, 500]),
    ("[STATUS] == pat(20*)", "200-209", [204], [210]),
    ("[STATUS] != any(500, 503)", ["<500", 501, 502, ">503"], [200, 404, 502], [500, 503]),
)

BODIES: tuple[tuple[str, dict[str, object], str, str], ...] = (
    ("[BODY] == test", {"body": "^test$"}, "test", "a test"),
    ("[BODY] != test", {"not_body": "^test$"}, "a test", "test"),
    (
        "[BODY] == pat(*<div id='user'>john.doe</div>*)",
        {"body": "<div id='user'>john[.]doe</div>"},
        "<html><div id='user'>john.doe</div>",
        "<html>",
    ),
    ("[BODY] == pat(*ok*)", {"body": "ok"}, "all ok", "error"),
    ("[BODY] != pat(*error*)", {"not_body": "error"}, "all ok", "an error"),
    ("[BODY] == any(UP, RUNNING)", {"body": "^(UP|RUNNING)$"}, "UP", "DOWN"),
    ("len([BODY]) > 4", {"body": "(?s)^.{5,}$"}, "hello\n", "hey"),
    ('[BODY] == ""', {"body": "^$"}, "", "x"),
)

JSON: tuple[tuple[str, dict[str, object], str, str], ...] = (
    ("[BODY].name == john", {"name": "john"}, '{"name": "john"}', '{"name": "jane"}'),
    (
        "[BODY].user.name == john.doe",
        {"user.name": "john.doe"},
        '{"user": {"name": "john.doe"}}',
        '{"user": "john.doe"}',
    ),
    ("[BODY].id == 1", {"id": 1}, '{"id": 1}', '{"id": 2}'),
    ("[BODY].id == 1, of a text", {"id": {"in": [1, "1"]}}, '{"id": "1"}', '{"id": "01"}'),
    (
        "[BODY].id == 1234567890123456789",
        {"id": 1234567890123456789},
        '{"id": 1234567890123456789}',
        '{"id": 1234567890123456788}',
    ),
    ("[BODY].id != 1", {"id": {"!=": 1}}, '{"id": 2}', '{"id": 1}'),
    ("[BODY].count > 3", {"count": {">": 3}}, '{"count": 3.5}', '{"count": 3}'),
    ("[BODY].count < 1e3", {"count": {"<": 1e3}}, '{"count": 999}', '{"count": 1000}'),
    ("[BODY].count >= 5, [BODY].count <= 6", {"count": {">=": 5, "<=": 6}}, '{"count": 5}', '{"count": 7}'),
    ("[BODY].count > -2", {"count": {">": -2}}, '{"count": -1}', '{"count": -2}'),
    ("[BODY].active == true", {"active": True}, '{"active": true}', '{"active": false}'),
    ("[BODY].error == null", {"error": None}, '{"error": null}', '{"error": "x"}'),
    ('[BODY].name == ""', {"name": ""}, '{"name": ""}', '{"name": "x"}'),
    ("[BODY].data[0].id == 1", {"data[0].id": 1}, '{"data": [{"id": 1}]}', '{"data": [{"id": 2}]}'),
    (
        "[BODY].data[1].id == 2",
        {"data[1].id": 2},
        '{"data": [{"id": 1}, {"id": 2}]}',
        '{"data": [{"id": 1}]}',
    ),
    ("[BODY].data[0] == 1", {"data[0]": 1}, '{"data": [1]}', '{"data": []}'),
    ("[BODY].data[0][1] == 2", {"data[0][1]": 2}, '{"data": [[1, 2]]}', '{"data": [1, 2]}'),
    (
        "[BODY].data[0][1].id[0] == 3",
        {"data[0][1].id[0]": 3},
        '{"data": [[0, {"id": [3]}]]}',
        '{"data": [[0, {"id": []}]]}',
    ),
    ("[BODY][0].id == 1", {"[0].id": 1}, '[{"id": 1}]', '{"0": {"id": 1}}'),
    ("[BODY][0] == 1", {"[0]": 1}, "[1, 2]", "[2]"),
    ("[BODY][0][0] == 1", {"$[0][0]": 1}, "[[1]]", "[1]"),
    ("[BODY] == true, of JSON", {"$": True}, "true", "false"),
    ("[BODY] == 5, of JSON", {"$": {"==": 5}}, "5", "6"),
    ("len([BODY].data) == 3", {"data": {"length": 3}}, '{"data": [1, 2, 3]}', '{"data": [1]}'),
    ("len([BODY].data) > 0", {"data": {"length": {">": 0}}}, '{"data": [1]}', '{"data": []}'),
    ("len([BODY].name) == 8", {"name": {"length": 8}}, '{"name": "john.doe"}', '{"name": "john"}'),
    (
        "len([BODY].data[0].name) < 5",
        {"data[0].name": {"length": {"<": 5}}},
        '{"data": [{"name": "john"}]}',
        '{"data": [{"name": "johnny"}]}',
    ),
    ("len([BODY]) == 2", {"$": {"length": 2}}, "[1, 2]", "[1]"),
    (
        "len([BODY].items) == [BODY].count",
        {"items": {"length": {"path": "count"}}},
        '{"items": [1], "count": 1}',
        '{"items": [], "count": 1}',
    ),
    ("[BODY].name == pat(john*)", {"name": {"matches": "^john"}}, '{"name": "john.doe"}', '{"name": "jane"}'),
    (
        "[BODY].name != pat(*doe)",
        {"name": {"not_matches": "doe$"}},
        '{"name": "john"}',
        '{"name": "john.doe"}',
    ),
    ("[BODY].name == pat(j?hn*)", {"name": {"matches": "^j.hn"}}, '{"name": "jahn"}', '{"name": "jhn"}'),
    (
        "[BODY].name == any(john, pat(jane*))",
        {"name": {"matches": "^(john$|jane)"}},
        '{"name": "jane.doe"}',
        '{"name": "john.doe"}',
    ),
    (
        "[BODY].name == any(john.doe, jane.doe)",
        {"name": {"in": ["john.doe", "jane.doe"]}},
        '{"name": "jane.doe"}',
        '{"name": "jack"}',
    ),
    (
        "[BODY].name != any(john, jane)",
        {"name": {"not_in": ["john", "jane"]}},
        '{"name": "jack"}',
        '{"name": "john"}',
    ),
    ("[BODY].id == any(1, 2)", {"id": {"in": [1, 2]}}, '{"id": 2}', '{"id": 3}'),
    ("has([BODY].errors) == false", {"errors": {"exists": False}}, '{"data": 1}', '{"errors": []}'),
    ("has([BODY].data.id) == true", {"data.id": {"exists": True}}, '{"data": {"id": null}}', '{"data": {}}'),
    ("has([BODY][0].id) == true", {"[0].id": {"exists": True}}, '[{"id": 1}]', "[]"),
    ("[BODY].a == [BODY].b", {"a": {"path": "b"}}, '{"a": "x", "b": "x"}', '{"a": "x", "b": "y"}'),
    (
        "[BODY].used < [BODY].limit",
        {"used": {"<": {"path": "limit"}}},
        '{"used": 1, "limit": 2}',
        '{"used": 2, "limit": 2}',
    ),
    (
        "[BODY].since >= 2026-01-01",
        {"since": {">=": "2026-01-01"}},
        '{"since": "2026-02-01"}',
        '{"since": "2025-12-31"}',
    ),
    ("[BODY].x-y.a_b == 1", {"x-y.a_b": 1}, '{"x-y": {"a_b": 1}}', '{"x-y": {"a_b": 2}}'),
)


@pytest.mark.parametrize(("gatus", "ours", "good", "bad"), STATUSES)
async def test_a_condition_on_the_status(gatus: str, ours: object, good: list[int], bad: list[int]) -> None:
    """Numbers, classes, ranges and comparisons."""
    for status in (*good, *bad):
        async with serving(answers(reply("", f"{status} X"))) as server:
            seen = await ask(server.url(), expect={"status": ours})
        assert (seen.reason is None) is (status in good), (gatus, status)


@pytest.mark.parametrize(
    ("gatus", "expect", "good", "bad"),
    [*BODIES, *((gatus, {"json": json}, *two) for gatus, json, *two in JSON)],
)
async def test_a_condition_on_the_body(gatus: str, expect: dict[str, object], good: str, bad: str) -> None:
    """Text and JSON."""
    for body in (good, bad):
        async with serving(answers(reply(body))) as server:
            seen = await ask(server.url(), expect=expect)
        assert (seen.reason is None) is (body is good), (gatus, seen.message)
