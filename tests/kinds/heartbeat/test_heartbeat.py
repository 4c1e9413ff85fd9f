"""Kind heartbeat: when the session begins and ends, as the monitor's own loop sees it, on virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from connection_exporter.core.health import Event, Reason, Status
from connection_exporter.core.retry import Fault
from connection_exporter.kind import Beat, Service
from connection_exporter.kinds import load_text
from connection_exporter.kinds.heartbeat.check import HeartbeatCheck
from connection_exporter.kinds.heartbeat.config import HeartbeatConfig
from connection_exporter.monitor.supervisor import Supervisor
from connection_exporter.net import Network
from pydantic import ValidationError
from support.scripted import Journal
from support.virtual_time import VirtualClock, on_virtual_time

GOOD = Beat()


def config(**given: object) -> HeartbeatConfig:
    return HeartbeatConfig.model_validate({"kind": "heartbeat", "max_age": "1m", **given})


class Monitored:
    """A heartbeat under a supervisor whose clock the test moves."""

    def __init__(self, made: HeartbeatConfig) -> None:
        self.clock = VirtualClock()
        self.check = HeartbeatCheck(made, Network(), clock=self.clock)
        self.board = Journal([Service("it", "heartbeat", self.check, made.policy)], self.clock)
        self.supervisor = Supervisor((r.service for r in self.board.records()), self.board, rand=lambda: 0.5)

    def status(self) -> Status:
        return self.board.record("it").status

    def message(self) -> str:
        return self.board.record("it").trouble.message

    async def beat(self, beat: Beat = GOOD) -> None:
        self.check.beat(beat)
        await self.supervisor.check_now(["it"])


@asynccontextmanager
async def monitored(**given: object) -> AsyncIterator[Monitored]:
    it = Monitored(config(**given))
    async with it.supervisor:
        await asyncio.sleep(0.01)
        yield it


@on_virtual_time
async def test_a_service_has_max_age_for_its_first_beat() -> None:
    """Until then it is connecting, however often somebody forces a check; then it is disconnected at once."""
    async with monitored() as it:
        for _ in range(5):
            assert (it.status(), it.board.record("it").trouble.reason) == (Status.CONNECTING, None)
            assert it.message() == "waiting for the first beat, for up to 1m"
            await asyncio.sleep(11)
            await it.supervisor.force_check("it")
        record = it.board.record("it")
        assert (record.checks, record.outages, record.health.retry_count) == (0, 0, 0)
        await asyncio.sleep(5.1)
        assert it.status() is Status.DISCONNECTED
        assert it.board.record("it").trouble.reason is Reason.HEARTBEAT
        assert it.message() == "no beat for 1m, and none before"
        [failed, *_] = it.board.times(Event.FAILED)
        assert failed == pytest.approx(1060)


@on_virtual_time
async def test_a_beat_makes_it_healthy_at_once_and_silence_makes_it_disconnected_at_once() -> None:
    """The session is as old as the last beat allows, not as probes come."""
    async with monitored(interval="10m") as it:
        await it.beat()
        assert it.status() is Status.HEALTHY
        began = it.clock.monotonic()
        for _ in range(10):
            await asyncio.sleep(59)
            assert it.status() is Status.HEALTHY
            await it.beat()
        await asyncio.sleep(59.99)
        assert it.status() is Status.HEALTHY
        await asyncio.sleep(0.02)
        assert it.status() is Status.DISCONNECTED
        assert it.message().startswith("no beat for 1m; the last one came at 2023-11-14T22:")
        assert it.board.times(Event.LOST) == [pytest.approx(began + 10 * 59 + 60)]
        record = it.board.record("it")
        assert (record.sessions, record.sessions_lost, record.counters["beats"]) == (1, 1, 11)
        await asyncio.sleep(3600)
        await it.beat()
        assert it.status() is Status.HEALTHY


@on_virtual_time
async def test_a_short_max_age_is_noticed_as_exactly() -> None:
    """The delay after a loss follows it, so that nothing adds to it."""
    async with monitored(max_age="2s") as it:
        await it.beat()
        await asyncio.sleep(2.01)
        assert it.status() is Status.DISCONNECTED


@on_virtual_time
async def test_a_beat_that_reports_a_failure_is_a_bad_answer() -> None:
    """Until the next beat, or until there is none."""
    async with monitored() as it:
        await it.beat(Beat(failed=True, message="disk full"))
        assert it.status() is Status.UNHEALTHY
        assert it.board.record("it").trouble.reason is Reason.HEARTBEAT
        assert it.message() == "the service reports a failure: disk full"
        await it.beat(Beat(failed=True))
        assert it.message() == "the service reports a failure"
        await it.beat(Beat(message="120 rows"))
        assert it.status() is Status.HEALTHY
        assert it.board.record("it").details["message"] == "120 rows"
        await it.beat(Beat(failed=True))
        await asyncio.sleep(60.1)
        assert it.status() is Status.DISCONNECTED


@on_virtual_time
async def test_an_answer_is_repeated_until_the_next_beat() -> None:
    """As the same object, which counts no beat again."""
    check = HeartbeatCheck(config(), Network(), clock=VirtualClock())
    for failed in (False, True):
        check.beat(Beat(failed=failed, message="120 rows"))
        check.beat(Beat(failed=failed, message="130 rows"))
        async with check.connect() as session:
            first, second, third = [await session.probe() for _ in range(3)]
        assert (str(dict(first.counts)), second.counts) == ("{'beats': 2}", {})  # JSON shows 2, not 2.0
        assert (first.reason, first.message, first.details) == (second.reason, second.message, second.details)
        assert first.details["message"] == "130 rows"
        assert third is second


@on_virtual_time
async def test_a_forced_check_reports_the_present_state() -> None:
    """It waits for no beat, and is none."""
    async with monitored() as it:
        await it.beat()
        await asyncio.sleep(30)
        await it.supervisor.force_check("it")
        assert it.status() is Status.HEALTHY
        await asyncio.sleep(30.1)
        assert it.status() is Status.DISCONNECTED
        await it.supervisor.force_check("it")
        assert it.status() is Status.DISCONNECTED


@on_virtual_time
async def test_the_time_in_which_the_machine_sleeps_counts() -> None:
    """Timers stand still during a suspend; the age of a beat does not."""
    async with monitored() as it:
        await it.beat()
        it.clock.suspend(3600)
        await asyncio.sleep(31)  # until the next probe at the latest
        assert it.status() is Status.DISCONNECTED


@on_virtual_time
async def test_more_retries_are_more_looks() -> None:
    """A user who asks for them gets them, on the usual schedule."""
    async with monitored(retries=3) as it:
        await it.beat()
        await asyncio.sleep(60.1)
        assert it.status() is Status.CONNECTING
        await asyncio.sleep(20)
        assert it.status() is Status.DISCONNECTED


@on_virtual_time
async def test_a_reload_keeps_the_age_of_the_last_beat() -> None:
    """And the time in which the first one is awaited."""
    async with monitored() as it:
        await asyncio.sleep(50)
        await replaced(it, description="x", max_age="55s")
        assert it.status() is Status.CONNECTING
        await asyncio.sleep(5.1)
        assert it.status() is Status.DISCONNECTED
        await it.beat()
        await asyncio.sleep(50)
        await replaced(it, max_age="1m")
        assert it.status() is Status.HEALTHY
        await asyncio.sleep(10.1)
        assert it.status() is Status.DISCONNECTED


async def replaced(it: Monitored, **given: object) -> None:
    made = config(**given)
    it.check = HeartbeatCheck(made, Network(), clock=it.clock)
    await it.supervisor.change([Service("it", "heartbeat", it.check, made.policy)], removed=[])
    await asyncio.sleep(0.02)


def test_silence_is_noticed_after_max_age_whatever_its_cause() -> None:
    """The job has ended, its machine is gone, or it hangs."""
    made = config()
    service = Service("it", "heartbeat", HeartbeatCheck(made, Network()), made.policy)
    assert service.detection_bounds == {Fault.CLOSED: 60, Fault.VANISHED: 60, Fault.FROZEN: 60}


def test_what_defaults_say_of_retries_and_canaries_is_not_for_it() -> None:
    """`max_age` is the tolerance, and there is nothing to connect to."""
    text = (
        "{defaults: {retries: 5, canary: 1m, interval: 20s}, services: {a: {kind: heartbeat, max_age: 1h}}}"
    )
    made = load_text(text).services["a"]
    assert (made.retries, made.canary, made.interval) == (1, None, 20)


@pytest.mark.parametrize(
    ("given", "reported"),
    [
        ({"max_age": "0s"}, "greater than 0"),
        ({"max_age": 60}, "a duration needs a unit"),
        ({"token": "a", "token_file": "/b"}, "token and token_file are both given: keep one"),
        ({"token": ""}, "at least 1"),
        ({"canary": "5m"}, "a heartbeat has no canary"),
    ],
)
def test_an_error_is_reported(given: dict[str, object], reported: str) -> None:
    """Each has a message of its own."""
    with pytest.raises(ValidationError) as raised:
        config(**given)
    assert reported in str(raised.value)
