"""The watch of one service: what it makes of all that a check can do, and when it tries again.

All of it runs on virtual time, so that every moment is exact: rand is 0.5, which spreads nothing.
"""

import asyncio
import gc
import json
import random
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from connection_exporter.core.health import Event, Reason, Status
from connection_exporter.core.retry import Policy
from connection_exporter.kind import Failure, Observation, TooEarly
from connection_exporter.monitor import snapshot
from connection_exporter.monitor.attempt import CLOSE_WITHIN, waited_for
from connection_exporter.monitor.batches import Batches
from connection_exporter.monitor.deadlines import Deadlines
from connection_exporter.monitor.rate_limiter import RateLimiter
from connection_exporter.monitor.record import Record, Report
from connection_exporter.monitor.service_loop import ServiceLoop
from support.logs import captured_logs
from support.scripted import (
    BAD,
    EOF,
    GOOD,
    REFUSED,
    Journal,
    ScriptedCheck,
    after,
    hang,
    raise_cancelled,
    service,
)
from support.virtual_time import VirtualClock, on_virtual_time

START = 1000.0
POLICY = Policy(interval=30, timeout=5, retries=3, retry_delay=5, max_retry_delay=30, canary=None)
WITH_CANARY = POLICY._replace(canary=60)


class Bench:
    """One service under watch."""

    def __init__(self, check: ScriptedCheck, policy: Policy) -> None:
        self.check = check
        self.clock = VirtualClock()
        self.board = Journal([service(check, policy)], self.clock)
        self.watch: ServiceLoop
        self.task: asyncio.Task[None]

    @property
    def it(self) -> Record:
        return self.board.record("it")

    @property
    def events(self) -> list[Event]:
        return self.board.events()

    @property
    def last(self) -> Report:
        return self.board.reports[-1][2]

    def times(self, *events: Event) -> list[float]:
        """When these were reported, in seconds from the start."""
        return [since_start(at) for at in self.board.times(*events)]

    @property
    def asked(self) -> list[float]:
        """When the check was asked to connect, in seconds from the start."""
        return [since_start(at) for at in self.check.asked]

    def probed(self, session: int = 0) -> list[float]:
        return [since_start(at) for at in self.check.made[session].probed]


def since_start(moment: float) -> float:
    """Seconds, to the next twentieth: the watch waits a millisecond longer than it must."""
    return round((moment - START) * 20) / 20


@asynccontextmanager
async def watching(
    check: ScriptedCheck,
    policy: Policy = POLICY,
    *,
    rand: Callable[[], float] = lambda: 0.5,
    delay: float = 0.0,
    limiter: RateLimiter | None = None,
) -> AsyncIterator[Bench]:
    """ServiceLoop while the block runs; then see that the watch was alive to the end, and left nothing open."""
    bench = Bench(check, policy)
    async with asyncio.TaskGroup() as tasks:

        def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
            return tasks.create_task(work)

        bench.watch = ServiceLoop(
            service(check, policy),
            bench.board,
            rand=rand,
            spawn=spawn,
            delay=delay,
            limiter=limiter or RateLimiter(),
            batches=Batches(origin=bench.clock.monotonic()),
            deadlines=Deadlines(),
        )
        bench.task = tasks.create_task(bench.watch.run())
        await settle()
        yield bench
        assert not bench.task.done(), "the watch has ended by itself"
        bench.task.cancel()
    assert check.open == []


async def settle() -> None:
    """Let everybody do what can be done now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(moment: float) -> None:
    """Sleep until so many seconds after the start, and a little: what is due then has been done."""
    await asyncio.sleep(START + moment + 0.02 - asyncio.get_running_loop().time())
    await settle()


# Probes


@on_virtual_time
async def test_probes_keep_the_beat_after_a_random_share_of_the_first_interval() -> None:
    """The first at once, the second after rand x interval, then one every interval, however long each takes."""
    async with watching(ScriptedCheck(probes=[GOOD, GOOD, after(3), after(1)])) as bench:
        await until(140)
        assert bench.probed() == [0, 15, 45, 75, 105, 135]
        assert bench.asked == [0]
        assert bench.times(Event.ANSWERED_GOOD) == [0, 15, 48, 76, 105, 135]


@on_virtual_time
async def test_the_first_attempt_waits_for_its_turn() -> None:
    """Until then the service is unknown; it is connecting from the beginning of its attempt."""
    async with watching(ScriptedCheck(connects=[after(1)]), delay=0.75) as bench:
        await until(0.7)
        assert bench.events == []
        await until(0.8)
        assert (bench.it.status, bench.asked) == (Status.CONNECTING, [0.75])
        await until(1.75)
        assert (bench.it.status, bench.times(Event.ANSWERED_GOOD)) == (Status.HEALTHY, [1.75])


@on_virtual_time
async def test_the_latency_is_that_of_the_probe_alone() -> None:
    """What it takes to connect is no part of it, and only probes of the held session are marked so."""
    async with watching(ScriptedCheck(connects=[after(2)], probes=[after(0.5), after(0.25)])) as bench:
        await until(30)
        answers = [report for _, _, report in bench.board.reports if report.latency is not None]
        assert [(round(a.latency or 0, 6), a.held) for a in answers] == [(0.5, False), (0.25, True)]


class Details(dict[str, Any]):
    """Details of which a test can see whether somebody keeps them."""


@on_virtual_time
async def test_no_answer_is_kept_until_the_next() -> None:
    """Not even the first one of a session: each service would have another set of details in memory."""
    check = ScriptedCheck(probes=[Observation(details=Details(role="master")) for _ in range(2)])
    kept = [weakref.ref(seen.details) for seen in check.probes if isinstance(seen, Observation)]
    async with watching(check) as bench:
        bench.board.reports.clear()
        assert bench.it.details == {"role": "master"}
        assert (kept[0](), len(check.probes)) == (None, 1)
        await until(16)
        bench.board.reports.clear()
        assert (kept[1](), len(check.probes)) == (None, 0)


@on_virtual_time
async def test_bad_answers_are_asked_again_early_then_on_the_interval() -> None:
    """After 10 s, 20 s, 30 s, 30 s; the first good one leads back to the beat."""
    async with watching(ScriptedCheck(probes=[BAD, BAD, BAD, BAD, GOOD])) as bench:
        await until(170)
        assert bench.probed() == [0, 10, 30, 60, 90, 120, 150]
        assert bench.events[:6] == [Event.BEGUN, *[Event.ANSWERED_BAD] * 4, Event.ANSWERED_GOOD]
        assert bench.asked == [0]


@on_virtual_time
async def test_an_answer_slower_than_max_latency_is_bad() -> None:
    """With the reason slow, and the time it took; at the limit it is still good."""
    check = ScriptedCheck(probes=[GOOD, after(3), after(2)])
    async with watching(check, POLICY._replace(max_latency=2)) as bench:
        await until(18)
        assert bench.it.status is Status.UNHEALTHY
        assert (bench.last.event, bench.last.reason) == (Event.ANSWERED_BAD, Reason.SLOW)
        assert bench.last.message == "answered after 3.000 s, more than max_latency 2 s"
        await until(31)
        assert bench.last.event is Event.ANSWERED_GOOD


@on_virtual_time
async def test_a_bad_answer_keeps_its_own_reason_however_slow() -> None:
    """What was wrong says more than how long it took."""
    check = ScriptedCheck(probes=[after(3, BAD)])
    async with watching(check, POLICY._replace(max_latency=2)) as bench:
        await until(4)
        assert bench.last.reason is Reason.EXPECT


# Losses


@on_virtual_time
async def test_a_loss_while_idle_is_noticed_and_repaired_immediately() -> None:
    """Not at the next interval: in no time at all, since the session had lived for retry_delay."""
    async with watching(ScriptedCheck()) as bench:
        await until(20)
        bench.check.made[0].lose()
        await settle()
        assert bench.times(Event.LOST) == [20]
        assert bench.times(Event.ANSWERED_GOOD) == [0, 15, 20]
        assert bench.check.open == [bench.check.made[1]]
        assert (bench.it.sessions, bench.it.sessions_lost, bench.it.outages) == (2, 1, 0)
        lost = next(report for _, _, report in bench.board.reports if report.event is Event.LOST)
        assert (lost.reason, lost.message) == (EOF.reason, EOF.message)


@pytest.mark.parametrize(("age", "again"), [(4.9, 9.9), (5.0, 5.0), (6.0, 6.0)])
@on_virtual_time
async def test_only_a_session_that_lived_for_retry_delay_is_replaced_at_once(
    age: float, again: float
) -> None:
    """A younger one waits for the back-off, as long as after a first failure."""
    async with watching(ScriptedCheck()) as bench:
        await until(age)
        bench.check.made[0].lose()
        await until(age + 10)
        assert bench.asked == [0, again]


@on_virtual_time
async def test_a_server_that_answers_and_closes_is_never_hammered() -> None:
    """For an hour: never two sessions within 0.8 x retry_delay, and it never gives up."""
    check = ScriptedCheck(lifetime=0.01)
    async with watching(check, rand=random.Random(1).random) as bench:
        await until(3600)
        gaps = [later - sooner for sooner, later in zip(bench.asked, bench.asked[1:], strict=False)]
        assert min(gaps) >= 0.8 * POLICY.retry_delay
        assert max(gaps) <= 1.2 * POLICY.retry_delay + 0.1
        assert min(gaps) < 4.1
        assert max(gaps) > 5.9
        assert bench.it.sessions == bench.it.sessions_lost == len(bench.asked)
        check.lifetime = None
        await until(3610)


@on_virtual_time
async def test_a_held_session_that_does_not_answer_is_lost() -> None:
    """After timeout; a loss is no check, and it is repaired at once."""
    async with watching(ScriptedCheck(probes=[GOOD, hang])) as bench:
        await until(20.001)
        assert bench.events == [Event.BEGUN, Event.ANSWERED_GOOD, Event.LOST, Event.ANSWERED_GOOD]
        assert bench.times(Event.LOST) == [20]
        assert bench.it.checks == 2
        lost = bench.board.reports[2][2]
        assert (lost.reason, lost.message) == (Reason.TIMEOUT, "scripted:1: no answer within 5 s")


@on_virtual_time
async def test_a_probe_that_finds_the_link_gone_is_a_loss() -> None:
    """As reported by the driver, before or instead of `lost`."""
    async with watching(ScriptedCheck(probes=[GOOD, Failure(Reason.RESET, "reset by peer")])) as bench:
        await until(16)
        assert (bench.times(Event.LOST), bench.it.sessions) == ([15], 2)
        assert bench.board.reports[2][2].reason is Reason.RESET


@on_virtual_time
async def test_a_link_that_breaks_under_a_probe_that_answers_is_a_loss_right_after() -> None:
    """The answer counts, then the loss."""

    async def answer_and_break() -> Observation:
        check.made[0].lose()
        return GOOD

    check = ScriptedCheck(probes=[GOOD, answer_and_break])
    async with watching(check) as bench:
        await until(16)
        assert bench.events[1:5] == [
            Event.ANSWERED_GOOD,
            Event.ANSWERED_GOOD,
            Event.LOST,
            Event.ANSWERED_GOOD,
        ]


@on_virtual_time
async def test_the_end_of_a_session_that_was_closed_before_is_no_loss_of_the_next() -> None:
    """A transport may close in the background, because its buffer is full, until the kernel gives it up."""
    async with watching(ScriptedCheck(probes=[GOOD, Failure(Reason.RESET, "reset by peer")])) as bench:
        await until(10)
        old = bench.check.made[0]
        old.closed = True  # so that to close it does not complete `lost`
        await until(16)
        old.lost.set_result(EOF)
        await until(20)
        assert bench.times(Event.LOST) == [15]
        assert bench.check.open == [bench.check.made[1]]


class Queue(RateLimiter):
    """Nobody in it gets a turn before `open` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = True
        self.waiting: list[asyncio.Future[None]] = []

    def turn(self) -> "asyncio.Future[None]":
        turn = asyncio.get_running_loop().create_future()
        if self.is_open:
            turn.set_result(None)
        else:
            self.waiting.append(turn)
        return turn

    def open(self) -> None:
        self.is_open = True
        for turn in self.waiting:
            turn.set_result(None)


@on_virtual_time
async def test_a_loss_is_reported_while_the_session_waits_for_its_turn_to_be_closed() -> None:
    """Once, and what a canary says of that session no longer counts: it ends, too."""
    queue = Queue()
    check = ScriptedCheck(connects=[GOOD, after(2)])
    check.peer, check.addresses = "10.0.0.1", frozenset({"10.0.0.1"})
    async with watching(check, WITH_CANARY, limiter=queue) as bench:
        await until(59)
        check.peer, check.addresses = "10.0.0.2", frozenset({"10.0.0.2"})
        await until(61)
        queue.is_open = False
        check.made[0].lose()
        await settle()
        assert bench.times(Event.LOST) == [61]
        await until(64)
        assert check.open == [check.made[0]]
        queue.open()
        await settle()
        assert check.open == [check.made[1]]
        assert bench.asked == [0, 60, 64]
        assert bench.times(Event.LOST) == [61]
        assert bench.it.status is Status.HEALTHY


@on_virtual_time
async def test_a_lost_session_is_freed_without_the_garbage_collector() -> None:
    """No frame and no exception keeps it: to find 1,000 of them takes the collector 25 ms in one go."""
    async with watching(ScriptedCheck()) as bench:
        await until(20)
        freed = weakref.ref(bench.check.made[0])
        gc.disable()
        try:
            bench.check.made.pop(0).lose()
            await settle()
            assert bench.times(Event.LOST) == [20]
            assert freed() is None
        finally:
            gc.enable()


@asynccontextmanager
async def lost_session(queue: Queue) -> AsyncIterator[Bench]:
    """A session that was lost after 20 s, and waits for its turn to be closed."""
    async with watching(ScriptedCheck(), limiter=queue) as bench:
        await until(20)
        queue.is_open = False
        bench.check.made[0].lose()
        await settle()
        yield bench


@on_virtual_time
async def test_a_lost_session_that_is_forced_does_not_wait_for_its_turn() -> None:
    """Its loss is reported once, and it is closed before the attempt, which waits."""
    async with lost_session(queue := Queue()) as bench:
        forced = asyncio.create_task(bench.watch.force())
        await settle()
        assert bench.check.open == []
        queue.open()
        await forced
        assert bench.times(Event.LOST) == [20]
        assert bench.check.open == [bench.check.made[1]]
        bench.check.made[1].lose()
        await settle()
        assert bench.times(Event.LOST) == [20, 20]


@on_virtual_time
async def test_a_lost_session_that_waits_for_its_turn_is_closed_by_a_stop() -> None:
    """`watching` sees that nothing is left open."""
    async with lost_session(Queue()) as bench:
        assert bench.check.open


# Attempts that come to nothing


@on_virtual_time
async def test_attempts_back_off_and_the_service_is_disconnected_after_three() -> None:
    """At 0, 5, 15, 35, 65, 95 s and so on; disconnected after 15 s; one answer sets the count to zero."""
    async with watching(ScriptedCheck(connects=[REFUSED] * 6)) as bench:
        await until(14)
        assert (bench.it.status, bench.it.health.retry_count) == (Status.CONNECTING, 2)
        await until(15)
        assert (bench.it.status, bench.it.health.retry_count) == (Status.DISCONNECTED, 3)
        assert bench.it.trouble.reason is Reason.REFUSED
        await until(96)
        assert bench.asked == [0, 5, 15, 35, 65, 95]
        await until(125)
        assert (bench.it.status, bench.it.health.retry_count) == (Status.HEALTHY, 0)


@on_virtual_time
async def test_each_failure_says_when_the_next_attempt_is() -> None:
    """To the board, on its clock."""
    async with watching(ScriptedCheck(connects=[REFUSED] * 3)) as bench:
        await until(16)
        planned = [
            since_start(r.next_attempt) for _, _, r in bench.board.reports if r.next_attempt is not None
        ]
        assert planned == [0, 5, 15, 35]


@on_virtual_time
async def test_a_thousand_failures_are_no_different_from_ten() -> None:
    """Two to the power of a thousand is more than a float can hold."""
    async with watching(ScriptedCheck(connects=[REFUSED] * 1200)) as bench:
        await until(31 * 1200)
        assert bench.it.status is Status.HEALTHY
        assert bench.it.check_failures == 1200


@on_virtual_time
async def test_attempts_that_time_out_fail_and_thirty_seconds_make_it_disconnected() -> None:
    """One deadline for the attempt as a whole: 5 s, then 5 s to wait, and so on."""
    async with watching(ScriptedCheck(connects=[hang] * 3)) as bench:
        await until(60)
        assert bench.times(Event.FAILED) == [5, 15, 30]
        assert bench.it.transitions[1].status is Status.DISCONNECTED
        assert bench.it.transitions[1].at - bench.clock.wall_ahead == pytest.approx(START + 30, abs=0.02)
        assert bench.it.failures_by_reason == {Reason.TIMEOUT: 3}


@on_virtual_time
async def test_connect_and_first_probe_share_one_deadline() -> None:
    """Three seconds each are too long together; what was connected is closed."""
    async with watching(ScriptedCheck(connects=[after(3)], probes=[after(3)])) as bench:
        await until(5.001)
        assert bench.times(Event.FAILED) == [5]
        assert bench.check.made[0].closed


@on_virtual_time
async def test_an_attempt_that_is_cut_off_may_say_what_it_waited_for() -> None:
    """Which is the reason then, instead of a bare timeout."""

    async def wait_for_the_resolver() -> Observation:
        try:
            return await hang()
        except asyncio.CancelledError as cancelled:
            raise cancelled from Failure(Reason.DNS, "the resolver does not answer")

    async with watching(ScriptedCheck(connects=[wait_for_the_resolver])) as bench:
        await until(5.001)
        assert (bench.last.event, bench.last.reason) == (Event.FAILED, Reason.DNS)
        assert bench.last.message == "the resolver does not answer"


async def tidy_up_slowly() -> Observation:
    """Be cut off while an earlier failure is handled."""
    try:
        raise Failure(Reason.REFUSED, "the first of two servers")
    except Failure:
        return await hang()


async def say_it_in_its_own_words() -> Observation:
    """Make a TimeoutError of any cancellation, as some libraries do."""
    try:
        return await hang()
    except asyncio.CancelledError:
        raise TimeoutError from None


@pytest.mark.parametrize("step", [tidy_up_slowly, say_it_in_its_own_words])
@on_virtual_time
async def test_an_attempt_that_is_cut_off_in_any_other_way_timed_out(step: Any) -> None:
    """Not with an error that was over before, and it is no crash of the check."""
    async with watching(ScriptedCheck(connects=[step])) as bench:
        await until(5.001)
        assert (bench.last.event, bench.last.reason) == (Event.FAILED, Reason.TIMEOUT)
        assert bench.last.message == "scripted:1: no answer within 5 s"


@on_virtual_time
async def test_where_no_session_is_held_a_probe_without_answer_is_a_failed_attempt() -> None:
    """As with http: it counts, and waits for the back-off."""
    async with watching(ScriptedCheck(probes=[GOOD, REFUSED], holds_session=False)) as bench:
        await until(19)
        assert bench.events == [Event.BEGUN, Event.ANSWERED_GOOD, Event.FAILED]
        assert bench.it.health.retry_count == 1
        await until(21)
        assert bench.times(Event.ANSWERED_GOOD) == [0, 20]


# Broken checks


async def cancel_itself() -> Observation:
    """Await a task that was cancelled, as careless code does."""
    task = asyncio.create_task(asyncio.sleep(1))
    task.cancel()
    await task
    return GOOD


BREAKS = [
    ValueError("password=hunter2"),
    SystemExit("password=hunter2"),
    KeyboardInterrupt(),
    GeneratorExit(),
    BaseExceptionGroup("several", [SystemExit()]),
    Failure("no reason of ours", "password=hunter2"),  # type: ignore[arg-type]
    ExceptionGroup("several", [REFUSED]),
    TimeoutError(),
    raise_cancelled,
    cancel_itself,
]


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("step", BREAKS, ids=lambda step: getattr(step, "__name__", type(step).__name__))
@on_virtual_time
async def test_a_check_that_crashes_is_unknown_and_is_tried_again(step: Any, *, held: bool) -> None:
    """While it connects or probes; whatever it raises, even a cancellation that nobody asked for."""
    check = ScriptedCheck(probes=[GOOD, step]) if held else ScriptedCheck(connects=[step])
    async with watching(check) as bench:
        crashed_at = 15 if held else 0
        await until(crashed_at + 4.9)
        assert bench.times(Event.CRASHED) == [crashed_at]
        assert (bench.it.status, bench.it.trouble.reason) == (Status.UNKNOWN, Reason.INTERNAL)
        assert "hunter2" not in bench.it.trouble.message
        assert check.open == []
        await until(crashed_at + 5)
        assert bench.it.status is Status.HEALTHY


NOT_OBSERVATIONS: list[Any] = [
    None,
    {"reason": None},
    Observation("refused"),  # type: ignore[arg-type]
    Observation(message=b"bytes"),  # type: ignore[arg-type]
    Observation(details=None),  # type: ignore[arg-type]
    Observation(details=[("a", 1)]),  # type: ignore[arg-type]
    Observation(counts={"a": "many"}),  # type: ignore[dict-item]
    Observation(counts={"a": float("nan")}),
    Observation(counts={"unknown": 1}),
]


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("returned", NOT_OBSERVATIONS, ids=repr)
@on_virtual_time
async def test_a_probe_that_returns_anything_else_is_a_crash(returned: Any, *, held: bool) -> None:
    """It would otherwise fail later, in the JSON of all services."""

    async def step() -> Observation:
        return returned  # type: ignore[no-any-return]

    async with watching(ScriptedCheck(probes=[GOOD, step] if held else [step])) as bench:
        await until(15.5 if held else 0.5)
        assert (bench.it.status, bench.it.trouble.reason) == (Status.UNKNOWN, Reason.INTERNAL)
        json.dumps(snapshot.detailed(bench.board))


@on_virtual_time
async def test_a_crash_says_which_error_came_from_where_but_not_its_text() -> None:
    """The text may hold a secret, and is for the log."""
    async with watching(ScriptedCheck(connects=[ValueError("password=hunter2")])) as bench:
        await until(1)
        assert bench.last.message.startswith("unexpected ValueError in scripted.py:")


@on_virtual_time
async def test_a_failure_of_our_own_is_a_crash_with_its_words() -> None:
    """No file descriptors left: nothing is known of the service, and the message is for people."""
    no_files = Failure(Reason.INTERNAL, "no file descriptors left")
    async with watching(ScriptedCheck(connects=[no_files])) as bench:
        await until(1)
        assert (bench.last.event, bench.last.message) == (Event.CRASHED, "no file descriptors left")


@pytest.mark.parametrize("how", ["cancelled", "failed", "raised"])
@on_virtual_time
async def test_a_lost_future_that_ends_in_another_way_is_a_crash(how: str) -> None:
    """A check that cancels it, or sets an error, does not end its watch."""
    async with watching(ScriptedCheck()) as bench:
        await until(10)
        lost = bench.check.made[0].lost
        match how:
            case "cancelled":
                lost.cancel()
            case "failed":
                lost.set_exception(RuntimeError("broken"))
            case _:
                lost.set_exception(EOF)
        await until(16)
        assert bench.times(Event.LOST if how == "raised" else Event.CRASHED) == [10]
        assert bench.it.status is Status.HEALTHY


@pytest.mark.parametrize("step", BREAKS, ids=lambda step: getattr(step, "__name__", type(step).__name__))
@on_virtual_time
async def test_a_connection_that_cannot_be_closed_is_given_up(step: Any) -> None:
    """The loss is reported all the same, and the next session made."""
    async with watching(ScriptedCheck(closes=[step])) as bench:
        await until(10)
        bench.check.made[0].lose()
        await settle()
        assert bench.events[-2:] == [Event.LOST, Event.ANSWERED_GOOD]


@on_virtual_time
async def test_a_close_that_never_ends_is_abandoned_after_its_deadline() -> None:
    """The next session is made all the same, and the log says so."""
    with captured_logs() as logged:
        async with watching(ScriptedCheck(closes=[hang])) as bench:
            await until(10)
            bench.check.made[0].lose()
            await until(10 + CLOSE_WITHIN - 0.1)
            assert bench.events[-1:] == [Event.LOST]
            await until(10 + CLOSE_WITHIN + 0.1)
            assert bench.events[-1:] == [Event.ANSWERED_GOOD]
    assert [line["event"] for line in logged if line["log_level"] == "error"] == ["close_abandoned"]


# The canary


@on_virtual_time
async def test_a_canary_is_a_fresh_connection_that_is_closed_again() -> None:
    """On its period, from the first answer on, and never instead of a probe."""
    async with watching(ScriptedCheck(), WITH_CANARY) as bench:
        await until(59)
        assert bench.times(Event.CANARY_GOOD) == []
        await until(125)
        assert bench.times(Event.CANARY_GOOD) == [60, 120]
        assert bench.asked == [0, 60, 120]
        assert bench.check.open == [bench.check.made[0]]
        assert bench.probed() == [0, 15, 45, 75, 105]


@on_virtual_time
async def test_there_is_no_canary_where_it_is_off() -> None:
    """Nor is one made by force."""
    async with watching(ScriptedCheck()) as bench:
        await bench.watch.force()
        await until(1000)
        assert bench.asked == [0]


@on_virtual_time
async def test_a_bad_canary_makes_it_unhealthy_and_is_repeated_on_the_back_off() -> None:
    """After 5 s, then 10 s, then on the period again; the held session goes on undisturbed."""
    check = ScriptedCheck(connects=[GOOD, REFUSED, REFUSED])
    async with watching(check, WITH_CANARY) as bench:
        await until(60)
        assert (bench.it.status, bench.it.trouble.reason) == (Status.UNHEALTHY, Reason.REFUSED)
        assert bench.it.trouble.message == "new connection: nobody listens"
        await until(140)
        assert bench.times(Event.CANARY_BAD) == [60, 65]
        assert bench.times(Event.CANARY_GOOD) == [75, 135]
        assert bench.it.status is Status.HEALTHY
        assert bench.it.sessions == 1


@on_virtual_time
async def test_a_canary_that_gets_a_bad_answer_is_bad() -> None:
    """The fresh connection sees what the held one does not."""
    async with watching(ScriptedCheck(probes=[*[GOOD] * 3, BAD]), WITH_CANARY) as bench:
        await until(61)
        assert (bench.last.event, bench.last.reason) == (Event.CANARY_BAD, Reason.EXPECT)
        assert bench.last.message == "new connection: not what was expected"


@on_virtual_time
async def test_a_canary_that_times_out_is_bad_and_holds_up_no_probe() -> None:
    """The probe at 75 s comes while the canary of 71.25 s, the slot before 72 s, still waits."""
    async with watching(ScriptedCheck(connects=[GOOD, hang]), WITH_CANARY._replace(canary=72)) as bench:
        await until(80)
        assert bench.times(Event.CANARY_BAD) == [76.25]
        assert bench.probed() == [0, 15, 45, 75]


@pytest.mark.parametrize("step", BREAKS, ids=lambda step: getattr(step, "__name__", type(step).__name__))
@on_virtual_time
async def test_a_canary_that_crashes_is_bad_and_the_session_lives_on(step: Any) -> None:
    """Its error is internal; the next canary comes on the back-off."""
    async with watching(ScriptedCheck(connects=[GOOD, step]), WITH_CANARY) as bench:
        await until(61)
        assert (bench.last.event, bench.last.reason) == (Event.CANARY_BAD, Reason.INTERNAL)
        assert "hunter2" not in bench.last.message
        await until(66)
        assert bench.times(Event.CANARY_GOOD) == [65]
        assert bench.it.sessions == 1


@on_virtual_time
async def test_a_canary_that_we_could_not_make_says_nothing_of_the_service() -> None:
    """No file descriptors left: what is held stays as it is, and the next canary comes on the back-off."""
    no_files = Failure(Reason.INTERNAL, "no file descriptors left")
    async with watching(ScriptedCheck(connects=[GOOD, GOOD, no_files]), WITH_CANARY) as bench:
        await until(121)
        assert bench.times(Event.CANARY_BAD) == []
        assert bench.it.status is Status.HEALTHY
        await until(126)
        assert bench.times(Event.CANARY_GOOD) == [60, 125]
        assert bench.it.sessions == 1


async def stubborn() -> Observation:
    """Turn the cancellation into a failure, against the rule."""
    try:
        return await hang()
    except asyncio.CancelledError:
        raise Failure(Reason.RESET, "cut off") from None


@pytest.mark.parametrize("canary", [hang, stubborn])
@on_virtual_time
async def test_a_canary_ends_with_the_session_it_began_in(canary: Any) -> None:
    """It says nothing of the next one, and its successor comes on the period."""
    async with watching(ScriptedCheck(connects=[GOOD, canary]), WITH_CANARY) as bench:
        await until(61)
        bench.check.made[0].lose()
        await until(119)
        assert bench.times(Event.CANARY_GOOD, Event.CANARY_BAD) == []
        assert bench.it.status is Status.HEALTHY
        await until(122)
        assert bench.times(Event.CANARY_GOOD) == [120]


@on_virtual_time
async def test_a_name_that_leads_elsewhere_moves_the_session_without_a_loss() -> None:
    """The canary's connection takes the place of the old one, which is closed."""
    check = ScriptedCheck()
    check.peer, check.addresses = "10.0.0.1", frozenset({"10.0.0.1"})
    async with watching(check, WITH_CANARY) as bench:
        await until(50)
        check.peer, check.addresses = "10.0.0.2", frozenset({"10.0.0.2"})
        await until(80)
        assert check.open == [check.made[1]]
        assert Event.LOST not in bench.events
        assert (bench.probed(0), bench.probed(1)) == ([0, 15, 45], [60, 75])
        assert (bench.it.sessions, bench.it.sessions_lost, len(bench.it.transitions)) == (1, 0, 2)
        await until(125)
        assert bench.times(Event.CANARY_GOOD) == [60, 120]
        assert check.open == [check.made[1]]


@on_virtual_time
async def test_a_session_that_moved_is_noticed_when_lost_and_is_closed() -> None:
    """The link now held is the one that is watched, right after the move too."""
    check = ScriptedCheck()
    check.peer, check.addresses = "10.0.0.1", frozenset({"10.0.0.1"})
    async with watching(check, WITH_CANARY) as bench:
        await until(50)
        check.peer, check.addresses = "10.0.0.2", frozenset({"10.0.0.2"})
        await until(62)
        assert bench.times(Event.LOST) == [], "the end of the old link is no loss"
        check.made[1].lose()
        await settle()
        assert bench.times(Event.LOST) == [62]
        assert check.open == [check.made[2]]


@on_virtual_time
async def test_a_session_that_moved_is_closed_by_a_stop() -> None:
    """Right after the move, before it was probed again. `watching` sees that nothing is left open."""
    check = ScriptedCheck()
    check.peer, check.addresses = "10.0.0.1", frozenset({"10.0.0.1"})
    async with watching(check, WITH_CANARY):
        await until(50)
        check.peer, check.addresses = "10.0.0.2", frozenset({"10.0.0.2"})
        await until(62)
        assert check.open == [check.made[1]]


@on_virtual_time
async def test_a_move_while_the_old_link_breaks_under_a_probe_leaves_nothing_open() -> None:
    """The canary's connection was ready to take over; the loss comes first, and both are closed."""
    check = ScriptedCheck(connects=[GOOD, after(4.5)], probes=[GOOD, GOOD, GOOD, after(4, EOF)])
    check.peer, check.addresses = "10.0.0.1", frozenset({"10.0.0.1"})
    async with watching(check, WITH_CANARY._replace(canary=74)) as bench:
        await until(50)
        check.peer, check.addresses = "10.0.0.2", frozenset({"10.0.0.2"})
        await until(78)
        assert len(check.open) == 2
        await until(80)
        assert bench.times(Event.LOST) == [79]
        assert check.open == [check.made[2]]


@on_virtual_time
async def test_a_name_that_still_leads_here_moves_nothing() -> None:
    """Among several addresses, that of the session is enough."""
    check = ScriptedCheck()
    check.peer, check.addresses = "10.0.0.1", frozenset({"10.0.0.1"})
    async with watching(check, WITH_CANARY):
        await until(50)
        check.peer, check.addresses = "10.0.0.2", frozenset({"10.0.0.1", "10.0.0.2"})
        await until(62)
        assert check.open == [check.made[0]]


@on_virtual_time
async def test_a_probe_over_a_new_connection_counts_as_a_canary() -> None:
    """It is counted as one, and puts the next off by a period; after bad ones too."""
    fresh = Observation(fresh=True)
    check = ScriptedCheck(connects=[GOOD, REFUSED], probes=[GOOD, GOOD, GOOD, fresh], holds_session=False)
    async with watching(check, WITH_CANARY._replace(canary=74)) as bench:
        await until(76)
        assert [t.status for t in bench.it.transitions][:2] == [Status.HEALTHY, Status.UNHEALTHY]
        assert bench.times(Event.CANARY_GOOD) == [75]
        await until(146)
        assert bench.times(Event.CANARY_GOOD) == [75]
        await until(147)
        assert bench.times(Event.CANARY_GOOD) == [75, 146.25]


# Force


@on_virtual_time
async def test_force_makes_a_probe_now_and_leaves_the_beat_alone() -> None:
    """It returns with the result."""
    async with watching(ScriptedCheck()) as bench:
        await until(20)
        await bench.watch.force()
        assert bench.times(Event.ANSWERED_GOOD) == [0, 15, 20]
        await until(80)
        assert bench.times(Event.ANSWERED_GOOD) == [0, 15, 20, 45, 75]


@on_virtual_time
async def test_force_joins_the_attempt_in_flight() -> None:
    """No second one follows for it."""
    async with watching(ScriptedCheck(connects=[after(3)])) as bench:
        await until(1)
        await bench.watch.force()
        assert bench.times(Event.ANSWERED_GOOD) == [3]
        await until(14)
        assert len(bench.check.made[0].probed) == 1


@on_virtual_time
async def test_force_takes_the_place_of_the_back_off() -> None:
    """The attempt is made now, and the back-off counts from there."""
    async with watching(ScriptedCheck(connects=[REFUSED] * 4)) as bench:
        await until(6)
        await bench.watch.force()
        assert bench.asked == [0, 5, 6]
        await until(30)
        assert bench.asked == [0, 5, 6, 26]


@on_virtual_time
async def test_force_runs_a_canary_too() -> None:
    """After the probe, over a fresh connection; the next comes a period later, at the beginning of a slot."""
    async with watching(ScriptedCheck(), WITH_CANARY) as bench:
        await until(20)
        await bench.watch.force()
        assert bench.times(Event.CANARY_GOOD) == [20]
        await until(81)
        assert bench.times(Event.CANARY_GOOD) == [20, 78.75]


@on_virtual_time
async def test_force_joins_a_canary_under_way() -> None:
    """One at a time."""
    async with watching(ScriptedCheck(connects=[GOOD, after(4)]), WITH_CANARY) as bench:
        await until(61)
        await bench.watch.force()
        assert bench.times(Event.CANARY_GOOD) == [64]
        assert len(bench.asked) == 2


@on_virtual_time
async def test_force_before_the_first_turn_makes_the_first_attempt() -> None:
    """Nobody who asks need wait for the spread of the starts."""
    async with watching(ScriptedCheck(), delay=2) as bench:
        await bench.watch.force()
        assert bench.events == [Event.BEGUN, Event.ANSWERED_GOOD]
        assert bench.times(Event.ANSWERED_GOOD) == [0]


@on_virtual_time
async def test_force_as_the_link_breaks_waits_for_the_attempt_that_follows() -> None:
    """It never returns with nothing but the loss."""
    async with watching(ScriptedCheck()) as bench:
        await until(20)
        bench.check.made[0].lose()
        await bench.watch.force()
        assert bench.events[-2:] == [Event.LOST, Event.ANSWERED_GOOD]


@on_virtual_time
async def test_force_is_answered_by_a_crash_and_by_a_stop_too() -> None:
    """Every waiting caller is released, whatever happens."""
    async with watching(ScriptedCheck(connects=[after(1, ValueError()), hang])) as bench:
        await bench.watch.force()
        assert bench.events == [Event.BEGUN, Event.CRASHED]
        waiting = asyncio.create_task(bench.watch.force())
        await settle()
        assert not waiting.done()
    await asyncio.wait_for(waiting, 1)


@on_virtual_time
async def test_force_that_is_overtaken_by_a_stop_returns() -> None:
    """The attempt that it asked for never begins."""
    async with watching(ScriptedCheck(connects=[REFUSED])) as bench:
        waiting = asyncio.create_task(bench.watch.force())
        await asyncio.sleep(0)
    await asyncio.wait_for(waiting, 1)
    assert len(bench.asked) == 1


@on_virtual_time
async def test_force_after_the_end_returns_at_once() -> None:
    """Nobody would ever answer."""
    async with watching(ScriptedCheck()) as bench:
        pass
    await asyncio.wait_for(bench.watch.force(), 1)


# What is too early for an answer


@on_virtual_time
@pytest.mark.parametrize("seconds", [0, -1.0, 1e-300])
async def test_a_check_for_which_it_is_too_early_without_end_waits_between_attempts(seconds: float) -> None:
    """However soon it asks for the next one: otherwise it would take all the CPU."""
    early = TooEarly(Reason.HEARTBEAT, "not yet", seconds=seconds)
    async with watching(ScriptedCheck(connects=[early] * 3)) as bench:
        assert len(bench.asked) == 1
        await until(1)
        assert len(bench.asked) == 4
        assert bench.it.status is Status.HEALTHY


@on_virtual_time
@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), "1s", None])
async def test_a_time_that_is_none_is_a_crash_like_any_other(seconds: Any) -> None:
    """The attempts go on."""
    early = TooEarly(Reason.HEARTBEAT, "not yet", seconds=seconds)
    async with watching(ScriptedCheck(connects=[early])) as bench:
        assert bench.it.trouble.reason is Reason.INTERNAL
        await until(5)
        assert bench.it.status is Status.HEALTHY


# Looking out for what is absent


class Lookout(ScriptedCheck):
    """A check that looks out every 250 ms."""

    look_every = 0.25

    def __init__(self, *, connects: Any) -> None:
        super().__init__(connects=connects)
        self.there: bool | Exception = False
        self.looks = 0

    async def present(self) -> bool:
        self.looks += 1
        if isinstance(self.there, Exception):
            raise self.there
        return self.there


@on_virtual_time
async def test_what_comes_into_sight_is_tried_at_once() -> None:
    """Long before the back-off is over."""
    check = Lookout(connects=[REFUSED] * 4)
    async with watching(check) as bench:
        await until(40.1)
        check.there = True
        await until(41)
        assert bench.asked == [0, 5, 15, 35, 40.25]
        assert bench.it.status is Status.HEALTHY


@on_virtual_time
async def test_what_stays_in_sight_but_refuses_is_left_to_the_back_off() -> None:
    """Only its coming is news: it is not tried every 250 ms."""
    check = Lookout(connects=[REFUSED] * 4)
    check.there = True
    async with watching(check) as bench:
        await until(40)
        assert bench.asked == [0, 5, 15, 35]


@on_virtual_time
async def test_a_lookout_that_crashes_harms_nobody() -> None:
    """The attempts go on as planned, and it is not asked again in the same wait."""
    check = Lookout(connects=[REFUSED] * 3)
    check.there = OSError("too many open files")
    async with watching(check) as bench:
        await until(34)
        assert bench.asked == [0, 5, 15]
        assert check.looks == 3, "one for each wait"
        await until(36)
        assert bench.it.status is Status.HEALTHY


# Suspended


@on_virtual_time
async def test_a_probe_that_was_due_while_suspended_is_spread_again() -> None:
    """So that not all services catch up in step: it comes, and then starts a new beat at a random share."""
    async with watching(ScriptedCheck()) as bench:
        await until(50)
        bench.clock.suspend(600)
        await until(76)
        assert bench.probed() == [0, 15, 45, 75]
        await until(140)
        assert bench.probed() == [0, 15, 45, 75, 90, 120]


@on_virtual_time
async def test_after_a_suspend_old_results_are_unknown_and_no_storm_follows() -> None:
    """Stale at the first read; one attempt then, not one for each that was missed."""
    async with watching(ScriptedCheck()) as bench:
        await until(50)
        bench.clock.suspend(3600)
        assert (bench.it.status, bench.it.trouble.reason) == (Status.UNKNOWN, Reason.STALE)
        await until(80)
        assert bench.it.status is Status.HEALTHY
        assert len(bench.times(Event.ANSWERED_GOOD)) == 4


# Stop


@pytest.mark.parametrize("moment", [0.5, 10, 15.5, 60.5])
@on_virtual_time
async def test_a_stop_is_immediate_at_any_moment(moment: float) -> None:
    """In connect, idle, in a probe, in a canary: it takes no time, and leaves nothing (`watching` looks)."""
    check = ScriptedCheck(connects=[after(1), hang], probes=[GOOD, hang])
    async with watching(check, WITH_CANARY):
        await until(moment)
        before = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() == before


@pytest.mark.parametrize("reported", [True, False], ids=["as its cause", "in the context alone"])
def test_what_was_waited_for_is_found_behind_a_timeout(reported: bool) -> None:
    """Python up to 3.11.2 raises asyncio's TimeoutError from nothing."""
    failure = Failure(Reason.DNS, "the resolver does not answer")

    def time_out() -> None:
        try:
            raise asyncio.CancelledError from failure
        except asyncio.CancelledError as cancelled:
            if reported:
                raise TimeoutError from cancelled
            raise TimeoutError  # noqa: B904

    with pytest.raises(TimeoutError) as raised:
        time_out()
    assert waited_for(raised.value) is failure
