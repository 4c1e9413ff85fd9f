"""Batches: when checks are due, and that those of one batch do not keep each other's responses waiting."""

import asyncio
import socket
from itertools import pairwise
from math import isclose
from typing import Final

import pytest
from connection_exporter.core.health import Event
from connection_exporter.core.retry import Policy
from connection_exporter.kind import Observation
from connection_exporter.monitor.batches import Batches
from connection_exporter.monitor.deadlines import Deadlines
from connection_exporter.monitor.rate_limiter import RateLimiter
from connection_exporter.monitor.service_loop import ServiceLoop
from connection_exporter.monitor.supervisor import Supervisor
from hypothesis import given
from hypothesis import strategies as st
from support.scripted import BAD, EOF, GOOD, Journal, ScriptedCheck, hang, service
from support.virtual_time import VirtualClock, on_virtual_time

INTERVAL: Final = 30.0
POLICY: Final = Policy(interval=INTERVAL, timeout=5, retry_delay=5, canary=None)
MOMENTS = st.floats(min_value=-1e6, max_value=1e9)
INTERVALS = st.sampled_from([0.1, 0.3, 1.0, 7.0, 30.0, 86400.0])


@given(origin=MOMENTS, at=MOMENTS, interval=INTERVALS)
def test_a_slot_is_never_later_and_less_than_one_slot_earlier(
    origin: float, at: float, interval: float
) -> None:
    batches = Batches(origin=origin)
    slot, length = batches.slot_until(at, interval), interval / batches.slots
    assert at - length * 1.001 - 1e-5 <= slot <= at + length * 0.001 + 1e-5


@given(origin=MOMENTS, now=MOMENTS, rand=st.floats(min_value=0.0, max_value=1.0), interval=INTERVALS)
def test_a_random_slot_is_within_the_next_interval(
    origin: float, now: float, rand: float, interval: float
) -> None:
    slot = Batches(origin=origin).random_slot(now, interval, rand=rand)
    assert now - interval * 0.001 - 1e-5 <= slot <= now + interval * 1.001 + 1e-5


def test_each_slot_has_its_turn() -> None:
    """Random numbers choose all of them about equally often."""
    batches = Batches(origin=0.0)
    slots = [batches.random_slot(100.5, 8.0, rand=n / 800) for n in range(800)]
    assert len(set(slots)) == batches.slots
    assert min(map(slots.count, slots)) > 90


def test_a_beat_stays_on_its_slot_for_years() -> None:
    """An interval that no binary fraction equals, added a million times."""
    batches = Batches(origin=123.456)
    at = start = batches.random_slot(200.0, 0.3, rand=0.7)
    for _ in range(1_000_000):
        at = batches.slot_until(at + 0.3, 0.3)
    assert isclose(at - start, 300_000.0, rel_tol=1e-6)


@pytest.mark.parametrize(("services", "slots"), [(0, 8), (200, 8), (1000, 20), (10_000, 64)])
def test_more_services_have_more_slots(services: int, slots: int) -> None:
    """So that a batch has about 50 checks."""
    batches = Batches(origin=0.0)
    batches.resize(services)
    assert batches.slots == slots


@on_virtual_time
async def test_services_are_checked_at_few_moments_also_after_outages() -> None:
    """Fifty of them, a third of whose sessions end; never more than an interval passes between two checks."""
    clock = VirtualClock()
    checks = {f"s{n}": ScriptedCheck(probes=[GOOD, EOF] if n % 3 == 0 else []) for n in range(50)}
    services = [service(check, POLICY, name=name) for name, check in checks.items()]
    board = Journal(services, clock)
    numbers = iter(n * 0.618 % 1 for n in range(10_000))
    async with Supervisor(services, board, rand=lambda: next(numbers)):
        await asyncio.sleep(300)
        since = clock.monotonic()
        await asyncio.sleep(INTERVAL * 4)
    moments = [
        round(at - since, 1)
        for at, _, report in board.reports
        if report.event is Event.ANSWERED_GOOD and at > since
    ]
    assert len(moments) == 50 * 4
    assert len(set(moments)) <= Batches(origin=0.0).slots * 4
    for name in checks:
        times = [
            at for at, who, report in board.reports if who == name and report.event is Event.ANSWERED_GOOD
        ]
        assert max(b - a for a, b in pairwise(times[1:])) <= INTERVAL + 0.01


@on_virtual_time
async def test_canaries_start_together_with_checks() -> None:
    """The process wakes up for both at once. Never more than the longest period passes between two."""
    policy = POLICY._replace(canary=60)
    services = [service(ScriptedCheck(), policy, name=f"s{n}") for n in range(50)]
    board = Journal(services, VirtualClock())
    numbers = iter(n * 0.618 % 1 for n in range(10_000))
    async with Supervisor(services, board, rand=lambda: next(numbers)):
        await asyncio.sleep(600)
    slot, began = INTERVAL / Batches(origin=0.0).slots, board.reports[0][0]
    for each in services:
        times = board.times(Event.CANARY_GOOD, name=each.name)
        assert max((at - began) % slot for at in times) < 0.01
        assert all(60 * 0.9 - slot - 0.01 <= b - a <= 60 * 1.1 + 0.01 for a, b in pairwise(times))


@pytest.mark.parametrize("count", [1, 200])
async def test_the_latency_in_a_batch_is_that_of_one_check_alone(count: int) -> None:
    """It is counted in iterations of the event loop, of which each starts one check of the batch.

    Each check writes to a socket whose other end is read here, so its response has arrived as soon as it is sent.
    """
    batches = Batches(origin=0.0)
    loop = asyncio.get_running_loop()
    written: list[int] = []
    behind: list[int] = []
    all_read = asyncio.Event()

    class Response(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            behind.append(len(written) - written.index(int(data)))
            if len(behind) == count:
                all_read.set()

    async def check(number: int, waiter: asyncio.Future[None], end: socket.socket) -> None:
        await waiter
        written.append(number)
        end.send(str(number).encode())

    pairs = [socket.socketpair() for _ in range(count)]
    transports = [(await loop.create_connection(Response, sock=theirs))[0] for _, theirs in pairs]
    waiters = [loop.create_future() for _ in range(count)]
    tasks = [asyncio.create_task(check(n, waiters[n], pairs[n][0])) for n in range(count)]
    await asyncio.sleep(0)
    over = loop.create_future()
    over.cancel()
    for number, waiter in enumerate((over, *waiters)):
        batches.wake(f"address {number}", waiter)
    await asyncio.wait(tasks)
    await all_read.wait()
    assert max(behind) <= 2, "a response waited while other requests were sent"
    for (ours, _), transport in zip(pairs, transports, strict=True):
        ours.close()
        transport.close()


async def _turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@on_virtual_time
async def test_checks_of_one_address_follow_each_other() -> None:
    """Sent together, each would wait at the server for those before it, and show that as latency."""
    batches, loop = Batches(origin=0.0), asyncio.get_running_loop()
    one, two, over, three, elsewhere = (loop.create_future() for _ in range(5))
    for waiter in (one, two, over, three):
        batches.wake("a", waiter)
    batches.wake("b", elsewhere)
    over.cancel()
    await _turns()
    assert [waiter.done() for waiter in (one, two, three, elsewhere)] == [True, False, False, True]
    batches.checked("a")
    await _turns()
    assert (two.done(), three.done()) == (True, False)
    batches.checked("a")
    await _turns()
    assert three.done()
    batches.checked("a")
    batches.wake("a", again := loop.create_future())
    await _turns()
    assert again.done(), "an address that nobody checks is free"


@on_virtual_time
async def test_a_check_that_takes_long_delays_no_other_for_long() -> None:
    batches, loop = Batches(origin=0.0), asyncio.get_running_loop()
    waiters = [loop.create_future() for _ in range(4)]
    for waiter in waiters:
        batches.wake("frozen", waiter)
    await asyncio.sleep(0.04)
    assert [waiter.done() for waiter in waiters] == [True, False, False, False]
    await asyncio.sleep(0.02)
    assert all(waiter.done() for waiter in waiters)
    batches.wake("frozen", later := loop.create_future())
    await _turns()
    assert later.done()


@on_virtual_time
async def test_no_timer_wakes_the_process_after_a_batch() -> None:
    batches, loop = Batches(origin=0.0), asyncio.get_running_loop()
    for _ in range(3):
        waiters = [loop.create_future() for _ in range(3)]
        for waiter in waiters:
            batches.wake("a", waiter)
        for waiter in waiters:
            await waiter
            batches.checked("a")
    assert not batches._timers
    assert not batches._queues


class FastTimers(VirtualClock):
    """A clock that the timers of the loop are ahead of: 3 ms in an interval. Those of uvloop are by 1 ms at times."""

    def monotonic(self) -> float:
        return super().monotonic() * 0.9999


@on_virtual_time
async def test_a_service_whose_timer_is_early_does_not_wait_for_its_own_turn() -> None:
    clock = FastTimers()
    services = [service(ScriptedCheck(), POLICY)]
    board, began = Journal(services, clock), clock.monotonic()
    async with Supervisor(services, board, rand=lambda: 0.5):
        await asyncio.sleep(INTERVAL * 5)
    late = [
        (at - began) % (INTERVAL / Batches(origin=0).slots) for at in board.times(Event.ANSWERED_GOOD)[1:]
    ]
    assert len(late) >= 4
    assert max(late) < 0.01


@pytest.mark.parametrize("names", [("other", "lost", "next"), ("other", "next", "lost")])
@on_virtual_time
async def test_a_session_that_is_lost_in_its_turn_passes_it_on(names: tuple[str, ...]) -> None:
    """The first check of a batch breaks the session of another one, whose address has one more service."""
    checks = {name: ScriptedCheck() for name in names}
    lost, other = checks["lost"], checks["other"]

    async def break_session() -> Observation:
        lost.made[0].lose()
        return GOOD

    lost.connects = [GOOD, hang]
    other.address, other.probes = "elsewhere:1", [GOOD, break_session]
    services = [service(check, POLICY, name=name) for name, check in checks.items()]
    board = Journal(services, VirtualClock())
    async with Supervisor(services, board, rand=lambda: 0.5):
        await asyncio.sleep(INTERVAL)
    (at,) = board.times(Event.LOST, name="lost")
    assert abs(board.times(Event.ANSWERED_GOOD, name="next")[1] - at) < 0.01


class CancelsInItsTurn(Batches):
    """Cancels a task between the moment at which it is its turn and the moment at which it runs."""

    def __init__(self) -> None:
        super().__init__(origin=1000.0)
        self.task: asyncio.Task[None] | None = None

    def wake(self, address: str, waiter: asyncio.Future[bool]) -> None:
        super().wake(address, waiter)
        if self.task is not None:
            asyncio.get_running_loop().call_soon(self.task.cancel)


@on_virtual_time
async def test_a_service_that_is_stopped_in_its_turn_passes_it_on() -> None:
    batches, loop = CancelsInItsTurn(), asyncio.get_running_loop()
    check = ScriptedCheck()
    it = service(check, POLICY)
    watch = ServiceLoop(
        it,
        Journal([it], VirtualClock()),
        rand=lambda: 0.5,
        spawn=loop.create_task,
        delay=0,
        limiter=RateLimiter(),
        batches=batches,
        deadlines=Deadlines(),
    )
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(1)
    batches.task = task
    await asyncio.wait({task})
    assert len(check.made[0].probed) == 1, "it was not stopped in its turn"
    assert not batches._queues


@on_virtual_time
async def test_a_turn_in_which_nothing_is_due_is_passed_on() -> None:
    """A forced canary takes the place of the regular one, and still runs when the slot of that one begins."""
    check = ScriptedCheck(connects=[GOOD, hang])
    services = [service(check, POLICY._replace(interval=60, canary=60))]
    supervisor = Supervisor(services, Journal(services, VirtualClock()), rand=lambda: 0.5)
    async with supervisor:
        await asyncio.sleep(59)
        forced = asyncio.create_task(supervisor.force_check())
        await asyncio.sleep(1.1)
        assert not forced.done(), "the canary is over"
        assert not supervisor._batches._queues
        await forced


@on_virtual_time
async def test_few_waits_are_kept_that_a_canary_has_ended() -> None:
    """A thousand canaries in an interval, for which the timer of the slot goes on."""
    policy = Policy(interval=86400, timeout=5, retry_delay=5, canary=60)
    services = [service(ScriptedCheck(), policy, name=f"s{n}") for n in range(3)]
    supervisor = Supervisor(services, Journal(services, VirtualClock()), rand=lambda: 0.99)
    async with supervisor:
        await asyncio.sleep(60_000)
        assert sum(len(slot.waiting) for slot in supervisor._batches._due.values()) <= 2 * len(services)


@on_virtual_time
@pytest.mark.parametrize("answer", [GOOD, BAD])
async def test_no_wait_is_kept_that_a_forced_check_has_ended(answer: Observation) -> None:
    """Each heartbeat forces one, as often as its sender likes. A bad answer changes the time of the next check."""
    policy, steps = POLICY._replace(interval=86400), [answer] * 2000
    services = [service(ScriptedCheck(probes=steps), policy, name=f"s{n}") for n in range(3)]
    supervisor = Supervisor(services, Journal(services, VirtualClock()), rand=lambda: 0.99)
    async with supervisor:
        await asyncio.sleep(10)
        for _ in range(1000):
            for each in services:
                await supervisor.check_now([each.name])
        assert sum(len(slot.waiting) for slot in supervisor._batches._due.values()) <= len(services)
        assert len(supervisor._batches._due) <= len(services)
