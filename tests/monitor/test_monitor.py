"""`Monitor` as a program uses it: reloads are whole and one at a time, and a broken kind concerns its own service."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import connection_exporter
import pytest
from connection_exporter.alerting.text import annotations_of
from connection_exporter.config import Config
from connection_exporter.core.health import Reason, Status
from connection_exporter.kind import Beat, Check, Metric, MetricType, Observation, Session, Traits
from connection_exporter.kinds import load_text
from connection_exporter.kinds.http import check as http_check
from connection_exporter.monitor import snapshot
from connection_exporter.monitor.errors import NotRunning, UnknownService
from connection_exporter.monitor.monitor import Monitor
from connection_exporter.web.exposition import Exposition
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from support.itself import own_pidfile
from support.scripted import ScriptedCheck, ScriptedSession

DEFAULTS = "defaults: {interval: 200ms, timeout: 200ms, retry_delay: 20ms, max_retry_delay: 50ms}\n"


def config(*names: str, kind: str = "process", more: str = "") -> Config:
    """Return a config of services that watch this very process, or a port where nobody listens."""
    what = {"process": f"pidfile: {own_pidfile()}", "http": 'url: "http://127.0.0.1:1/"'}[kind]
    lines = "".join(f"  {name}: {{kind: {kind}, {what}{more}}}\n" for name in names)
    return load_text(f"{DEFAULTS}services:\n{lines}", environ={})


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_reloads_run_one_at_a_time_and_the_last_one_wins() -> None:
    """Twenty at once, of services that come and go."""
    async with Monitor(config("a")) as monitor:
        wanted = [config(*[f"s{n}" for n in range(turn % 4 + 1)]) for turn in range(20)]
        await asyncio.gather(*(monitor.reload(one) for one in wanted))
        assert monitor.board.names == tuple(wanted[-1].services)
        assert monitor.config is wanted[-1]
        await monitor.force_check()


async def test_a_reload_whose_caller_is_cancelled_is_completed() -> None:
    """At any await in it; the next reload starts from the config that is in force."""
    async with Monitor(config("a", "b")) as monitor:
        for turn in range(12):
            new = config("a", *(f"n{turn}_{n}" for n in range(3)), more=f", description: t{turn}" * 0)
            reloading = asyncio.create_task(monitor.reload(new))
            for _ in range(turn):
                await asyncio.sleep(0)
            reloading.cancel()
            await asyncio.wait({reloading})
        await monitor.reload(config("c"))
        assert monitor.board.names == ("c",)
        await monitor.force_check("c")


async def test_a_forced_check_during_a_reload_is_answered() -> None:
    """Of a service that goes and of all."""
    async with Monitor(config("a", "b")) as monitor:
        reloading = asyncio.create_task(monitor.reload(config("b", "c")))
        results = await asyncio.gather(
            monitor.force_check("a"), monitor.force_check(), reloading, return_exceptions=True
        )
        assert not [r for r in results if isinstance(r, BaseException) and not isinstance(r, UnknownService)]
        assert monitor.board.names == ("b", "c")


async def test_a_stop_during_a_reload_ends_it() -> None:
    async with Monitor(config("a")) as monitor:
        reloading = asyncio.create_task(monitor.reload(config(*(f"s{n}" for n in range(50)))))
        await asyncio.sleep(0)
    with pytest.raises(NotRunning):
        await reloading
    with pytest.raises(NotRunning):
        await monitor.reload(config("a"))


async def test_an_unknown_name_is_an_exported_error_that_lists_the_known_ones() -> None:
    async with Monitor(config("a", "b")) as monitor:
        with pytest.raises(connection_exporter.UnknownService) as caught:
            await monitor.force_check("nope")
    assert str(caught.value) == "no service is called 'nope'; known: a, b"
    assert (caught.value.name, caught.value.known) == ("nope", ("a", "b"))


def test_every_error_that_a_caller_may_meet_is_exported() -> None:
    for name in ("ConfigError", "NotRunning", "TooSoon", "UnknownService"):
        assert issubclass(getattr(connection_exporter, name), Exception)
        assert name in connection_exporter.__all__


def test_too_soon_says_when_to_come_back() -> None:
    """For people in the text, for Retry-After as a number."""
    error = connection_exporter.TooSoon(0.44)
    assert error.retry_after == 0.44
    assert str(error) == "the last forced check was moments ago: try again in 0.4 s"


class Broken:
    """A check of a plug-in, broken in one place."""

    place = ""
    error: BaseException = SystemExit(3)

    def __init__(self, config: Any, network: Any) -> None:
        self._raise("constructor")

    def _raise(self, place: str) -> None:
        if self.place == place:
            raise self.error

    @property
    def traits(self) -> Traits:
        self._raise("traits")
        return ScriptedCheck().traits

    @property
    def address(self) -> str:
        self._raise("address")
        return "it:1"

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        self._raise("connect")
        yield BrokenSession(self)
        self._raise("close")


class BrokenSession(ScriptedSession):
    def __init__(self, check: Broken) -> None:
        super().__init__(ScriptedCheck())
        self._check = check

    async def probe(self) -> Observation:
        self._check._raise("probe")
        return Observation()


PLACES = ["constructor", "traits", "address", "connect", "probe"]
ERRORS = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), ValueError("s3cret"), asyncio.CancelledError()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", PLACES)
async def test_a_broken_kind_concerns_its_own_service(
    place: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start and at a reload: it is unknown with `internal`, and the others continue."""
    broken = type("Check", (Broken,), {"place": place, "error": error})
    check: type[Check] = broken
    monkeypatch.setattr(http_check, "HttpCheck", check)
    good, bad = config("good"), config("bad", kind="http")
    both = load_text(
        f"{DEFAULTS}services:\n  good: {{kind: process, pidfile: {own_pidfile()}}}\n  bad: "
        '{kind: http, url: "http://127.0.0.1:1/"}\n',
        environ={},
    )
    for start in (good, bad, both):
        async with Monitor(start) as monitor:
            await monitor.reload(both)
            await until(lambda: monitor.board.record("bad").trouble.reason is Reason.INTERNAL)
            assert monitor.board.record("bad").status is Status.UNKNOWN
            assert "s3cret" not in str(monitor.status())
            assert type(error).__name__ in monitor.board.record("bad").trouble.message
            await until(lambda: monitor.board.record("good").status is Status.HEALTHY)
            await monitor.reload(good)
            assert monitor.board.names == ("good",)


class TakingBeats(Broken):
    """A check that takes beats and looks out."""

    @property
    def look_every(self) -> float:
        self._raise("look_every")
        return 0.1

    async def present(self) -> bool:
        return False

    async def token(self) -> str | None:
        return None

    def beat(self, beat: Beat) -> None:
        del beat

    def notices_after(self) -> float:
        self._raise("notices_after")
        return 5.0

    def continue_from(self, earlier: "TakingBeats") -> None:
        del earlier
        self._raise("continue_from")


def metric(**wrong: Any) -> Any:
    right = {"name": "connection_it", "help": "", "type": MetricType.GAUGE, "source": "it"}
    return Traits(frozenset(Reason), (Metric(**{**right, **wrong}),))


UNUSABLE: dict[str, dict[str, Any]] = {
    "an address that cannot be encoded": {"address": "\ud800"},
    "metrics in a list": {"traits": Traits(frozenset(Reason), [])},  # type: ignore[arg-type]
    "a metric whose name Prometheus does not accept": {"traits": metric(name="it is")},
    "a counter without its suffix": {"traits": metric(type=MetricType.COUNTER)},
    "a metric without a type": {"traits": metric(type="gauge")},
    "a metric with a help that cannot be encoded": {"traits": metric(help="\ud800")},
    "a metric with a source that is no key": {"traits": metric(source=[])},
    "buckets that do not ascend": {"traits": metric(type=MetricType.HISTOGRAM, buckets=(1, float("nan")))},
    "look_every is text": {"look_every": "1s"},
    "look_every is 0": {"look_every": 0},
    "look_every raises": {"place": "look_every", "error": SystemExit(3)},
    "notices_after is text": {"notices_after": lambda _: "5s"},
    "notices_after raises": {"place": "notices_after", "error": ValueError()},
}


@pytest.mark.parametrize("wrong", UNUSABLE.values(), ids=UNUSABLE)
async def test_what_a_check_says_of_itself_and_cannot_be_used_concerns_its_own_service(
    wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the other services nor a scrape."""
    check: type[Check] = type("Check", (TakingBeats,), wrong)
    monkeypatch.setattr(http_check, "HttpCheck", check)
    both = load_text(
        f"{DEFAULTS}services:\n  good: {{kind: process, pidfile: {own_pidfile()}}}\n  bad: "
        '{kind: http, url: "http://127.0.0.1:1/"}\n',
        environ={},
    )
    async with Monitor(both) as monitor:
        await until(lambda: monitor.board.record("bad").trouble.reason is Reason.INTERNAL)
        await until(lambda: monitor.board.record("good").status is Status.HEALTHY)
        body = (await Exposition(monitor.board, CollectorRegistry()).answer(None, None)).body
        assert [family for family in text_string_to_metric_families(body.decode()) if family.samples]


async def test_a_check_that_cannot_continue_from_another_is_replaced_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reload that is left halfway would never start the service again."""
    check: type[Check] = type("Check", (TakingBeats,), {"place": "continue_from", "error": SystemExit(3)})
    monkeypatch.setattr(http_check, "HttpCheck", check)
    async with Monitor(config("it", kind="http")) as monitor:
        await until(lambda: monitor.board.record("it").status is Status.HEALTHY)
        await monitor.reload(config("it", kind="http", more=", retries: 1"))
        await until(lambda: monitor.board.record("it").sessions == 2)
        assert monitor.board.record("it").status is Status.HEALTHY


async def test_properties_of_a_check_that_raise_later_harm_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read once, so neither a scrape nor /health/detailed nor an alert nor a reload finds out."""

    class Later(TakingBeats):
        pass

    monkeypatch.setattr(http_check, "HttpCheck", Later)
    async with Monitor(config("bad", kind="http")) as monitor:
        await until(lambda: monitor.board.record("bad").status is Status.HEALTHY)
        for Later.place in ("traits", "address", "look_every", "notices_after"):
            body = (await Exposition(monitor.board, CollectorRegistry()).answer(None, None)).body
            assert b'address="it:1"' in body
            assert snapshot.detailed(monitor.board)["services"]["bad"]["status"] == "healthy"
            record = monitor.board.record("bad")
            text = annotations_of(monitor.board, record, since=0.0, external_url="http://it")["description"]
            assert text.startswith("bad (http at it:1) is disconnected")
            await monitor.reload(config("bad", kind="http", more=f", description: {Later.place}"))
            assert monitor.board.record("bad").service.about.description == Later.place
