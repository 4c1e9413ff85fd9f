"""Conditions on a JSON document: which ones hold, and what the message says is there instead."""

import json

import pytest
from connection_exporter.config.conditions import parse_conditions
from connection_exporter.config.evaluation import load_json, violated
from hypothesis import given
from hypothesis import strategies as st

DOCUMENT = """{
  "status": "ok", "count": 5, "load": 0.75, "on": true, "nothing": null, "empty": [], "name": "grün",
  "id": 9007199254740993, "big": 1234567890123456789, "thousand": 1e3,
  "ready": 3, "wanted": 3, "same": {"a": [1, true]}, "other": {"a": [1.0, true]}, "differs": {"a": [1, 1]},
  "items": [{"state": "open"}, {"state": "closed"}], "matrix": [[1, 2], [3, [4]]], "$ref": "#/x", "it's": 1
}"""


def messages(conditions: object, document: str = DOCUMENT) -> list[str]:
    return list(violated(parse_conditions(conditions), load_json(document)))


@pytest.mark.parametrize(
    ("path", "condition"),
    [
        ("status", {"not_in": ["down", 1]}),
        ("status", {"not_matches": "^d"}),
        ("items", {"length": 2}),
        ("items", {"length": {">": 1, "<=": 2, "!=": 3}}),
        ("items", {"length": {"in": [1, 2]}, "exists": True}),
        ("empty", {"length": 0}),
        ("name", {"length": 4}),
        ("same", {"length": 1}),
        ("ready", {"path": "wanted"}),
        ("ready", {"==": {"path": "$.wanted"}, "<=": {"path": "count"}, "!=": {"path": "load"}}),
        ("same", {"path": "other"}),
        ("same", {"!=": {"path": "differs"}}),
        ("ready", {">": {"path": "load"}}),
        ("items", {"length": {"<": {"path": "ready"}}}),
        ("id", 9007199254740993),
        ("id", {"!=": 9007199254740992}),
        ("big", {">": 1234567890123456788, "<": 1234567890123456790}),
        ("thousand", 1000),
        ("matrix[1][1][0]", 4),
        ("matrix[-1][0]", 3),
        ("$.items[0].state", "open"),
        (".items[0].state", "open"),
        ("$['items'][1][\"state\"]", "closed"),
        ('["$ref"]', "#/x"),
        ('["it\'s"]', 1),
        ("$", {"exists": True, "length": {">": 10}}),
    ],
)
def test_a_condition_holds(path: str, condition: object) -> None:
    """Each kind of path and comparison; integers are exact."""
    assert messages({path: condition}) == []


@pytest.mark.parametrize(
    ("path", "condition", "message"),
    [
        ("status", {"not_in": ["ok", 1]}, 'json status is "ok", expected none of "ok", 1'),
        ("status", {"not_matches": "^o"}, "json status is \"ok\", expected no match for '^o'"),
        ("missing", {"not_in": ["ok"]}, 'json missing is missing, expected none of "ok"'),
        ("items", {"length": 3}, "json length of items is 2, expected 3"),
        ("items", {"length": {">": 2}}, "json length of items is 2, expected > 2"),
        ("count", {"length": 1}, "json count is 5, which has no length, expected 1"),
        ("missing", {"length": 0}, "json missing is missing, expected 0"),
        ("ready", {"path": "count"}, "json ready is 3, expected count (5)"),
        ("ready", {">": {"path": "wanted"}}, "json ready is 3, expected > wanted (3)"),
        ("ready", {"<": {"path": "status"}}, 'json ready is 3, expected < status ("ok")'),
        ("ready", {"path": "a.b"}, "json ready is 3, expected a.b (missing)"),
        ("ready", {"!=": {"path": "a.b"}}, "json ready is 3, expected != a.b (missing)"),
        ("same", {"path": "differs"}, "json same is an object, expected differs (an object)"),
        ("id", 9007199254740992, "json id is 9007199254740993, expected 9007199254740992"),
        ("$", "ok", 'json $ is an object, expected "ok"'),
        ("[0]", 1, "json [0] is missing, expected 1"),
    ],
)
def test_a_condition_does_not_hold(path: str, condition: object, message: str) -> None:
    """The message says what is there, and what was expected."""
    assert messages({path: condition}) == [message]


@pytest.mark.parametrize(
    ("document", "conditions"),
    [
        ('"ok"', {"$": "ok"}),
        ("5", {".": {">": 4}}),
        ("true", {"": True}),
        ("null", {"$": None}),
        ('[{"id": 1}, {"id": 2}]', {"$": {"length": 2}, "[0].id": 1, "$[-1].id": 2, ".[1].id": 2}),
        ("[[1, 2], [3]]", {"[0][1]": 2, "[1]": {"length": 1}}),
        ("\ufeff[]", {"$": {"length": 0}}),
    ],
)
def test_the_root_may_be_anything(document: str, conditions: object) -> None:
    """Its path is $, a dot, or empty; a path into a list begins with a bracket."""
    assert messages(conditions, document) == []


@pytest.mark.parametrize("document", ["", "NaN", "[Infinity]", "[" * 60_000, "1" * 5000, "{'a': 1}", "[1,]"])
def test_what_is_not_json_is_an_error(document: str) -> None:
    """A ValueError, whatever makes it invalid."""
    with pytest.raises(ValueError):  # noqa: PT011 - every error of the parser is one
        load_json(document)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ).map(json.dumps)
    | st.lists(st.sampled_from([*'[]{},:"\\ \n1-.e', "null", "NaN", "-Infinity", "\\ud83d", "é"])).map(
        "".join
    )
)
def test_a_document_is_read_as_json_loads_reads_it(document: str) -> None:
    """Only without a decoder for each document. The constants of JavaScript are no JSON."""
    try:
        expected = json.loads(document, parse_constant=lambda _: pytest.fail("a constant"))
    except (ValueError, pytest.fail.Exception):
        with pytest.raises(ValueError):  # noqa: PT011 - every error of the parser is one
            load_json(document)
    else:
        assert load_json(document) == expected


def test_values_nested_as_deep_as_json_may_be_are_compared() -> None:
    """Without recursion."""
    deep = "[" * 900 + "1" + "]" * 900
    assert messages({"a": {"path": "b"}}, f'{{"a": {deep}, "b": {deep}}}') == []
    assert messages({"a": {"!=": {"path": "b"}}}, f'{{"a": {deep}, "b": {deep.replace("1", "2")}}}') == []


def test_a_large_document_does_not_make_a_large_message() -> None:
    """Values are cut."""
    (message,) = messages({"a": "x"}, json.dumps({"a": "y" * 100_000}))
    assert len(message) < 200
