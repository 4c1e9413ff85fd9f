"""What the board keeps instead of working it out at each look is what working it out would give."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from connection_exporter.core.health import Event, Reason
from connection_exporter.core.overall import Overall, Standing, overall_status
from connection_exporter.core.retry import Policy
from connection_exporter.kind import Failure, Service, Session, Traits
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Report
from hypothesis import given
from hypothesis import strategies as st


@dataclass(slots=True)
class Clock:
    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


@dataclass(slots=True)
class NeverRun:
    address: str = "host:1"
    traits: Traits = field(default_factory=lambda: Traits(frozenset(Reason)))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        raise Failure(Reason.REFUSED, "never run")
        yield


def a_service(name: str, *, critical: bool, kind: str = "fake") -> Service:
    return Service(name, kind, NeverRun(), Policy(critical=critical, retries=2, timeout=1.0))


Step = tuple[Event | str, int, float]
STEPS = st.tuples(
    st.sampled_from(Event) | st.sampled_from(["remove", "replace", "other kind", "on", "off"]),
    st.integers(0, 2),
    st.sampled_from([0.0, 0.5, 3.0, 40.0]),
)


@given(st.lists(STEPS, max_size=30))
def test_the_overall_status_and_the_age_of_results_are_never_out_of_date(steps: list[Step]) -> None:
    """After any events, changes of the config, starts, stops, and any time."""
    clock = Clock()
    names = ["a", "b", "c"]
    board = Board([a_service(name, critical=name != "c") for name in names], clock)
    for step, which, passed in steps:
        clock.now += passed
        name = names[which]
        match step:
            case Event():
                why = Reason.REFUSED if step in (Event.FAILED, Event.LOST) else None
                planned = clock.now + passed if step is not Event.STOPPED else None
                if name in board:
                    board.put(name, Report(step, why, next_attempt=planned))
            case "on" | "off":
                board.active = step == "on"
            case "remove" if name in board:
                board.remove(name)
            case _ if name in board:
                kind = "other" if step == "other kind" else "fake"
                board.replace(a_service(name, critical=passed > 0, kind=kind))
            case _:
                board.add(a_service(name, critical=True))
        overall = board.overall()
        records = board.records()
        for record in records:
            assert record.overdue_after is None or record.overdue_after >= clock.now, (
                "a result that is too old, and not marked so"
            )
        standings = [Standing(r.status, r.service.policy.critical, r.has_been_up) for r in records]
        assert overall is overall_status(standings, active=board.active)


def test_a_service_that_goes_takes_its_part_in_the_overall_status_with_it() -> None:
    """It is what made it partial."""
    board = Board([a_service("a", critical=True), a_service("b", critical=True)], Clock())
    board.active = True
    board.put("a", Report(Event.ANSWERED_GOOD))
    for _ in range(2):
        board.put("b", Report(Event.FAILED, Reason.REFUSED))
    assert board.overall() is Overall.PARTIAL
    board.remove("b")
    assert board.overall() is Overall.HEALTHY
    board.add(a_service("c", critical=True))
    assert board.overall() is Overall.UNKNOWN
