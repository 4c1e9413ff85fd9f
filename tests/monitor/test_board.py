"""The board: what a report does to the present health, to the counters, and to the subscribers."""

from dataclasses import dataclass
from typing import Any

import pytest
from connection_exporter.core.health import Event, Reason, Status
from connection_exporter.core.overall import Overall
from connection_exporter.core.retry import Policy
from connection_exporter.kind import Metric, MetricType, Observation, Service
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Record, Report, Transition
from support.scripted import BAD, GOOD, ScriptedCheck

POLICY = Policy(interval=30, timeout=5, retries=2, retry_delay=5)


@dataclass
class HandClock:
    """A clock that is moved by hand; its wall can be moved alone."""

    now: float = 100.0
    date: float = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.date

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.date += seconds


class Bench:
    """A board with one service, `it`."""

    def __init__(self, *metrics: Metric) -> None:
        self.clock = HandClock()
        self.board = Board([make("it", *metrics)], self.clock)
        self.reported: list[Transition] = []
        self.board.subscribe(self.reported.append)

    @property
    def it(self) -> Record:
        return self.board.record("it")

    def put(self, event: Event, reason: Reason | None = None, message: str = "", **more: Any) -> None:
        self.board.put("it", Report(event, reason, message, **more))

    def good(self, observation: Observation = GOOD, **more: Any) -> None:
        self.put(
            Event.ANSWERED_GOOD, observation=observation, **{"next_attempt": self.clock.now + 30, **more}
        )

    def bad(self) -> None:
        again = self.clock.now + 10
        self.put(Event.ANSWERED_BAD, BAD.reason, BAD.message, observation=BAD, next_attempt=again)

    def lost(self, *, at_once: bool = True) -> None:
        delay = 0.0 if at_once else 5.0
        self.put(Event.LOST, Reason.EOF, "closed", next_attempt=self.clock.now + delay)

    def failed(self) -> None:
        self.put(Event.FAILED, Reason.REFUSED, "refused", next_attempt=self.clock.now + 5)


def make(name: str, *metrics: Metric, critical: bool = True) -> Service:
    policy = Policy(interval=30, timeout=5, retries=2, retry_delay=5, critical=critical)
    return Service(name, "scripted", ScriptedCheck(metrics=metrics), policy)


def test_a_service_is_unknown_until_its_first_attempt_begins() -> None:
    """Nothing is claimed of what was not tried, and nothing was counted."""
    it = Bench().it
    assert (it.status, it.trouble.reason, it.trouble.message) == (Status.UNKNOWN, None, "not tried yet")
    assert (it.checks, it.check_failures, it.sessions, it.sessions_lost, it.outages) == (0, 0, 0, 0, 0)
    assert set(it.transitions_to.values()) == {0}
    assert not it.transitions


def test_each_change_of_status_is_a_transition_with_its_reason() -> None:
    """Subscribers get it as it happens, and kept newest first."""
    bench = Bench()
    bench.put(Event.BEGUN)
    bench.failed()
    bench.clock.advance(5)
    bench.failed()
    bench.good()
    bench.bad()
    bench.good()
    bench.lost()
    assert [(t.previous.value, t.status.value, t.reason, t.message) for t in bench.reported] == [
        ("unknown", "connecting", None, ""),
        ("connecting", "disconnected", Reason.REFUSED, "refused"),
        ("disconnected", "healthy", None, ""),
        ("healthy", "unhealthy", Reason.EXPECT, "not what was expected"),
        ("unhealthy", "healthy", None, ""),
        ("healthy", "connecting", Reason.EOF, "closed"),
    ]
    assert list(bench.it.transitions) == bench.reported[::-1]
    assert {status.value: n for status, n in bench.it.transitions_to.items()} == {
        "unknown": 0,
        "healthy": 2,
        "connecting": 2,
        "unhealthy": 1,
        "disconnected": 1,
    }
    assert (bench.reported[1].name, bench.reported[1].kind) == ("it", "scripted")
    assert bench.reported[1].at - bench.reported[0].at == 5


def test_a_report_that_changes_no_status_tells_nobody() -> None:
    """But the reason in force follows the newest failure."""
    bench = Bench()
    bench.put(Event.BEGUN)
    bench.put(Event.FAILED, Reason.DNS, "no such name")
    assert len(bench.reported) == 1
    assert bench.it.trouble.reason is Reason.DNS


def test_the_fiftieth_transition_pushes_the_first_out() -> None:
    """Fifty are kept, the newest."""
    bench = Bench()
    for _ in range(40):
        bench.good()
        bench.bad()
    assert len(bench.reported) == 80
    assert list(bench.it.transitions) == bench.reported[:-51:-1]


def test_subscribers_are_called_in_order_until_they_unsubscribe() -> None:
    """In the order of subscription; unsubscribing twice removes no other."""
    bench, order = Bench(), list[str]()

    def listener(_: Transition) -> None:
        order.append("a listener")

    leave = bench.board.subscribe(listener)
    bench.board.subscribe(listener)
    bench.board.subscribe(lambda _: order.append("the last"))
    bench.good()
    assert order == ["a listener", "a listener", "the last"]
    order.clear()
    leave()
    leave()
    bench.bad()
    assert order == ["a listener", "the last"]


def test_subscribers_see_the_board_as_it_is_after_the_change() -> None:
    """A callback that looks up the service finds the new status there."""
    bench, seen = Bench(), list[Status]()
    bench.board.subscribe(lambda _: seen.append(bench.it.status))
    bench.good()
    assert seen == [Status.HEALTHY]


def test_answers_and_failures_are_checks_but_losses_and_canaries_are_not() -> None:
    """Users call an attempt a check."""
    bench = Bench()
    bench.put(Event.BEGUN)
    bench.failed()
    bench.put(Event.CRASHED, Reason.INTERNAL, "oops")
    bench.good()
    bench.bad()
    bench.put(Event.CANARY_BAD, Reason.AUTH, "denied")
    bench.put(Event.CANARY_GOOD)
    bench.lost()
    bench.put(Event.STOPPED)
    assert (bench.it.checks, bench.it.check_failures) == (4, 3)
    assert bench.it.failures_by_reason == {Reason.REFUSED: 1, Reason.INTERNAL: 1, Reason.EXPECT: 1}


def test_sessions_and_losses_are_counted_but_a_stop_is_no_loss() -> None:
    """Each session counts once, however many answers it gives."""
    bench = Bench()
    bench.good()
    bench.good()
    bench.bad()
    bench.lost()
    assert (bench.it.sessions, bench.it.sessions_lost) == (1, 1)
    bench.good()
    bench.failed()
    assert (bench.it.sessions, bench.it.sessions_lost) == (2, 2)
    bench.good()
    bench.put(Event.STOPPED)
    assert (bench.it.sessions, bench.it.sessions_lost) == (3, 2)


def test_details_of_a_session_end_with_it() -> None:
    """No detail, latency or canary outlives the session it was seen in."""
    bench = Bench()
    bench.good(Observation(details={"version": "17"}), latency=0.25, held=True)
    bench.put(Event.CANARY_GOOD)
    assert bench.it.details == {"version": "17"}
    assert (bench.it.latency, bench.it.session_since_at) == (0.25, bench.clock.date)
    assert bench.it.last_canary_at == bench.clock.date
    bench.lost()
    it = bench.it
    assert (it.details, it.latency, it.session_since_at, it.last_canary_at) == ({}, None, None, None)
    assert it.last_check_at == bench.clock.date


def test_only_probes_of_the_held_session_are_in_the_histogram() -> None:
    """The first answer of a session took a connect as well, and says nothing of the others."""
    bench = Bench()
    bench.good(latency=0.2)
    assert list(bench.it.durations.cumulative())[-1] == 0
    bench.good(latency=0.002, held=True)
    assert list(bench.it.durations.cumulative()) == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert bench.it.durations.sum == 0.002


def test_a_kind_s_counters_start_at_zero_and_outlive_sessions() -> None:
    """They add up what each answer brings, show among the details, and histograms see each value."""
    bench = Bench(
        Metric("restarts_total", "", MetricType.COUNTER, "restarts"),
        Metric("ping_seconds", "", MetricType.HISTOGRAM, "ping", (0.1, 1.0)),
        Metric("code", "", MetricType.GAUGE, "code"),
    )
    assert bench.it.counters == {"restarts": 0.0}
    bench.good(Observation(counts={"restarts": 2}, details={"ping": 0.5, "code": 200}))
    bench.good(Observation(details={"ping": 0.05}))
    assert bench.it.details == {"ping": 0.05, "restarts": 2}
    bench.lost()
    bench.good(Observation(counts={"restarts": 1}))
    assert bench.it.counters == {"restarts": 3.0}
    assert list(bench.it.histograms["ping"].cumulative()) == [1, 2, 2]


def step(bench: Bench, name: str) -> None:
    match name:
        case "good":
            bench.good()
        case "bad":
            bench.bad()
        case "failed":
            bench.failed()
        case "lost":
            bench.lost()
        case "lost young":
            bench.lost(at_once=False)
        case "crashed":
            bench.put(Event.CRASHED, Reason.INTERNAL, "oops")
        case _:
            bench.put(Event(name.replace(" ", "_")))


@pytest.mark.parametrize(
    ("steps", "number"),
    [
        ("begun, good", 0),
        ("begun, failed", 1),
        ("begun, failed, failed, failed, good", 1),
        ("begun, good, lost, good", 0),
        ("begun, good, lost, good, lost, good", 0),
        ("begun, good, lost", 0),
        ("begun, good, lost, failed", 1),
        ("begun, good, lost, failed, failed, good", 1),
        ("begun, good, lost, bad", 1),
        ("begun, good, lost, canary bad, good", 0),
        ("begun, good, lost young, good", 1),
        ("begun, good, bad", 1),
        ("begun, good, bad, bad, lost, failed, good", 1),
        ("begun, good, bad, good, bad, good", 2),
        ("begun, good, canary bad, canary good", 1),
        ("begun, good, overdue, good", 0),
        ("begun, good, crashed, good", 0),
        ("begun, good, crashed, failed", 1),
        ("begun, good, stopped", 0),
    ],
)
def test_an_outage_is_what_is_still_not_healthy_after_the_attempt_at_once(steps: str, number: int) -> None:
    """Counted once from healthy to healthy; a loss that is repaired at once does not count, nor is not knowing."""
    bench = Bench()
    for name in steps.split(", "):
        step(bench, name)
    assert bench.it.outages == number


def test_the_seconds_in_each_status_add_up_exactly() -> None:
    """Each status gets the time from its transition to the next; the present one is still open."""
    bench = Bench()
    bench.clock.advance(1)
    bench.put(Event.BEGUN)
    bench.clock.advance(2)
    bench.good()
    bench.clock.advance(4)
    bench.good()
    bench.clock.advance(8)
    bench.bad()
    bench.clock.advance(3)
    bench.lost()
    bench.clock.advance(5)
    bench.good()
    bench.clock.advance(25)
    assert {status.value: seconds for status, seconds in bench.it.seconds_in.items()} == {
        "unknown": 1.0,
        "healthy": 12.0,
        "connecting": 7.0,
        "unhealthy": 3.0,
        "disconnected": 0.0,
    }
    assert bench.clock.now - bench.it.entered == 25


def test_a_jump_of_the_wall_clock_changes_no_duration() -> None:
    """Durations are monotonic; only the timestamps follow the wall."""
    bench = Bench()
    bench.good(next_attempt=bench.clock.now + 30)
    bench.clock.date -= 86400
    bench.clock.advance(10)
    bench.bad()
    assert bench.it.seconds_in[Status.HEALTHY] == 10
    assert bench.it.status_since_at == bench.clock.date


@pytest.mark.parametrize("read", ["record", "records", "overall", "refresh"])
def test_a_result_that_is_too_old_is_unknown_at_any_read(read: str) -> None:
    """Due is the planned start plus two timeouts; at that moment it still counts, later it does not."""
    bench = Bench()
    bench.good(next_attempt=bench.clock.now + 30)
    bench.clock.advance(40)
    bench.board.refresh()
    assert [t.status for t in bench.reported] == [Status.HEALTHY]
    bench.clock.advance(0.001)
    getattr(bench.board, read)(*["it"] if read == "record" else [])
    assert (bench.reported[-1].status, bench.reported[-1].reason) == (Status.UNKNOWN, Reason.STALE)


def test_a_stale_service_is_reported_once_and_recovers_with_a_result() -> None:
    """The session was not lost meanwhile: nobody said so."""
    bench = Bench()
    bench.good(next_attempt=bench.clock.now)
    bench.clock.advance(100)
    bench.board.refresh()
    version = bench.it.version
    bench.clock.advance(100)
    bench.board.refresh()
    assert bench.it.version == version
    bench.good(next_attempt=bench.clock.now + 30)
    assert [t.status.value for t in bench.reported] == ["healthy", "unknown", "healthy"]
    assert (bench.it.sessions, bench.it.sessions_lost) == (1, 0)


def test_a_service_that_never_gets_its_turn_is_stale_too() -> None:
    """From the beginning of its first attempt on, a result is due."""
    bench = Bench()
    bench.put(Event.BEGUN, next_attempt=bench.clock.now)
    bench.clock.advance(10.001)
    assert bench.it.trouble.reason is Reason.STALE


def test_a_stopped_service_has_no_next_attempt_and_never_turns_stale() -> None:
    """It stays stopped."""
    bench = Bench()
    bench.good(next_attempt=bench.clock.now + 30)
    assert bench.it.next_attempt_at == bench.clock.date + 30
    bench.put(Event.STOPPED)
    bench.clock.advance(1000)
    it = bench.it
    assert (it.status, it.trouble.reason, it.trouble.message) == (
        Status.UNKNOWN,
        None,
        "monitoring has stopped",
    )
    assert it.next_attempt_at is None
    assert len(bench.reported) == 2


def test_a_canary_that_comes_after_its_session_leaves_no_trace() -> None:
    """Neither a status, nor a time, nor an outage."""
    bench = Bench()
    bench.good()
    bench.lost()
    version = bench.it.version
    bench.put(Event.CANARY_BAD, Reason.AUTH, "denied")
    assert (bench.it.last_canary_at, bench.it.outages, bench.it.version) == (None, 0, version)
    assert bench.it.trouble.reason is Reason.EOF


def test_the_reason_of_a_bad_answer_goes_before_that_of_a_bad_canary() -> None:
    """What the held session says is nearer; once it is repaired, the canary's shows."""
    bench = Bench()
    bench.good()
    bench.put(Event.CANARY_BAD, Reason.AUTH, "denied")
    bench.bad()
    seen = [bench.it.trouble.reason]
    bench.good()
    seen.append(bench.it.trouble.reason)
    bench.put(Event.CANARY_GOOD)
    assert [*seen, bench.it.trouble.reason] == [Reason.EXPECT, Reason.AUTH, None]
    assert bench.it.status is Status.HEALTHY


def test_a_service_added_and_removed_takes_its_numbers_along() -> None:
    """One that comes back under the same name starts from nothing."""
    bench = Bench()
    bench.good()
    assert bench.board.names == ("it",)
    bench.board.remove("it")
    assert "it" not in bench.board
    with pytest.raises(KeyError):
        bench.board.record("it")
    with pytest.raises(KeyError):
        bench.good()
    bench.board.add(make("it"))
    assert (bench.it.sessions, bench.it.status) == (0, Status.UNKNOWN)


def test_the_overall_status_knows_who_is_critical_and_who_has_been_up() -> None:
    """From the board's own services; and it is unknown while nobody watches."""
    bench = Bench()
    bench.board.add(make("extra", critical=False))
    bench.good()
    bench.board.put("extra", Report(Event.FAILED, Reason.DNS))
    assert bench.board.overall() is Overall.UNKNOWN
    bench.board.active = True
    assert bench.board.overall() is Overall.DEGRADED
    bench.lost()
    assert bench.board.overall() is Overall.DEGRADED  # connecting, but it has been up
    bench.failed()
    bench.failed()
    assert bench.board.overall() is Overall.PARTIAL


def test_a_message_is_one_bounded_line_that_steers_no_terminal() -> None:
    """Servers put into their errors what they like: line breaks, escape sequences, megabytes."""
    hostile = "\x1b]0;owned\x07 a\nlevel=error\u202e\x9b31m" + "x" * 3_000_000
    bench = Bench()
    bench.put(Event.BEGUN)
    for _ in range(2):
        bench.put(Event.FAILED, Reason.AUTH, hostile, next_attempt=bench.clock.now + 5)
    message = bench.reported[-1].message
    assert message.startswith("�]0;owned� a level=error��31mxxx")
    assert message.isprintable()
    assert len(message) < 1100
    assert bench.it.trouble.message == message
