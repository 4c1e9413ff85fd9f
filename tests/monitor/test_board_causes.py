"""Causes on the board: current at each transition, in JSON and metrics, for any graph and any sequence of reports."""

import time
from dataclasses import replace

from connection_exporter.core.health import Event, Reason, Status
from connection_exporter.kind import About
from connection_exporter.kinds import load_text
from connection_exporter.monitor import snapshot
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.monitor import Monitor
from connection_exporter.monitor.record import CAUSES_SHOWN, Report, Transition
from hypothesis import given
from hypothesis import strategies as st
from support.graphs import EVENTS, NAMES, Graph, acyclic, board_of, reachable
from support.itself import own_pidfile
from support.scripted import GOOD


def fail(board: Board, *names: str) -> None:
    for name in names:
        board.put(name, Report(Event.BEGUN))
        board.put(name, Report(Event.FAILED, Reason.REFUSED, "refused"))


@given(acyclic(), st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(EVENTS)), max_size=30))
def test_the_causes_follow_every_report(graph: Graph, reports: list[tuple[str, Report]]) -> None:
    """By the definition, and each change of them is a new version of the record, so that events show it."""
    board = board_of(graph)
    for name, report in reports:
        before = {record.name: (record.causes, record.version) for record in board.records()}
        board.put(name, report)
        statuses = {record.name: record.status for record in board.records()}
        faulty = {each for each, status in statuses.items() if status not in (Status.HEALTHY, Status.UNKNOWN)}
        for record in board.records():
            wanted = {
                other
                for other in reachable(record.name, graph) & faulty
                if record.name in faulty and not reachable(other, graph) & faulty
            }
            causes, version = before[record.name]
            assert set(record.causes) == wanted
            assert record.causes == causes or record.version > version


def test_a_subscriber_sees_the_causes_that_its_transition_makes() -> None:
    board = board_of({"database": (), "api": ("database",)})
    seen: list[tuple[str, tuple[str, ...]]] = []

    def note(transition: Transition) -> None:
        seen.append((transition.name, board.record("api").causes))

    fail(board, "api")
    board.subscribe(note)
    fail(board, "database")
    board.put("database", Report(Event.ANSWERED_GOOD, observation=GOOD))
    assert seen == [("database", ("database",)), ("database", ())]


def test_a_removed_dependency_is_no_cause() -> None:
    board = board_of({"database": (), "api": ("database",)})
    fail(board, "database", "api")
    assert board.record("api").causes == ("database",)
    board.remove("database")
    assert board.record("api").causes == ()


def test_dependencies_may_change_while_services_fail() -> None:
    board = board_of({"database": (), "api": (), "web": ("api",)})
    fail(board, "database", "api", "web")
    assert board.record("web").causes == ("api",)
    board.describe(
        {"database": About(), "api": About(depends_on=("database",)), "web": About("shop", "x", {}, ("api",))}
    )
    assert board.record("web").causes == ("database",)
    shown = snapshot.service(board.record("web"))
    assert (shown["group"], shown["description"], shown["depends_on"]) == ("shop", "x", ("api",))
    board.describe({"database": About(), "api": About(), "web": About()})
    assert board.record("web").causes == ()


def test_only_ten_causes_are_shown() -> None:
    names = tuple(f"d{number:02}" for number in range(20))
    board = board_of({**dict.fromkeys(names, ()), "api": names})
    fail(board, *names, "api")
    assert board.record("api").causes == names[:CAUSES_SHOWN]


def test_10_000_services_that_fail_with_their_database_cost_little_more_than_without_it() -> None:
    """A change concerns the service and its dependents only; if it concerned all, it would cost a thousandfold."""
    names = [f"s{number}" for number in range(10_000)]

    def spent(depends_on: tuple[str, ...]) -> float:
        board = board_of({"database": (), **dict.fromkeys(names, depends_on)})
        fail(board, "database")
        begun = time.thread_time()
        fail(board, *names)
        return time.thread_time() - begun

    with_causes, without = (min(spent(given) for _ in range(3)) for given in (("database",), ()))
    assert with_causes < 5 * without


async def test_a_reload_that_changes_only_descriptions_and_dependencies_keeps_the_session() -> None:
    keys = f"kind: process, pidfile: {own_pidfile()}, interval: 100ms, timeout: 100ms"
    before = load_text(f"services:\n  a: {{{keys}}}\n  b: {{{keys}}}\n", environ={})
    after = load_text(
        f"services:\n  a: {{{keys}}}\n  b: {{{keys}, group: g, depends_on: [a], links: {{logs: 'https://l/'}}}}\n",
        environ={},
    )
    async with Monitor(before) as monitor:
        await monitor.force_check()
        sessions = monitor.board.record("b").sessions
        since = monitor.board.record("b").session_since_at
        changes = await monitor.reload(after)
        record = monitor.board.record("b")
        assert changes.changed == ("b",)
        assert (record.sessions, record.session_since_at) == (sessions, since)
        assert record.service.about == About("g", None, {"logs": "https://l/"}, ("a",))
        fail(monitor.board, "a", "b")
        assert monitor.board.record("b").status is not Status.HEALTHY
        await monitor.reload(replace(after, services={"b": before.services["b"]}))
        assert monitor.board.record("b").service.about == About()
