"""The three rules of alerting, for any acyclic graph and any sequence of reports, on a real board."""

from collections.abc import Sequence

from connection_exporter.alerting.ledger import LEASE, RESOLVED_FOR, UNDELIVERED_FOR, Alert, Ledger
from connection_exporter.alerting.push import Push
from connection_exporter.alerting.text import annotations_of
from connection_exporter.core.health import Event, Reason, Status
from connection_exporter.core.retry import Policy
from connection_exporter.kind import About
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import build
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Report
from connection_exporter.net import Network
from connection_exporter.system.clock import SystemClock
from hypothesis import given
from hypothesis import strategies as st
from support.graphs import EVENTS, NAMES, Graph, acyclic, board_of, reachable


async def nothing_to_check(names: Sequence[str]) -> None:
    del names


@given(acyclic(), st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(EVENTS)), max_size=40))
def test_an_alert_starts_without_a_cause_and_ends_only_when_its_service_is_healthy(
    graph: Graph, reports: list[tuple[str, Report]]
) -> None:
    board = board_of(graph)
    push = Push(board, check_now=nothing_to_check, own_url="http://exporter:8000")
    for changed, report in reports:
        before = set(push.ledger.names())
        board.put(changed, report)
        for name in NAMES:
            push._look(name, confirmed=True)
        after = set(push.ledger.names())
        statuses = {record.name: record.status for record in board.records()}
        faulty = {n for n, status in statuses.items() if status not in (Status.HEALTHY, Status.UNKNOWN)}
        for name in NAMES:
            explained = bool(reachable(name, graph) & faulty)
            if name in after - before:
                assert statuses[name] is Status.DISCONNECTED
                assert not explained
            if name in before - after:
                assert statuses[name] is Status.HEALTHY
            if statuses[name] is Status.DISCONNECTED and not explained:
                assert name in after


def test_a_removed_service_ends_its_alert() -> None:
    board = board_of({"it": ()}, policy=Policy(retries=1))
    push = Push(board, check_now=nothing_to_check, own_url="http://exporter:8000")
    board.put("it", Report(Event.FAILED, Reason.REFUSED, "no"))
    board.put("it", Report(Event.BEGUN))
    push._look("it", confirmed=True)
    assert push.ledger.names() == ["it"]
    board.remove("it")
    push._look("it")
    assert push.ledger.names() == []


def test_the_end_of_an_alert_is_sent_for_five_minutes_and_then_forgotten() -> None:
    ledger = Ledger()
    ledger.open("it", Alert({"name": "it"}, {}, 1000.0))
    ledger.close("it", 1100.0)
    assert [alert.ended_at for alert in ledger.to_send(1100.0 + RESOLVED_FOR)] == [1100.0]
    assert ledger.to_send(1101.0 + RESOLVED_FOR) == []
    ledger.forget(1101.0 + RESOLVED_FOR)
    assert ledger.to_send(1100.0) == []


def test_the_end_of_an_alert_is_kept_for_an_alertmanager_that_did_not_receive_it() -> None:
    ledger = Ledger()
    ledger.open("it", Alert({"name": "it"}, {}, 1000.0))
    ledger.close("it", 1100.0)
    ledger.forget(9000.0, undelivered_since=1099.0)
    assert len(ledger.to_send(9000.0, undelivered_since=1099.0)) == 1
    assert ledger.to_send(9000.0, undelivered_since=8990.0) == []  # another one, which has it
    ledger.forget(1101.0 + UNDELIVERED_FOR, undelivered_since=1099.0)
    assert ledger.to_send(1100.0) == []


@given(st.floats(1e9, 2e9), st.floats(1e9, 2e9), st.floats(1e9, 2e9))
def test_an_alert_never_ends_before_it_starts_whatever_the_clock_does(
    started: float, now: float, ended: float
) -> None:
    ledger = Ledger()
    ledger.open("it", Alert({"name": "it"}, {}, started))
    (alert,) = ledger.to_send(now)
    assert alert.as_json(now, "http://x")["endsAt"] > alert.as_json(now, "http://x")["startsAt"]
    assert LEASE > 0
    ledger.close("it", ended)
    for alert in ledger.to_send(ended):
        assert alert.as_json(now, "http://x")["endsAt"] >= alert.as_json(now, "http://x")["startsAt"]


def test_the_text_says_what_since_when_why_who_and_where() -> None:
    about = About("data", "Holds the orders.", {"logs": "https://logs/db", "runbook": "https://wiki/db"})
    effects = {f"api_{number}": ("database",) for number in range(3)}
    board = board_of({"database": (), **effects}, policy=Policy(retries=1), database=about)
    for name in ("database", "api_0"):
        board.put(name, Report(Event.BEGUN))
        board.put(name, Report(Event.FAILED, Reason.REFUSED, "connection refused"))
    record = board.record("database")
    text = annotations_of(board, record, since=1_700_000_000.0, external_url="http://monitor:8000")
    assert text["description"] == (
        f"database (scripted at {record.service.check.address}) is disconnected since 2023-11-14 22:13:20 UTC: "
        "refused: connection refused. Affected: api_0. Also depend on it: api_1, api_2. Holds the orders. "
        "logs: https://logs/db runbook: https://wiki/db"
    )
    assert (text["summary"], text["affected"]) == ("A service is disconnected.", "api_0")
    assert (text["runbook_url"], text["dashboard_url"]) == ("https://wiki/db", "http://monitor:8000")


def test_a_service_without_an_address_has_none_in_its_text() -> None:
    """A heartbeat calls us."""
    config = load_text("services: {backup: {kind: heartbeat, max_age: 25h, retries: 1}}")
    board = Board(build(config.services, Network()), SystemClock())
    board.put("backup", Report(Event.BEGUN))
    board.put("backup", Report(Event.FAILED, Reason.HEARTBEAT, "no beat for 25h"))
    text = annotations_of(board, board.record("backup"), since=0.0, external_url="http://monitor:8000")
    assert text["description"].startswith(
        "backup (heartbeat) is disconnected since 1970-01-01 00:00:00 UTC: "
    )


def test_a_link_whose_name_is_no_label_is_only_in_the_description() -> None:
    """Alertmanager would reject the alert otherwise."""
    about = About(links={"größe": "https://size", "logs": "https://logs"})
    board = board_of({"database": ()}, policy=Policy(retries=1), database=about)
    text = annotations_of(board, board.record("database"), since=0.0, external_url="http://monitor:8000")
    assert "größe: https://size" in text["description"]
    assert {key for key in text if key.startswith("link_")} == {"link_logs"}
