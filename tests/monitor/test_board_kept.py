"""What the board keeps instead of working it out at each look is what working it out would give."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from connection_exporter.core.health import Event, Health, Reason, Status, advance, status_of
from connection_exporter.core.overall import Overall, Standing, overall_status
from connection_exporter.core.retry import Policy
from connection_exporter.kind import Failure, Json, Metric, MetricType, Observation, Service, Session, Traits
from connection_exporter.monitor import snapshot
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Report
from connection_exporter.monitor.reports import CANARIES, trouble_of
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


@given(st.lists(st.tuples(st.sampled_from(Event), st.integers(0, 2)), max_size=30))
def test_the_facts_are_those_of_the_state_machine(reports: list[tuple[Event, int]]) -> None:
    """Of a good answer of a healthy service, the board does not work them out."""
    clock = Clock()
    board = Board([a_service("it", critical=True)], clock)
    record, health, outages, in_outage = board.record("it"), Health(), 0, False
    for event, delay in reports:
        clock.now += 1
        bad = event not in (Event.ANSWERED_GOOD, Event.CANARY_GOOD)
        planned = clock.now + delay if event is not Event.STOPPED else None
        board.put("it", Report(event, Reason.EXPECT if bad else None, next_attempt=planned))
        if event not in CANARIES or health.session_up:
            health = advance(health, event)
            status = status_of(health, retries=2)
            pending = event is Event.BEGUN or (event is Event.LOST and delay == 0)
            if status is Status.HEALTHY:
                in_outage = False
            elif status is not Status.UNKNOWN and not in_outage and not pending:
                in_outage, outages = True, outages + 1
        assert record.health == health
        assert record.status is status_of(health, retries=2)
        assert record.trouble == trouble_of(record, record.status)
        assert (record.outages, record.in_outage) == (outages, in_outage)


METRICS = (
    Metric("connection_fake_size", "Size.", MetricType.GAUGE, "size"),
    Metric("connection_fake_seen_total", "Seen.", MetricType.COUNTER, "seen"),
    Metric("connection_fake_taken", "Taken.", MetricType.HISTOGRAM, "taken", (1.0, 2.0)),
)
OBSERVATIONS = st.builds(
    Observation,
    details=st.fixed_dictionaries(
        {},
        optional={
            "size": st.integers(0, 3),
            "taken": st.floats(0, 3),
            "who": st.sampled_from(["a", "s3cret"]),
        },
    ),
    counts=st.fixed_dictionaries({}, optional={"seen": st.integers(0, 2)}),
)


@given(st.lists(st.tuples(OBSERVATIONS, st.integers(1, 3), st.booleans()), max_size=6))
def test_an_observation_that_comes_again_counts_like_a_new_one(
    seen: list[tuple[Observation, int, bool]],
) -> None:
    """A session may return the same observation at each probe, or an equal one: both boards show the same."""
    check = NeverRun(traits=Traits(frozenset(Reason), METRICS))
    clock = Clock()

    def hide(text: str) -> str:
        return text.replace("s3cret", "[redacted]")

    def answer(board: Board, observation: Observation, *, lost: bool) -> dict[str, object]:
        good = Report(
            Event.ANSWERED_GOOD, None, "", observation, 0.001, held=True, next_attempt=clock.now + 30
        )
        board.put("it", good)
        if lost:
            board.put("it", Report(Event.LOST, Reason.EOF, "gone", next_attempt=clock.now))
        record = board.record("it")
        counted = {"seen": record.counters["seen"], "taken": [*record.histograms["taken"].cumulative()]}
        return {**snapshot.detailed(board), **counted, "checks": record.checks, "version": record.version}

    boards = [Board([Service("it", "fake", check, Policy(), hide)], clock) for _ in range(2)]
    for observation, times, lost in seen:
        for _ in range(times):
            clock.now += 30
            copy = observation._replace(details=dict(observation.details), counts=dict(observation.counts))
            assert answer(boards[0], observation, lost=lost) == answer(boards[1], copy, lost=lost)


def test_details_that_come_again_are_not_compared_with_the_secrets() -> None:
    """But they are if they have changed, also in the same dictionary."""
    looked_at: list[str] = []

    def look(text: str) -> str:
        looked_at.append(text)
        return text.replace("s3cret", "[redacted]")

    board = Board([Service("it", "fake", NeverRun(), Policy(), look)], Clock())
    details: dict[str, Json] = {"who": "a"}
    observation = Observation(details=details)
    for _ in range(3):
        board.put("it", Report(Event.ANSWERED_GOOD, observation=observation, latency=0.001, held=True))
    assert sorted(looked_at) == ["a", "who"]
    details["who"] = "s3cret"
    assert board.record("it").details == {"who": "a"}
    board.put("it", Report(Event.ANSWERED_GOOD, observation=observation, latency=0.001, held=True))
    assert board.record("it").details == {"who": "[redacted]"}
