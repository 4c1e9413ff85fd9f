"""All services under watch together: start, stop, force-check, and how little one disturbs another."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

import pytest
from connection_exporter.core.health import Event, Reason, Status
from connection_exporter.core.retry import Policy
from connection_exporter.kind import About, Failure, Observation
from connection_exporter.monitor.errors import NotRunning, TooSoon, UnknownService
from connection_exporter.monitor.record import Transition
from connection_exporter.monitor.supervisor import STOP_WITHIN, Supervisor
from support.logs import captured_logs
from support.scripted import BAD, GOOD, REFUSED, Journal, ScriptedCheck, Step, after, hang, service
from support.virtual_time import VirtualClock, on_virtual_time

POLICY = Policy(interval=30, timeout=5, retries=3, retry_delay=5, max_retry_delay=30, canary=None)
OVER = 1.01
"""Seconds after which another forced round may begin."""


class Bench:
    """Services by name, and what supervisor them."""

    def __init__(self, checks: dict[str, ScriptedCheck], rand: Callable[[], float]) -> None:
        self.clock = VirtualClock()
        self.checks = checks
        services = [service(check, POLICY, name) for name, check in checks.items()]
        self.board = Journal(services, self.clock)
        self.supervisor = Supervisor(services, self.board, rand=rand)
        self.reported: list[Transition] = []
        self.board.subscribe(self.reported.append)

    def status(self, name: str) -> Status:
        return self.board.record(name).status

    def probes(self) -> dict[str, int]:
        return {name: sum(len(s.probed) for s in check.made) for name, check in self.checks.items()}


def bench_of(*, rand: Callable[[], float] = lambda: 0.5, **checks: ScriptedCheck) -> Bench:
    return Bench(checks, rand)


@asynccontextmanager
async def running(
    *, rand: Callable[[], float] = lambda: 0.5, **checks: ScriptedCheck
) -> AsyncIterator[Bench]:
    """Watch them while the block runs; then see that nothing is left open."""
    bench = Bench(checks, rand)
    async with bench.supervisor:
        yield bench
    assert [check.open for check in checks.values()] == [[]] * len(checks)


# Start and stop


@on_virtual_time
async def test_first_starts_are_spread_over_two_seconds() -> None:
    """In the order of the config, evenly."""
    async with running(a=ScriptedCheck(), b=ScriptedCheck(), c=ScriptedCheck(), d=ScriptedCheck()) as bench:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(3)
        starts = [check.asked[0] - began for check in bench.checks.values()]
        assert starts == pytest.approx([0, 0.5, 1, 1.5], abs=0.02)


@on_virtual_time
async def test_monitoring_is_active_only_inside_the_block() -> None:
    """Not before start, and not after stop."""
    bench = bench_of(it=ScriptedCheck())
    seen = [bench.board.active]
    async with bench.supervisor:
        seen.append(bench.board.active)
    assert [*seen, bench.board.active] == [False, True, False]


@on_virtual_time
async def test_on_stop_every_service_becomes_unknown_once() -> None:
    """Whatever it was in: healthy, unhealthy, disconnected, in the middle of a connect or a probe."""
    async with running(
        healthy=ScriptedCheck(),
        unhealthy=ScriptedCheck(probes=[BAD] * 9),
        disconnected=ScriptedCheck(connects=[REFUSED] * 9),
        connecting=ScriptedCheck(connects=[hang] * 9),
        probing=ScriptedCheck(probes=[GOOD, hang]),
    ) as bench:
        await asyncio.sleep(18.5)
        bench.reported.clear()
        before = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() == before
    assert Counter((t.name, t.status) for t in bench.reported) == {
        (n, Status.UNKNOWN): 1 for n in bench.checks
    }
    assert [bench.board.events(name).count(Event.STOPPED) for name in bench.checks] == [1] * 5
    await asyncio.sleep(1000)
    assert {bench.board.record(name).trouble.message for name in bench.checks} == {"monitoring has stopped"}


@on_virtual_time
async def test_a_stop_before_the_first_attempt_tells_nobody() -> None:
    """They were unknown, and still are."""
    async with running(a=ScriptedCheck(), b=ScriptedCheck()) as bench:
        pass
    assert bench.reported == []
    assert bench.checks["b"].asked == []


async def never_mind() -> Observation:
    """Go on as if nothing had been cancelled, against the rule."""
    try:
        return await hang()
    except asyncio.CancelledError:
        return GOOD


async def turn_it_into_a_failure() -> Observation:
    try:
        return await hang()
    except asyncio.CancelledError:
        raise Failure(Reason.RESET, "cut off") from None


@pytest.mark.parametrize("step", [never_mind, turn_it_into_a_failure])
@pytest.mark.parametrize("place", ["connects", "probes", "closes"])
@on_virtual_time
async def test_a_check_that_swallows_its_cancellation_cannot_hold_up_the_stop(place: str, step: Step) -> None:
    """Whatever it makes of it, it was called once, and the watch ends."""
    check = ScriptedCheck()
    {"connects": check.connects, "probes": check.probes, "closes": check.closes}[place].append(step)
    async with running(it=check):
        await asyncio.sleep(1)
        if place == "closes":
            check.made[0].lose()
            await asyncio.sleep(0.1)
        before = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() == before


async def hang_for_ever() -> Observation:
    """Swallow every cancellation."""
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
        if RELEASE:
            return GOOD


RELEASE: list[bool] = []


@pytest.mark.parametrize("place", ["connects", "probes", "closes"])
@on_virtual_time
async def test_a_check_that_cannot_be_stopped_is_abandoned(place: str) -> None:
    """A stop and a reload end after `STOP_WITHIN`, and the log names the service."""
    RELEASE.clear()
    stuck, other = ScriptedCheck(), ScriptedCheck()
    {"connects": stuck.connects, "probes": stuck.probes, "closes": stuck.closes}[place].append(hang_for_ever)
    bench = bench_of(stuck=stuck, other=other)
    loop = asyncio.get_running_loop()
    with captured_logs() as logged:
        async with bench.supervisor:
            await asyncio.sleep(5)
            before = loop.time()
            await bench.supervisor.change([service(ScriptedCheck(), POLICY, "stuck")], removed=["other"])
            assert loop.time() - before < STOP_WITHIN + 1
            await asyncio.sleep(1)
            assert bench.status("stuck") is Status.HEALTHY, "its successor is not disturbed by it"
    errors = [line["task"] for line in logged if line["event"] == "task_abandoned"]
    assert errors == ["service stuck"]
    RELEASE.append(True)
    await asyncio.sleep(2)
    assert bench.status("stuck") is Status.UNKNOWN


@on_virtual_time
async def test_an_error_in_the_block_stops_everything_too() -> None:
    """And comes out as it is."""
    bench = bench_of(it=ScriptedCheck())
    with pytest.raises(LookupError, match="of the caller"):  # noqa: PT012 - the block is what is tested
        async with bench.supervisor:
            await asyncio.sleep(1)
            raise LookupError("of the caller")
    assert bench.status("it") is Status.UNKNOWN
    assert bench.checks["it"].open == []


@on_virtual_time
async def test_a_watch_that_dies_takes_the_whole_monitor_with_it() -> None:
    """A dead monitor must never look like a quiet one."""
    bench = bench_of(it=ScriptedCheck(), other=ScriptedCheck())

    def broken(transition: Transition) -> None:
        if transition.status is Status.CONNECTING:
            raise RuntimeError("a mistake of ours")

    bench.board.subscribe(broken)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with bench.supervisor:
            await asyncio.sleep(1000)
    assert caught.group_contains(RuntimeError, match="a mistake of ours")
    assert not bench.board.active


@on_virtual_time
async def test_a_service_can_be_added_and_ended_while_the_others_go_on() -> None:
    """Its connection closes, and nobody else notices."""
    async with running(it=ScriptedCheck()) as bench:
        late = bench.checks["late"] = ScriptedCheck()
        bench.board.add(service(late, POLICY, "late"))
        bench.supervisor.start(service(late, POLICY, "late"))
        await asyncio.sleep(1)
        assert bench.status("late") is Status.HEALTHY
        await bench.supervisor.stop("late")
        bench.board.remove("late")
        assert late.open == []
        with pytest.raises(KeyError):
            await bench.supervisor.force_check("late")
        with pytest.raises(KeyError):
            await bench.supervisor.stop("late")
        await bench.supervisor.force_check()
        await asyncio.sleep(100)
        assert bench.status("it") is Status.HEALTHY


@on_virtual_time
async def test_a_change_that_a_stop_overtakes_starts_nothing_again() -> None:
    """Or nobody would end what it has started, and the stop would wait for that forever."""

    async def in_some_turns() -> Observation:
        for _ in range(9):
            await asyncio.sleep(0)
        return GOOD

    late = ScriptedCheck()
    async with running(it=ScriptedCheck(), other=ScriptedCheck(closes=[in_some_turns])) as bench:
        await asyncio.sleep(5)
        services = [service(late, POLICY, name) for name in bench.checks]
        changing = asyncio.create_task(bench.supervisor.change(services, removed=()))
        await asyncio.sleep(0)
    with pytest.raises(NotRunning):
        await changing
    assert late.asked == []


@on_virtual_time
async def test_a_service_that_is_being_exchanged_is_still_known() -> None:
    """Who has it checked meanwhile waits until the old one has ended; the new one is then tried at once anyway."""
    late = ScriptedCheck()
    async with running(it=ScriptedCheck(closes=[after(1)])) as bench:
        await asyncio.sleep(5)
        changing = asyncio.create_task(bench.supervisor.change([service(late, POLICY, "it")], removed=()))
        await asyncio.sleep(0.5)
        await bench.supervisor.force_check("it")
        await changing
        await asyncio.sleep(OVER)
        assert bench.status("it") is Status.HEALTHY
        await bench.supervisor.force_check("it")
    assert len(late.made) == 1


# Neighbours


@on_virtual_time
async def test_one_broken_check_never_disturbs_another() -> None:
    """Crashes, hangs and failures beside it change nothing for the one that is well."""
    async with running(
        well=ScriptedCheck(),
        crashing=ScriptedCheck(connects=[ValueError()] * 99),
        hanging=ScriptedCheck(connects=[hang] * 99),
        refused=ScriptedCheck(connects=[REFUSED] * 99),
    ) as bench:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(300)
        beat = [at - began for at in bench.checks["well"].made[0].probed]
        assert beat == pytest.approx([0, *range(15, 300, 30)], abs=0.02)
        assert [t.status for t in bench.reported if t.name == "well"] == [Status.CONNECTING, Status.HEALTHY]
        assert {name: bench.status(name).value for name in bench.checks} == {
            "well": "healthy",
            "crashing": "unknown",
            "hanging": "disconnected",
            "refused": "disconnected",
        }


@on_virtual_time
async def test_two_hundred_services_that_fail_together_do_not_return_together() -> None:
    """After the attempt at once, each back-off is spread: no tenth of a second sees more than a few."""
    checks = {f"s{n}": ScriptedCheck() for n in range(200)}
    async with running(rand=random.Random(7).random, **checks) as bench:
        await asyncio.sleep(20)
        down = asyncio.get_running_loop().time()
        for check in checks.values():
            check.connects = [REFUSED] * 3
            check.open[0].lose()
        await asyncio.sleep(120)
        later = [at - down for check in checks.values() for at in check.asked if at > down + 1]
        assert max(Counter(int(at * 10) for at in later).values()) < 30
        assert {bench.status(name) for name in checks} == {Status.HEALTHY}


@on_virtual_time
async def test_the_losses_of_a_thousand_are_reported_before_the_first_of_them_is_closed() -> None:
    """And before any other work that comes up meanwhile. All are back in the end."""
    checks = {f"s{n}": ScriptedCheck() for n in range(1000)}
    async with running(rand=random.Random(7).random, **checks) as bench:
        await asyncio.sleep(20)
        sessions = [check.open[0] for check in checks.values()]
        open_then: list[int] = []
        bench.board.subscribe(lambda _: open_then.append(sum(not session.closed for session in sessions)))
        for session in sessions:
            session.lose()
        await asyncio.sleep(0)
        assert open_then == [1000] * 1000, "one iteration of the loop is enough"
        await asyncio.sleep(2)
        assert all(session.closed for session in sessions)
        assert {bench.status(name) for name in checks} == {Status.HEALTHY}


# Results too old


@on_virtual_time
async def test_results_too_old_are_found_within_a_second_though_nobody_reads() -> None:
    """After a suspend, say; subscribers are called."""
    async with running(it=ScriptedCheck()) as bench:
        await asyncio.sleep(2)
        bench.clock.suspend(3600)
        await asyncio.sleep(1.01)
        assert (bench.reported[-2].status, bench.reported[-2].reason) == (Status.UNKNOWN, Reason.STALE)
        assert bench.status("it") is Status.HEALTHY, (
            "it was probed at once, and not after the rest of its interval"
        )


@on_virtual_time
async def test_a_check_that_is_due_after_a_suspend_comes_at_its_time() -> None:
    """And not later by the length of the suspend, as the timers do that ran meanwhile."""
    async with running(a=ScriptedCheck(), b=ScriptedCheck()) as bench:
        await asyncio.sleep(20)
        planned = bench.board.record("a").next_attempt_at
        assert planned is not None
        left = planned - bench.clock.wall()
        assert left > 20
        bench.clock.suspend(left - 10)
        await asyncio.sleep(9)
        before = bench.probes()
        await asyncio.sleep(2)
        assert bench.probes() == {name: count + 1 for name, count in before.items()}


# Force-check


@on_virtual_time
async def test_a_forced_check_makes_an_attempt_of_each_and_waits_for_all() -> None:
    """It returns when the slowest has answered."""
    async with running(a=ScriptedCheck(), b=ScriptedCheck(probes=[GOOD, after(2)])) as bench:
        await asyncio.sleep(5)
        began = asyncio.get_running_loop().time()
        await bench.supervisor.force_check()
        assert asyncio.get_running_loop().time() - began == pytest.approx(2, abs=0.02)
        assert bench.probes() == {"a": 2, "b": 2}
        assert bench.board.forced_checks == 1


@on_virtual_time
async def test_a_forced_check_of_one_leaves_the_others_alone() -> None:
    """By its name."""
    async with running(a=ScriptedCheck(), b=ScriptedCheck()) as bench:
        await asyncio.sleep(5)
        await bench.supervisor.force_check("b")
        assert bench.probes() == {"a": 1, "b": 2}


@on_virtual_time
async def test_a_thousand_callers_at_once_share_one_round() -> None:
    """One attempt per service, one count."""
    async with running(a=ScriptedCheck(), b=ScriptedCheck(probes=[GOOD, after(1)])) as bench:
        await asyncio.sleep(5)
        await asyncio.gather(*(bench.supervisor.force_check() for _ in range(1000)))
        assert bench.probes() == {"a": 2, "b": 2}
        assert bench.board.forced_checks == 1


@on_virtual_time
async def test_who_asks_for_one_during_a_round_of_all_shares_it() -> None:
    """And waits for its end."""
    async with running(a=ScriptedCheck(), b=ScriptedCheck(probes=[GOOD, after(2)])) as bench:
        await asyncio.sleep(5)
        all_of_them = asyncio.create_task(bench.supervisor.force_check())
        await asyncio.sleep(1)
        await bench.supervisor.force_check("a")
        assert all_of_them.done() or bench.status("b") is Status.HEALTHY
        await all_of_them
        assert (bench.probes(), bench.board.forced_checks) == ({"a": 2, "b": 2}, 1)


@on_virtual_time
async def test_who_asks_for_all_during_a_round_of_one_joins_its_attempt() -> None:
    """The others are asked too."""
    async with running(a=ScriptedCheck(), b=ScriptedCheck(probes=[GOOD, after(2)])) as bench:
        await asyncio.sleep(5)
        one = asyncio.create_task(bench.supervisor.force_check("b"))
        await asyncio.sleep(1)
        await bench.supervisor.force_check()
        await one
        assert bench.probes() == {"a": 2, "b": 2}


@on_virtual_time
async def test_another_round_within_a_second_is_too_soon() -> None:
    """And says how long to wait; one that waited so long is not."""
    async with running(it=ScriptedCheck()) as bench:
        await asyncio.sleep(5)
        await bench.supervisor.force_check()
        await asyncio.sleep(0.6)
        for name in (None, "it"):
            with pytest.raises(TooSoon) as refused:
                await bench.supervisor.force_check(name)
            assert refused.value.retry_after == pytest.approx(0.4, abs=0.02)
        await asyncio.sleep(refused.value.retry_after + 0.001)
        await bench.supervisor.force_check("it")
        assert bench.board.forced_checks == 2


@on_virtual_time
async def test_nobody_is_checked_who_is_not_known() -> None:
    """And an unknown name starts no round."""
    async with running(it=ScriptedCheck()) as bench:
        with pytest.raises(UnknownService, match="no service is called 'nobody'; known: it"):
            await bench.supervisor.force_check("nobody")
        assert bench.board.forced_checks == 0


@on_virtual_time
async def test_nothing_is_checked_before_start_and_after_stop() -> None:
    """There is nobody to do it."""
    bench = bench_of(it=ScriptedCheck())
    with pytest.raises(NotRunning):
        await bench.supervisor.force_check()
    async with bench.supervisor:
        await asyncio.sleep(1)
    with pytest.raises(NotRunning):
        await bench.supervisor.force_check("it")


@on_virtual_time
async def test_a_caller_who_leaves_does_not_end_the_round_of_the_others() -> None:
    """A client that hangs up is its own affair."""
    async with running(it=ScriptedCheck(probes=[GOOD, after(2)])) as bench:
        await asyncio.sleep(5)
        impatient, patient = (asyncio.create_task(bench.supervisor.force_check()) for _ in range(2))
        await asyncio.sleep(1)
        impatient.cancel()
        await patient
        assert bench.board.events("it")[-1] is Event.ANSWERED_GOOD
        assert bench.probes() == {"it": 2}


@on_virtual_time
async def test_a_stop_releases_those_who_wait_for_a_round() -> None:
    """They report that nothing is running any more."""
    async with running(it=ScriptedCheck(probes=[GOOD, hang])) as bench:
        await asyncio.sleep(5)
        waiting = asyncio.create_task(bench.supervisor.force_check())
        await asyncio.sleep(1)
    with pytest.raises(NotRunning):
        await waiting


@on_virtual_time
async def test_a_round_ends_though_one_of_its_services_is_ended_meanwhile() -> None:
    """As by a reload, just as it begins or in the middle of an attempt."""
    for wait in (0.0, 1.0):
        async with running(it=ScriptedCheck(), other=ScriptedCheck(probes=[GOOD, hang])) as bench:
            await asyncio.sleep(5)
            waiting = asyncio.create_task(bench.supervisor.force_check())
            await asyncio.sleep(wait)
            await bench.supervisor.stop("other")
            await asyncio.wait_for(waiting, 1)
            await asyncio.sleep(OVER)
            await bench.supervisor.force_check()


@on_virtual_time
async def test_a_forced_round_ends_within_two_timeouts_at_the_worst() -> None:
    """A probe that hangs, then a canary that hangs."""
    check = ScriptedCheck(connects=[GOOD, GOOD, hang], probes=[GOOD, after(4.9)])
    policy = Policy(interval=30, timeout=5, retry_delay=5, canary=3600)
    board = Journal([service(check, policy)], VirtualClock())
    async with Supervisor([service(check, policy)], board, rand=lambda: 0.5) as supervisor:
        await asyncio.sleep(6)
        check.connects = [hang]
        began = asyncio.get_running_loop().time()
        await supervisor.force_check()
        assert asyncio.get_running_loop().time() - began == pytest.approx(9.9, abs=0.1)
        assert board.record("it").status is Status.UNHEALTHY


@pytest.mark.parametrize("place", ["first attempt", "probe", "canary"])
@on_virtual_time
async def test_a_round_ends_though_a_check_cannot_be_stopped(place: str) -> None:
    """Or nobody could force a check of any service before the exporter is started again."""
    RELEASE.clear()
    stuck, other = ScriptedCheck(), ScriptedCheck()
    steps = stuck.probes if place == "probe" else stuck.connects
    steps += [hang_for_ever] if place == "first attempt" else [GOOD, hang_for_ever]
    policy = POLICY._replace(canary=3600)
    services = [service(stuck, policy, "stuck"), service(other, policy, "other")]
    board = Journal(services, VirtualClock())
    try:
        async with Supervisor(services, board, rand=lambda: 0.5) as supervisor:
            await asyncio.sleep(5)
            for _ in range(2):
                await asyncio.wait_for(supervisor.force_check(), 60)
                await asyncio.sleep(OVER)
            assert board.events("other").count(Event.CANARY_GOOD) == 2
    finally:
        RELEASE.append(True)
        await asyncio.sleep(2)


@on_virtual_time
async def test_a_round_in_which_all_sessions_are_lost_makes_no_canary() -> None:
    """There is no session, even before its cleanup has run."""
    checks = [ScriptedCheck(connects=[GOOD, REFUSED], probes=[GOOD, hang]) for _ in range(100)]
    policy = Policy(interval=30, timeout=5, retry_delay=5, canary=3600)
    services = [service(check, policy, f"s{number}") for number, check in enumerate(checks)]
    async with Supervisor(services, Journal(services, VirtualClock()), rand=lambda: 0.5) as supervisor:
        await asyncio.sleep(10)
        await supervisor.force_check()
        await asyncio.sleep(1)
        assert {len(check.asked) for check in checks} == {2}, "the first attempt, and the one after the loss"


# Dependencies


async def after_the_database_recovers(
    depends_on: dict[str, tuple[str, ...]], **checks: ScriptedCheck
) -> dict[str, float | None]:
    """Return when each service became healthy, in seconds after the database, which fails for 40 s; ``None`` if never.

    By then, services that fail from the beginning wait for their next attempt, which is due 26 s later.
    """
    database = ScriptedCheck(connects=[REFUSED] * 4)
    async with running(rand=lambda: 0.5, database=database, **checks) as bench:
        bench.board.describe({name: About(depends_on=depends_on.get(name, ())) for name in bench.checks})
        await asyncio.sleep(40)
        assert {bench.status(name) for name in bench.checks} <= {Status.DISCONNECTED, Status.UNHEALTHY}
        recovered = bench.clock.wall()
        await bench.supervisor.force_check("database")
        await asyncio.sleep(10)
        healthy = {t.name: t.at - recovered for t in bench.reported if t.status is Status.HEALTHY}
        return {name: healthy.get(name) for name in checks}


@on_virtual_time
async def test_what_depends_on_a_service_that_has_recovered_is_attempted_at_once() -> None:
    """Directly or through others, whether its connection is down or its answers are bad."""
    took = await after_the_database_recovers(
        {"api": ("database",), "web": ("api",), "page": ("database",)},
        api=ScriptedCheck(connects=[REFUSED] * 4),
        web=ScriptedCheck(connects=[REFUSED] * 4),
        page=ScriptedCheck(probes=[BAD] * 3),
    )
    assert took == {name: pytest.approx(0, abs=0.1) for name in ("api", "web", "page")}


@on_virtual_time
async def test_only_what_has_no_other_cause_is_attempted_then() -> None:
    """Not a service that does not depend on it, or that depends on another one that still fails."""
    took = await after_the_database_recovers(
        {"api": ("database", "queue")},
        api=ScriptedCheck(connects=[REFUSED] * 4),
        queue=ScriptedCheck(connects=[REFUSED] * 9),
        other=ScriptedCheck(connects=[REFUSED] * 4),
    )
    assert took == {"api": None, "queue": None, "other": None}


@on_virtual_time
async def test_an_attempt_in_flight_is_not_repeated_when_the_cause_recovers() -> None:
    """It may succeed; if it fails, the usual delay follows."""
    api = ScriptedCheck(
        connects=[REFUSED, REFUSED, REFUSED, hang]
    )  # the last ends a second after the recovery
    await after_the_database_recovers({"api": ("database",)}, api=api)
    assert len(api.asked) == 4


@on_virtual_time
async def test_a_canary_is_repeated_at_once_when_the_cause_recovers() -> None:
    """Otherwise, a service whose canary is bad would stay unhealthy, and page, until its next canary."""
    api = ScriptedCheck(connects=[GOOD] + [REFUSED] * 4)
    services = [
        service(ScriptedCheck(connects=[REFUSED] * 4), POLICY, "database"),
        service(api, POLICY._replace(canary=3600), "api"),
    ]
    board = Journal(services, VirtualClock())
    board.describe({"database": About(), "api": About(depends_on=("database",))})
    async with Supervisor(services, board, rand=lambda: 0.5) as supervisor:
        await asyncio.sleep(2)
        await supervisor.force_check("api")
        await asyncio.sleep(38)
        assert board.record("api").status is Status.UNHEALTHY
        await supervisor.force_check("database")
        await asyncio.sleep(1)
        assert board.record("api").status is Status.HEALTHY


@on_virtual_time
async def test_services_are_attempted_one_after_another_when_their_cause_recovers() -> None:
    """A thousand probes at once would delay each other, and what they measure."""
    names = [f"api{number}" for number in range(20)]
    checks = {name: ScriptedCheck(probes=[BAD] * 3) for name in names}
    took = await after_the_database_recovers(dict.fromkeys(names, ("database",)), **checks)
    times = sorted(at for at in took.values() if at is not None)
    assert len(times) == len(names)
    assert min(later - sooner for sooner, later in pairwise(times)) > 0.005


@on_virtual_time
async def test_healthy_dependencies_of_a_service_that_fails_are_checked_at_once() -> None:
    """Directly or through others. A frozen one would show it only in its next probe, 27 s later."""
    checks = {
        "frozen": ScriptedCheck(connects=[GOOD] + [REFUSED] * 9),
        "proxy": ScriptedCheck(),
        "api": ScriptedCheck(connects=[GOOD] + [REFUSED] * 9),
        "other": ScriptedCheck(),
    }
    depends_on = {"proxy": ("frozen",), "api": ("proxy",)}
    async with running(rand=lambda: 0.5, **checks) as bench:
        bench.board.describe({name: About(depends_on=depends_on.get(name, ())) for name in checks})
        await asyncio.sleep(20)
        assert {bench.status(name) for name in checks} == {Status.HEALTHY}
        before, broke = bench.probes(), bench.clock.wall()
        checks["frozen"].probes.append(hang)
        checks["api"].made[-1].lose()
        await asyncio.sleep(6)
        since = {t.name: t.at - broke for t in bench.reported if t.at >= broke}
        assert since == {"api": pytest.approx(0, abs=0.1), "frozen": pytest.approx(5, abs=0.1)}
        assert bench.board.record("api").causes == ("frozen",)
        assert bench.probes() == {**before, "frozen": before["frozen"] + 1, "proxy": before["proxy"] + 1}


@on_virtual_time
async def test_a_canary_shows_that_a_dependency_lets_nobody_log_in() -> None:
    """Its held session answers, but a service that needs a new connection fails."""
    database = ScriptedCheck(connects=[GOOD] + [REFUSED] * 9)
    api = ScriptedCheck(probes=[GOOD, BAD])
    services = [
        service(database, POLICY._replace(canary=3600), "database"),
        service(api, POLICY, "api"),
    ]
    board = Journal(services, VirtualClock())
    board.describe({"database": About(), "api": About(depends_on=("database",))})
    async with Supervisor(services, board, rand=lambda: 0.5) as supervisor:
        await asyncio.sleep(4)
        await supervisor.force_check("api")
        await asyncio.sleep(0.1)
        assert board.record("database").status is Status.UNHEALTHY
        assert board.record("api").causes == ("database",)


@on_virtual_time
async def test_a_dependency_is_checked_once_a_second_however_many_fail() -> None:
    """And once more after the last one has failed: it may have frozen with that one."""
    checks = {f"api{number}": ScriptedCheck(connects=[GOOD] + [REFUSED] * 9) for number in range(40)}
    database = ScriptedCheck()
    async with running(rand=lambda: 0.5, database=database, **checks) as bench:
        bench.board.describe(
            {"database": About()} | {name: About(depends_on=("database",)) for name in checks}
        )
        await asyncio.sleep(20)
        (session,) = database.made
        began, known = asyncio.get_running_loop().time(), len(session.probed)
        for check in checks.values():
            last = asyncio.get_running_loop().time()
            check.made[-1].lose()
            await asyncio.sleep(0.045)
        await asyncio.sleep(2)
        since = [at - began for at in session.probed[known:]]
        assert since == pytest.approx([0, 1, 2], abs=0.05)
        assert session.probed[-1] > last


@on_virtual_time
async def test_no_dependency_is_checked_because_others_start() -> None:
    """They are connecting, but have not failed. A thousand of them would have each database checked three times."""
    checks = {"database": ScriptedCheck(), **{f"api{number}": ScriptedCheck() for number in range(20)}}
    async with running(rand=lambda: 0.5, **checks) as bench:
        bench.board.describe(
            {name: About(depends_on=() if name == "database" else ("database",)) for name in checks}
        )
        await asyncio.sleep(5)
        assert bench.probes() == dict.fromkeys(checks, 1)
        assert {bench.status(name) for name in checks} == {Status.HEALTHY}


@pytest.mark.parametrize(
    "database", [ScriptedCheck(connects=[REFUSED] * 99), ScriptedCheck(probes=[BAD] * 99)]
)
@on_virtual_time
async def test_a_dependency_that_has_failed_is_not_checked_again(database: ScriptedCheck) -> None:
    """It explains the fault already, and its own delays hold."""
    api = ScriptedCheck()
    async with running(database=database, api=api) as bench:
        bench.board.describe({"database": About(), "api": About(depends_on=("database",))})
        await asyncio.sleep(70)
        before = len(database.asked), bench.probes()["database"]
        api.made[-1].lose()
        await asyncio.sleep(0.5)
        assert (len(database.asked), bench.probes()["database"]) == before


@on_virtual_time
async def test_dependencies_are_checked_few_in_each_iteration_of_the_event_loop() -> None:
    """A thousand checks that start together blocked it for 100 ms."""
    names = [f"database{number}" for number in range(100)]
    iteration, began = 0, Counter[int]()

    def count() -> None:
        nonlocal iteration
        iteration += 1
        counting = asyncio.get_running_loop().call_soon(count)
        if sum(began.values()) == len(names):
            counting.cancel()

    async def note() -> Observation:
        began[iteration] += 1
        return GOOD

    checks = {name: ScriptedCheck(probes=[GOOD, note]) for name in names}
    api = ScriptedCheck(connects=[GOOD] + [REFUSED] * 9)
    async with running(rand=lambda: 0.5, api=api, **checks) as bench:
        bench.board.describe({name: About() for name in names} | {"api": About(depends_on=tuple(names))})
        await asyncio.sleep(3)
        api.made[-1].lose()
        count()
        await asyncio.sleep(1)
    assert sum(began.values()) == len(names)
    assert max(began.values()) <= 8


@pytest.mark.parametrize(
    ("api", "canary"),
    [
        (ScriptedCheck(connects=[REFUSED] * 99), None),
        (ScriptedCheck(probes=[BAD] * 99), None),
        (ScriptedCheck(connects=[GOOD] + [REFUSED] * 99), 3600),
    ],
)
@on_virtual_time
async def test_a_service_is_not_attempted_each_time_that_a_dependency_recovers(
    api: ScriptedCheck, canary: float | None
) -> None:
    """At once the first time, and then at most once in `retry_delay`: its own delays are there to spare it."""
    checks = {f"database{number}": ScriptedCheck() for number in range(40)}
    services = [
        service(api, POLICY._replace(canary=canary), "api"),
        *(service(check, POLICY, name) for name, check in checks.items()),
    ]
    board = Journal(services, VirtualClock())
    board.describe({name: About() for name in checks} | {"api": About(depends_on=tuple(checks))})
    async with Supervisor(services, board, rand=lambda: 0.5) as supervisor:
        now = asyncio.get_running_loop().time
        await asyncio.sleep(2)
        await supervisor.force_check("api")
        await asyncio.sleep(200)
        assert board.record("api").status in (Status.DISCONNECTED, Status.UNHEALTHY)
        known, began = _attempts(api), now()
        for check in checks.values():
            check.made[-1].lose()
            await asyncio.sleep(0.25)
        since = [at - began for at in _attempts(api)[len(known) :]]
        assert since[0] == pytest.approx(0, abs=0.1)
        assert 2 <= len(since) <= 5, "two because of the dependencies, and those of its own plan"


def _attempts(check: ScriptedCheck) -> list[float]:
    """Return when each began: a connection, or a probe of an open one."""
    return sorted(check.asked + [at for session in check.made for at in session.probed if at > session.since])
