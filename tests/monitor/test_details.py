"""What a check reports is made fit to be shown, or becomes a crash of that service that names the detail."""

import json
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Any

import pytest
from connection_exporter.core.health import Event
from connection_exporter.kind import Observation
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import build
from connection_exporter.monitor import snapshot
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.details import (
    MAX_KEYS,
    MAX_TEXT,
    BadDetail,
    _Cleaner,
    _is_clean,
    clean,
    presentable,
)
from connection_exporter.monitor.record import Report
from connection_exporter.net import Network
from connection_exporter.system.clock import SystemClock
from hypothesis import given
from hypothesis import strategies as st


def hide(text: str) -> str:
    return text.replace("s3cret-value", "[redacted]")


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.sampled_from(
    [0.0, -1.5, 99_999.0, 1e5, 12345678.0, 1e300, -(2**63), 2**64 - 1, 2**64, 12345678, 99_999]
)
KEYS = st.sampled_from(["metric", "", "x", "s3cret-value", "k" * 100, "k" * 101, "\n", "\u202e"]) | st.text(
    max_size=3
)
TEXTS = st.sampled_from(["ok", "s3cret-value", "y" * 1000, "y" * 1001, "y" * MAX_TEXT, "\x9b"]) | st.text(
    max_size=3
)
RECURSIVE: dict[str, Any] = {}
RECURSIVE["x"] = [RECURSIVE]


@pytest.mark.parametrize(
    ("details", "problem"),
    [
        ({"a": float("nan")}, "detail 'a' is not a finite number"),
        ({"a": {"b": [1, float("-inf")]}}, "detail 'a.b[]' is not a finite number"),
        ({"a": {1, 2}}, "detail 'a' is not JSON but of type set"),
        ({"a": b"x"}, "detail 'a' is not JSON but of type bytes"),
        ({"a": object()}, "detail 'a' is not JSON but of type object"),
        ({"a": 10**400}, "detail 'a' is an integer of more than 64 bits"),
        ({"a": RECURSIVE}, "detail 'a' is nested more than 6 levels deep"),
        ({"a": {1: 2}}, "detail 'a' has a key of type int, not text"),
        ({"s3cret-value\u202e": b""}, "detail '[redacted]\ufffd' is not JSON but of type bytes"),
        (["a"], "details are not a mapping but of type list"),
    ],
)
def test_what_is_not_json_is_named(details: Any, problem: str) -> None:
    """With its key and the problem, and never with its value."""
    with pytest.raises(BadDetail) as raised:
        clean(details, hide, keep=frozenset())
    assert str(raised.value) == problem


@pytest.mark.parametrize(
    "sign", ["\x9b", "\u202e", "\u2066", "\x7f", "\u2028", "\u2029", "\x00", "\x1b", "\ud800", "\ufeff"]
)
def test_control_characters_are_replaced_in_keys_and_values(sign: str) -> None:
    """A terminal, a log and an SSE client would obey them."""
    shown = clean({f"a{sign}": {f"b{sign}": [f"c{sign}"]}}, hide, keep=frozenset())
    assert shown == {"a\ufffd": {"b\ufffd": ["c\ufffd"]}}
    assert presentable(f"x{sign}y", hide) == "x\ufffdy"


@given(
    st.dictionaries(KEYS, VALUES | NUMBERS | TEXTS, max_size=14),
    st.integers(0, MAX_KEYS + 1).map(lambda count: {f"n{i}": i for i in range(count)}),
    st.dictionaries(KEYS, TEXTS, max_size=5),
)
def test_the_fast_path_agrees_with_the_plain_one(
    details: dict[str, Any], more: dict[str, Any], before: dict[str, Any]
) -> None:
    """What passes as clean is what the plain path returns unchanged, types included, whatever is shown already."""
    keep = frozenset({"metric"})

    def hide(text: str) -> str:
        return text.replace("s3cret-value", "[redacted]").replace("12345678", "[redacted]")

    unchanged = {key: details[key] for key in list(details)[::2]}
    shown_before = {key: it for key, it in (before | unchanged).items() if _is_clean({key: it}, hide, keep)}
    details |= more
    if _is_clean(details, hide, keep, shown_before):
        shown = _Cleaner(hide).mapping(details, (), keep)
        assert list(shown.items()) == list(details.items())
        assert [type(value) for value in shown.values()] == [type(value) for value in details.values()]


def test_the_fast_path_is_taken() -> None:
    """By details such as those of the kinds, which are returned themselves."""
    details = {"metric": 1.5, "version": "1.1", "reused": True, "peer": None, "bytes": 12345678}
    assert clean(details, hide, keep=frozenset({"metric"})) is details
    assert clean({"list": []}, hide, keep=frozenset()) == {"list": []}


def test_what_is_shown_is_not_looked_at_again() -> None:
    """Neither keys nor values; anything else is."""
    looked_at: list[str] = []

    def look(text: str) -> str:
        looked_at.append(text)
        return hide(text)

    details = {"metric": 1.5, "version": "1.1", "peer": "10.0.0.1"}
    keep = frozenset({"metric"})
    shown = clean(details, look, keep=keep)
    assert sorted(looked_at) == ["1.1", "10.0.0.1", "peer", "version"]
    looked_at.clear()
    read_again = {
        key: "".join(list(value)) if isinstance(value, str) else value for key, value in details.items()
    }
    assert clean(read_again, look, keep=keep, shown=shown) is read_again
    assert looked_at == [], "although the texts are other objects"
    new = {"metric": 2.5, "version": "s3cret-value", "peer": details["peer"], "s3cret-value": 1}
    assert clean(new, look, keep=keep, shown=shown) == {
        "metric": 2.5,
        "version": "[redacted]",
        "peer": "10.0.0.1",
        "[redacted]": 1,
    }
    assert looked_at.count("10.0.0.1") == 1, "only by the path that replaces"
    assert "s3cret-value" in looked_at


def test_details_are_bounded() -> None:
    """Each text, the number of keys and items, and all texts together; what a metric shows is kept."""
    many = {f"key{i}": "x" * 5000 for i in range(1000)} | {"metric": 1.5}
    shown = clean(many, hide, keep=frozenset({"metric"}))
    assert 5 < len(shown) < 20
    assert len(clean({f"key{i}": i for i in range(1000)}, hide, keep=frozenset())) == MAX_KEYS
    assert shown["metric"] == 1.5
    assert len(json.dumps(shown)) < 20_000
    assert len(json.dumps(clean({"a": [[1] * 1000] * 1000}, hide, keep=frozenset()))) < 20_000


def test_secrets_are_hidden_before_a_text_is_cut() -> None:
    """At any place, also where the limit falls into one; and in numbers and keys."""
    for before in range(960, 1200):
        shown = presentable("x" * before + "s3cret-value" + "y" * 5000, hide)
        assert "s3c" not in shown
        assert len(shown) <= 1001
    pin = clean(
        {"s3cret-value": 1, "n": 123456789, "m": 200000},
        lambda t: t.replace("123456789", "#"),
        keep=frozenset(),
    )
    assert pin == {"s3cret-value": 1, "n": None, "m": 200000}


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_what_is_clean_is_json(details: dict[str, Any]) -> None:
    """Whatever a check reports: it is refused, or it can be sent to every client."""
    try:
        shown = clean(details, hide, keep=frozenset())
    except BadDetail:
        return
    text = json.dumps(shown, allow_nan=False, ensure_ascii=False)
    assert text.isprintable()
    text.encode()


@pytest.mark.parametrize("details", [{"a": float("nan")}, {"a": b"x"}, {"a": RECURSIVE}])
async def test_a_detail_that_is_not_json_concerns_its_own_service_only(details: dict[str, Any]) -> None:
    """That service is unknown, with a message that names the detail; the board stays JSON."""
    config = load_text("services: {bad: {kind: redis}, good: {kind: redis}}", environ={})
    board = Board(build(config.services, Network()), SystemClock())
    for name, reported in (("bad", details), ("good", {"a": 1})):
        board.put(name, Report(Event.BEGUN))
        board.put(name, Report(Event.ANSWERED_GOOD, observation=Observation(details=reported), latency=0.1))
    shown = json.loads(json.dumps(snapshot.detailed(board), allow_nan=False))["services"]
    assert (shown["bad"]["status"], shown["bad"]["reason"]) == ("unknown", "internal")
    assert "'a'" in shown["bad"]["message"]
    assert (shown["good"]["status"], shown["good"]["details"]) == ("healthy", {"a": 1})


class Subclass(StrEnum):
    """A text that is equal to a plain one."""

    VERSION = "1.1"


@pytest.mark.parametrize("value", [Decimal(1), Fraction(1), complex(1)])
def test_what_is_equal_to_what_is_shown_has_to_be_json_all_the_same(value: Any) -> None:
    """A driver may return a number of another type the next time."""
    with pytest.raises(BadDetail, match=r"^detail 'size' is not JSON but of type"):
        clean({"size": value}, str, keep=frozenset({"size"}), shown={"size": 1})


def test_a_text_that_is_equal_to_what_is_shown_is_made_plain_all_the_same() -> None:
    shown = clean({"version": Subclass.VERSION}, str, keep=frozenset(), shown={"version": "1.1"})
    assert type(shown["version"]) is str
