"""Dialogues that use what a message contains: captured groups, and conditions on JSON."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from connection_exporter.config.redact import Redactor
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.websocket.check import WebsocketCheck
from connection_exporter.net import Network
from pydantic import ValidationError
from support.attempts import attempt, held
from support.hostile import assert_iterations_are_short
from support.websocket_servers import check_of, config_of, flooding, frame, serving
from websockets.asyncio.server import ServerConnection

TEXT = 0x81


class Exchange:
    """A server that greets with a session, wants it back, and counts the requests of each session."""

    def __init__(self) -> None:
        self.sessions = 0
        self.received: list[Any] = []

    async def __call__(self, connection: ServerConnection) -> None:
        self.sessions += 1
        session = f"s3ssion/{self.sessions}-of-the-\u20acxchange"
        await connection.send(
            json.dumps({"event": "hello", "token": session, "interval": 30}, ensure_ascii=False)
        )
        async for message in connection:
            request = json.loads(message)
            self.received.append(request)
            good = request.get("token") == session
            answer = {
                "id": request.get("id"),
                "status": "ok" if good else "error",
                "next": self.sessions * 100,
            }
            await connection.send(json.dumps(answer))


GREETING = {"expect": '"token": ?"(?P<token>[^"]+)", "interval": (?P<interval>\\d+)'}


async def test_what_one_message_contains_goes_into_later_ones() -> None:
    """Also from `on_connect` into `on_probe`; each session has values of its own, and other braces stay."""
    exchange = Exchange()
    async with serving(exchange) as port:
        check = check_of(
            port,
            on_connect=[
                GREETING,
                {
                    "send": '{"id": {interval}, "token": "{token}", "data": {}}',
                    "expect": '"status": "ok".*"next": (?P<next>\\d+)',
                },
            ],
            on_probe={"send": '{"id": {next}, "token": "{token}"}', "expect_json": {"status": "ok"}},
        )
        for number in (1, 2):
            async with held(check) as (session, first):
                assert first.reason is None
                assert (await session.probe()).reason is None
            token = f"s3ssion/{number}-of-the-\u20acxchange"
            assert exchange.received[-3:] == [
                {"id": 30, "token": token, "data": {}},
                {"id": number * 100, "token": token},
                {"id": number * 100, "token": token},
            ]


async def test_a_message_in_a_file_is_filled_too(tmp_path: Path) -> None:
    """Names that nothing captures stay as they are."""
    (tmp_path / "login.json").write_text('{"token": "{token}", "id": "{other}"}\n')
    exchange = Exchange()
    login = {"send_file": str(tmp_path / "login.json"), "expect_json": {"status": "ok", "id": "{other}"}}
    async with serving(exchange) as port:
        assert (await attempt(check_of(port, on_connect=[GREETING, login]))).reason is None


async def test_braces_mean_nothing_where_nothing_is_captured() -> None:
    """A dialogue without named groups sends what is written."""
    async with serving() as port:
        echo = {"send": "{hello} {}", "expect": "^[{]hello[}] [{][}]$"}
        assert (await attempt(check_of(port, on_connect=[echo]))).reason is None


async def test_a_group_that_did_not_take_part_is_empty() -> None:
    """As in other tools."""
    async with serving() as port:
        steps = [{"send": "a", "expect": "a(?P<rest>b)?"}, {"send": "<{rest}>", "expect": "^<>$"}]
        assert (await attempt(check_of(port, on_connect=steps))).reason is None


async def test_a_captured_secret_is_hidden_and_an_ordinary_value_is_not() -> None:
    """By the name of the group, or by its look."""
    config = config_of(
        host="feed",
        on_connect=[{"expect": "(?P<token>a)(?P<id>b)"}],
    )
    hide = Redactor(config)
    config.note_captured("token", "short-word")
    config.note_captured("id", "ticker-1234")
    config.note_captured("id", "Zx8kQ1vB7nM4pL2wT9")
    assert hide("short-word ticker-1234 Zx8kQ1vB7nM4pL2wT9") == "[redacted] ticker-1234 [redacted]"

    async def gossip(connection: ServerConnection) -> None:
        await connection.send("token=s3ssion-word")
        await connection.close(1008, "go away, s3ssion-word")

    async with serving(gossip) as port:
        steps = [{"expect": "token=(?P<token>.*)"}, {"expect": "x"}]
        mine = config_of(host="127.0.0.1", port=port, on_connect=steps)
        failure = await attempt(WebsocketCheck(mine, Network()))
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.CLOSED
    assert Redactor(mine)(failure.message).endswith("closed with code 1008: go away, [redacted]")


async def test_what_a_group_captures_is_limited() -> None:
    """It is kept as long as the session."""
    async with serving() as port:
        step = {"send": "x" * 17_000, "expect": "^(?P<all>x+)$"}
        failure = await attempt(check_of(port, on_connect=[step]))
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.message) == (
        Reason.TOO_LARGE,
        "the group all captured more than 16 KiB",
    )


@pytest.mark.parametrize(
    ("message", "conditions", "problem"),
    [
        ('{"a": {"b": [1, 2]}}', {"a.b[1]": {">": 1}, "a.b": {"length": 2}}, None),
        ("[]", {"$": {"length": 0}}, None),
        ('{"a": 1}', {"a": 2}, "1 others arrived; of the last one, json a is 1, expected 2"),
        ('{"a": 1}', {"b": {"exists": True}}, "json b is missing, expected it to exist"),
        ("hello", {"a": 1}, "the last one is not JSON"),
        ("[" * 2000, {"a": 1}, "the last one is not JSON"),
        ('"' + "x" * 70_000 + '"', {"$": {"matches": "x"}}, "the last one is too long for expect_json"),
    ],
)
async def test_a_message_has_to_meet_conditions_on_json(
    message: str, conditions: dict[str, object], problem: str | None
) -> None:
    """The failure says what was wrong with the last message."""
    async with serving() as port:
        step = {"send": message, "expect_json": conditions, "within": "300ms" if problem else "5s"}
        seen = await attempt(check_of(port, on_probe=step))
    if problem is None:
        assert seen.reason is None
        return
    assert seen.reason is Reason.EXPECT
    assert seen.message.startswith("no message that meets expect_json within 300ms (")
    assert problem in seen.message


async def test_a_pattern_and_conditions_have_to_hold_for_the_same_message() -> None:
    """Those that meet one of them only are skipped."""

    async def talk(connection: ServerConnection) -> None:
        for message in ('{"op": "a", "n": 1}', '{"op": "b", "n": 2}', '{"op": "a", "n": 2}'):
            await connection.send(message)
        async for echo in connection:
            await connection.send(echo)

    async with serving(talk) as port:
        steps = [
            {"expect": '"op": "a", "n": (?P<n>.)', "expect_json": {"n": 2}},
            {"send": "{n}", "expect": "^2$"},
        ]
        assert (await attempt(check_of(port, on_connect=steps))).reason is None
        failure = await attempt(
            check_of(port, on_connect=[{"expect": '"b"', "expect_json": {"n": 1}, "within": "200ms"}])
        )
    assert isinstance(failure, Failure)
    assert failure.message.startswith("no message that matches '\"b\"' and meets expect_json within 200ms")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"on_connect": [{"expect": "(?P<id>a)"}, {"send": "{idd}"}]},
            "on_connect: step 2 sends a {name} that no earlier expect captures; known: id",
        ),
        (
            {"on_connect": [{"send": "{id}", "expect": "(?P<id>a)"}]},
            "on_connect: step 1 sends a {name} that no earlier expect captures; known: none",
        ),
        (
            {"on_probe": [{"send": "{id}"}], "on_connect": [{"expect": "(?P<di>a)"}]},
            "on_probe: step 1 sends a {name} that no earlier expect captures; known: di",
        ),
        ({"on_probe": {"expect_json": {"a..b": 1}}}, "a..b: not a path"),
        ({"on_probe": {"send": "x", "within": "1s"}}, "within needs expect"),
        ({"on_probe": {}}, "a step needs send, send_file or expect"),
    ],
)
def test_each_error_has_its_own_message(given: dict[str, object], message: str) -> None:
    """A name in braces that is not known is not repeated: it may be a part of a secret."""
    with pytest.raises(ValidationError) as raised:
        config_of(host="feed", **given)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "message",
    [
        b"[" + b"0," * 30_000 + b"1]",
        json.dumps({str(number): number for number in range(4_000)}).encode(),
        b"[" * 60_000,
        b'{"token": "' + b"\\u20ac" * 10_000 + b'"}',
        b"{}",
    ],
    ids=["numbers", "keys", "nesting", "escapes", "many"],
)
async def test_a_flood_of_json_costs_no_iteration_more_than_10_ms(message: bytes) -> None:
    """While a dialogue waits for another message."""
    with flooding(frame(TEXT, message) * (1 + 500_000 // len(message))) as port:

        async def attack() -> None:
            step = {"expect_json": {"status": "ok", "x": {"matches": "^a"}}, "within": "1s"}
            failure = await attempt(check_of(port, on_connect=[step], timeout="2s"), timeout=2)
            assert failure.reason in (Reason.EXPECT, Reason.PROTOCOL)

        await asyncio.wait_for(attack(), 10)  # the first one also loads modules
        await assert_iterations_are_short(attack)
