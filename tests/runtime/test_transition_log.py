"""Transitions are logged with the time at which they happened, after all of the same moment are known."""

import asyncio
import logging

import pytest
from connection_exporter.core.health import Event, Reason
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import build
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Report
from connection_exporter.net import Network
from connection_exporter.runtime.transition_log import logged_transitions
from connection_exporter.system.clock import SystemClock

COUNT = 500


@pytest.fixture
def board() -> Board:
    services = "".join(f"  s{number}: {{kind: process, cmdline: nothing}}\n" for number in range(COUNT))
    return Board(build(load_text(f"services:\n{services}").services, Network()), SystemClock())


def fail(board: Board) -> list[float]:
    """Have every service fail; return when each did."""
    for name in board.names:
        board.put(name, Report(Event.FAILED, Reason.MISSING, "no such process"))
    return [board.record(name).status_since_at for name in board.names]


async def test_many_transitions_are_logged_after_the_last_one_in_order_and_with_their_times(
    board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    """In slices, between which the event loop runs."""
    caplog.set_level(logging.INFO)
    async with logged_transitions(board):
        times = fail(board)
        assert caplog.records == []
        iterations = 0
        while len(caplog.records) < COUNT:
            await asyncio.sleep(0)
            iterations += 1
        assert iterations > 1
    assert [record.created for record in caplog.records] == times
    first = caplog.records[0]
    assert first.getMessage().startswith("event=transition name=s0 kind=process previous=unknown status=")
    assert "reason=missing" in first.getMessage()


async def test_nothing_is_logged_while_transitions_come(
    board: Board, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each iteration of the loop, but not for longer than `_NEWS_FIRST`."""
    caplog.set_level(logging.INFO)
    for first, longest, logged in ((0, 60.0, False), (100, 0.0, True)):
        monkeypatch.setattr("connection_exporter.runtime.transition_log._NEWS_FIRST", longest)
        async with logged_transitions(board):
            for name in board.names[first : first + 100]:
                board.put(name, Report(Event.FAILED, Reason.MISSING, "no such process"))
                await asyncio.sleep(0)
            assert (len(caplog.records) > first) is logged
        assert len(caplog.records) == first + 100


async def test_what_is_not_logged_yet_is_logged_at_the_end(
    board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with logged_transitions(board):
        fail(board)
    assert len(caplog.records) == COUNT
    fail(board)
    await asyncio.sleep(0)
    assert len(caplog.records) == COUNT
