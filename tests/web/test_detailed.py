"""The text of /health/detailed that is kept by service says what the plain snapshot says, always."""

import asyncio
import json
import random
from dataclasses import replace

import pytest
from connection_exporter.config import EXAMPLE
from connection_exporter.core.health import Event, Reason
from connection_exporter.kind import Observation
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import build
from connection_exporter.monitor import snapshot
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Record, Report
from connection_exporter.net import Network
from connection_exporter.system.clock import SystemClock
from connection_exporter.web.rendering import BoardJson


def a_board() -> Board:
    return Board(build(load_text(EXAMPLE).services, Network()), SystemClock())


async def agree(board: Board, detailed: BoardJson) -> None:
    reported = json.loads(b"".join(await detailed.parts()))
    plain = json.loads(json.dumps(snapshot.detailed(board)))
    reported.pop("uptime_seconds"), plain.pop("uptime_seconds")
    assert reported == plain
    assert list(reported["services"]) == list(plain["services"])


async def test_it_says_what_the_snapshot_says_after_any_event() -> None:
    """Cached JSON of a service is never older than its record."""
    board = a_board()
    detailed = BoardJson(board)
    chance = random.Random(5)
    await agree(board, detailed)
    for _ in range(200):
        event = chance.choice(list(Event))
        why = None if event in (Event.ANSWERED_GOOD, Event.CANARY_GOOD, Event.BEGUN) else Reason.REFUSED
        seen = Observation(details={"ünïcode": chance.random()}) if event is Event.ANSWERED_GOOD else None
        board.put(chance.choice(board.names), Report(event, why, 'told "so"', seen, 0.1))
        await agree(board, detailed)


async def test_it_says_what_the_snapshot_says_of_a_large_board() -> None:
    """Whose services are counted group by group."""
    services = build(load_text(EXAMPLE).services, Network())
    board = Board([replace(s, name=f"{s.name}_{i}") for i in range(30) for s in services], SystemClock())
    detailed = BoardJson(board)
    for step in (7, 3, 1):
        for place, name in enumerate(board.names[::step]):
            failed = place % 3 == 0
            event, why = (Event.FAILED, Reason.REFUSED) if failed else (Event.ANSWERED_GOOD, None)
            board.put(name, Report(event, why, latency=0.1))
        await agree(board, detailed)
        plain = json.loads(json.dumps(snapshot.detailed(board)["services"]))
        assert json.loads(b"".join(detailed.pieces()))["services"] == plain
        board.remove(board.names[60])
        await agree(board, detailed)


async def test_services_that_come_and_go_are_not_kept() -> None:
    """In the order of the board."""
    board = a_board()
    detailed = BoardJson(board)
    await agree(board, detailed)
    first = board.names[0]
    service = board.record(first).service
    board.remove(first)
    await agree(board, detailed)
    board.add(service)
    await agree(board, detailed)


async def test_only_a_service_that_is_added_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The texts of the others are kept: if it is added while they are joined, they would block the event loop."""
    services = build(load_text(EXAMPLE).services, Network())
    board = Board([replace(s, name=f"{s.name}_{i}") for i in range(30) for s in services], SystemClock())
    detailed = BoardJson(board)
    await agree(board, detailed)
    written: list[str] = []

    def service(record: Record) -> snapshot.Service:
        written.append(record.name)
        return plain(record)

    plain = snapshot.service
    monkeypatch.setattr(snapshot, "service", service)
    board.add(services[0])
    board.reorder(sorted(board.names))
    await detailed.parts()
    assert written == [services[0].name]
    board.put(board.names[0], Report(Event.ANSWERED_GOOD, latency=0.1))
    board.remove(board.names[70])
    await agree(board, detailed)


async def test_an_empty_board_is_json_too() -> None:
    """With no service."""
    board = Board([], SystemClock())
    await agree(board, BoardJson(board))


async def test_what_happens_while_it_is_made_is_in_it() -> None:
    """It is one look at the board, though it takes several turns of the loop."""
    services = build(load_text(EXAMPLE).services, Network())
    many = [type(s)(f"{s.name}_{i}", s.kind, s.check, s.policy) for i in range(400) for s in services]
    board = Board(many, SystemClock())
    making = asyncio.create_task(BoardJson(board).parts())
    await asyncio.sleep(0)
    assert not making.done(), "so many take more than one turn"
    board.put(board.names[0], Report(Event.ANSWERED_GOOD, latency=0.1))
    reported = json.loads(b"".join(await making))
    assert reported["services"][board.names[0]]["status"] == "healthy"
    assert reported["summary"]["healthy"] == 1
