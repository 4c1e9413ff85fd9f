"""What a scrape gets equals, byte for byte, what prometheus_client would send of the same board."""

import asyncio
import gzip
import os
import re
import shutil
import subprocess
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Final

import pytest
from connection_exporter.config import EXAMPLE
from connection_exporter.core.health import Event, Reason, Status, Verdict
from connection_exporter.core.retry import Policy
from connection_exporter.kind import (
    About,
    Failure,
    Json,
    Metric,
    MetricType,
    Observation,
    Service,
    Session,
    Traits,
)
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import build
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Histogram, Record, Report
from connection_exporter.net import Network
from connection_exporter.web import exposition as exposition_module
from connection_exporter.web.coding import ZSTD, Compressor, Piece, Text
from connection_exporter.web.exposition import Exposition, Rendering
from connection_exporter.web.own_metrics import OwnMetrics
from connection_exporter.web.rendering import Slices
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as ReferenceFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
BUDGET: Final = 48


@dataclass(slots=True)
class Clock:
    """A clock that is set by hand."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.125 + self.now


@dataclass(slots=True)
class FakeCheck:
    """A check that is looked at and never run."""

    address: str = "host:1"
    traits: Traits = field(default_factory=lambda: Traits(frozenset(Reason)))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        raise Failure(Reason.REFUSED, "never run")
        yield  # what makes it a generator


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    """One service of each kind, all new; all but the database depend on it."""
    services = build(load_text(EXAMPLE).services, Network())
    effect = About('a "group"', depends_on=("database",))
    return Board([s if s.name == "database" else replace(s, about=effect) for s in services], clock)


def a_service(name: str = "it", *, address: str = "host:1", metrics: tuple[Metric, ...] = ()) -> Service:
    return Service(name, "fake", FakeCheck(address, Traits(frozenset(Reason), metrics)), Policy())


def fill(board: Board, name: str, *, latency: float = 0.0123) -> None:
    """Have ``name`` answer well, with a value for everything that its kind measures."""
    metrics = board.record(name).service.check.traits.metrics
    observation = Observation(
        details={m.source: i + 0.25 for i, m in enumerate(metrics) if m.type is not MetricType.COUNTER},
        counts={m.source: 2.0 for m in metrics if m.type is MetricType.COUNTER},
    )
    planned = board.clock.monotonic() + 30.0
    report = Report(Event.ANSWERED_GOOD, None, "", observation, latency, held=True, next_attempt=planned)
    board.put(name, report)


Value = Callable[[Record], float | None]


# The oracle: the same families, built with the reference library from what the board says.


class Reference:
    """A collector over ``board``, written from product.md and knowing nothing of the code under test."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[ReferenceFamily]:
        records = self._board.records()
        for family in (*self._common(records), *self._own(records)):
            if family.samples:
                yield family

    def _common(self, records: list[Record]) -> Iterator[ReferenceFamily]:  # noqa: C901  # one after the other
        def gauge(name: str, text: str, values: dict[str, float | None]) -> GaugeMetricFamily:
            family = GaugeMetricFamily(name, text, labels=["name", "kind"])
            for record in records:
                if (value := values[record.name]) is not None:
                    family.add_metric([record.name, record.service.kind], value)
            return family

        def each(value: Value) -> dict[str, float | None]:
            return {record.name: value(record) for record in records}

        yield gauge(
            "connection_up",
            "Whether the service is healthy; absent while that is unknown.",
            each(lambda r: None if r.status is Status.UNKNOWN else float(r.status is Status.HEALTHY)),
        )
        yield gauge(
            "connection_status",
            "Status: 0 unknown, 1 healthy, 2 connecting, 3 unhealthy, 4 disconnected.",
            each(lambda r: r.status.code),
        )
        state = GaugeMetricFamily(
            "connection_state", "Whether the service is in this status.", labels=["name", "kind", "state"]
        )
        for record in records:
            for status in Status:
                labels = [record.name, record.service.kind, status.value]
                state.add_metric(labels, float(record.status is status))
        yield state
        yield gauge(
            "connection_session_up", "Whether a session is held.", each(lambda r: r.health.session_up)
        )
        yield gauge(
            "connection_canary_up",
            "Whether the last fresh connection was good; absent until there is one.",
            each(
                lambda r: None if r.health.canary is Verdict.NONE else float(r.health.canary is Verdict.GOOD)
            ),
        )
        yield gauge("connection_retries", "Failed attempts in a row.", each(lambda r: r.health.retry_count))
        for name, text, value in _TIMESTAMPS:
            yield gauge(name, f"{text}, in seconds since the epoch.", each(value))
        bound = GaugeMetricFamily(
            "connection_detection_bound_seconds",
            "Seconds within which a fault of this sort is noticed.",
            labels=["name", "kind", "event"],
        )
        for record in records:
            policy, traits = record.service.policy, record.service.check.traits
            probe = policy.interval + policy.timeout
            labels = [record.name, record.service.kind]
            bound.add_metric([*labels, "closed"], 0.05 if traits.holds_session else probe)
            if traits.crosses_network and not record.service.check.address.startswith("/"):
                bound.add_metric([*labels, "vanished"], min(11.0, probe) if traits.holds_session else probe)
            bound.add_metric([*labels, "frozen"], probe)
        yield bound
        info = GaugeMetricFamily(
            "connection_info",
            "What is monitored, whether it is critical, and its group.",
            labels=["name", "kind", "address", "critical", "group"],
        )
        for record in records:
            critical = "true" if record.service.policy.critical else "false"
            address, group = record.service.check.address, record.service.about.group or ""
            info.add_metric([record.name, record.service.kind, address, critical, group], 1)
        yield info
        caused_by = GaugeMetricFamily(
            "connection_caused_by",
            "A dependency that explains why the service is not healthy; absent while there is none.",
            labels=["name", "kind", "cause"],
        )
        for record in records:
            for cause in record.causes:
                caused_by.add_metric([record.name, record.service.kind, cause], 1)
        yield caused_by
        announced = GaugeMetricFamily(
            "connection_alert_announced",
            "An alert about the service is open that an Alertmanager has accepted directly; absent otherwise.",
            labels=["name", "kind"],
        )
        for record in records:
            if record.announced:
                announced.add_metric([record.name, record.service.kind], 1)
        yield announced
        yield from self._counters(records)
        yield _histogram(
            "connection_check_duration_seconds",
            "Duration of answered probes over the held session.",
            {record.name: record.durations for record in records},
            records,
        )

    def _counters(self, records: list[Record]) -> Iterator[ReferenceFamily]:
        def plain(name: str, text: str, value: Value) -> CounterMetricFamily:
            family = CounterMetricFamily(name, text, labels=["name", "kind"])
            for record in records:
                family.add_metric([record.name, record.service.kind], value(record) or 0.0)
            return family

        yield plain("connection_checks", "Checks that ended.", lambda r: r.checks)
        yield plain(
            "connection_check_failures",
            "Checks that ended without a good answer.",
            lambda r: r.check_failures,
        )
        reasons = CounterMetricFamily(
            "connection_check_failures_by_reason",
            "Checks that ended without a good answer, by reason.",
            labels=["name", "kind", "reason"],
        )
        for record in records:
            for reason, count in sorted(record.failures_by_reason.items()):
                reasons.add_metric([record.name, record.service.kind, reason.value], count)
        yield reasons
        yield plain("connection_sessions", "Sessions that came up.", lambda r: r.sessions)
        yield plain("connection_sessions_lost", "Sessions that were lost.", lambda r: r.sessions_lost)
        yield plain(
            "connection_outages",
            "Times the service stopped being healthy for longer than a reconnect.",
            lambda r: r.outages,
        )
        moves = CounterMetricFamily(
            "connection_transitions",
            "Changes of status, by the status that was entered.",
            labels=["name", "kind", "to"],
        )
        spent = CounterMetricFamily(
            "connection_state_seconds",
            "Seconds spent in each status, as reported.",
            labels=["name", "kind", "state"],
        )
        for record in records:
            for status in Status:
                labels = [record.name, record.service.kind, status.value]
                moves.add_metric(labels, record.transitions_to[status])
                if status is not record.status:
                    spent.add_metric(labels, record.seconds_in[status])
        for record in records:  # the numbers that are others at each scrape come last
            since = self._board.clock.monotonic() - record.entered
            labels = [record.name, record.service.kind, record.status.value]
            spent.add_metric(labels, record.seconds_in[record.status] + since)
        yield moves
        yield spent

    def _own(self, records: list[Record]) -> Iterator[ReferenceFamily]:
        metrics = {m.name: m for record in records for m in record.service.check.traits.metrics}
        for metric in metrics.values():
            having = [record for record in records if metric in record.service.check.traits.metrics]
            labels = ["name", "kind"]
            if metric.type is MetricType.HISTOGRAM:
                histograms = {record.name: record.histograms[metric.source] for record in having}
                yield _histogram(metric.name, metric.help, histograms, having)
            elif metric.type is MetricType.COUNTER:
                counter = CounterMetricFamily(metric.name.removesuffix("_total"), metric.help, labels=labels)
                for record in having:
                    counter.add_metric([record.name, record.service.kind], record.counters[metric.source])
                yield counter
            else:
                gauge = GaugeMetricFamily(metric.name, metric.help, labels=labels)
                for record in having:
                    value = record.details.get(metric.source)
                    if isinstance(value, bool | int | float):
                        gauge.add_metric([record.name, record.service.kind], float(value))
                yield gauge


_TIMESTAMPS: Final[tuple[tuple[str, str, Value], ...]] = (
    (
        "connection_next_attempt_timestamp_seconds",
        "When the next attempt is planned",
        lambda r: r.next_attempt_at,
    ),
    (
        "connection_last_check_timestamp_seconds",
        "When the last check ended",
        lambda r: r.last_check_at,
    ),
    (
        "connection_last_success_timestamp_seconds",
        "When the last good answer came",
        lambda r: r.last_success_at,
    ),
    (
        "connection_last_transition_timestamp_seconds",
        "When the status last changed",
        lambda r: r.status_since_at,
    ),
)


def _histogram(
    name: str, text: str, histograms: dict[str, Histogram], records: list[Record]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=["name", "kind"])
    for record in records:
        histogram = histograms[record.name]
        bounds = [*(f"{float(bound)}" for bound in histogram.bounds), "+Inf"]
        buckets = list(zip(bounds, map(float, histogram.cumulative()), strict=True))
        family.add_metric([record.name, record.service.kind], buckets, histogram.sum)
    return family


def own_registry() -> CollectorRegistry:
    """Stand in for the exporter's own metrics, with values that stand still."""
    registry = CollectorRegistry()
    Gauge("connection_monitor_active", "Whether monitoring is active.", registry=registry).set(1)
    return registry


def expected(board: Board) -> tuple[bytes, bytes]:
    """Return what the reference library sends: as text, and as OpenMetrics."""
    registry = CollectorRegistry()
    registry.register(Reference(board))
    Gauge("connection_monitor_active", "Whether monitoring is active.", registry=registry).set(1)
    return generate_latest(registry), generate_openmetrics(registry)  # type: ignore[no-untyped-call]


async def sent(exposition: Exposition) -> tuple[bytes, bytes]:
    text, openmetrics = await exposition.answer(None, None), await exposition.answer(OPENMETRICS, None)
    return text.body, openmetrics.body


async def text_of(board: Board) -> str:
    return (await Exposition(board, CollectorRegistry()).answer(None, None)).body.decode()


def series(text: str, name: str) -> dict[str, float]:
    """Return the samples of the service ``name``: name and labels to value."""
    samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {what: float(value) for what, _, value in samples if f'name="{name}"' in what}


async def test_a_new_board_is_sent_as_the_reference_library_would(board: Board) -> None:
    """In both formats, before anything was tried."""
    assert await sent(Exposition(board, own_registry())) == expected(board)


async def test_a_board_with_everything_measured_is_sent_as_the_reference_library_would(
    board: Board, clock: Clock
) -> None:
    """With every kind's own metrics, counters and histograms in it."""
    for name in board.names:
        board.put(name, Report(Event.BEGUN))
        clock.now += 0.1
        fill(board, name)
        fill(board, name, latency=0.3)
    body, _ = await sent(Exposition(board, own_registry()))
    assert (body, _) == expected(board)
    for record in board.records():
        for metric in record.service.check.traits.metrics:
            assert f"\n{metric.name}".encode() in body, f"{metric.name} was not among what was compared"


async def test_what_has_changed_since_the_last_scrape_is_sent_anew(board: Board, clock: Clock) -> None:
    """Cached lines are never older than their record."""
    exposition = Exposition(board, own_registry())
    for step in range(4):
        for index, name in enumerate(board.names):
            clock.now += 1.5
            if index <= step:
                fill(board, name)
            else:
                board.put(name, Report(Event.FAILED, Reason.REFUSED, "no", next_attempt=clock.now + 5))
        assert await sent(exposition) == expected(board)
    clock.now += 3600  # everything is overdue now, which only reading finds out
    assert await sent(exposition) == expected(board)
    assert {record.status for record in board.records()} == {Status.UNKNOWN}


EVENTS = st.sampled_from(Event)
NUMBERS = st.floats(0, 10, allow_nan=False) | st.sampled_from([0.0005, 0.001, 0.25, 1.0, 5.0, 1e-9, 1e6])


@settings(max_examples=30, phases=set(Phase) - {Phase.explain})
@given(st.lists(st.tuples(EVENTS, st.integers(0, 1), NUMBERS, st.sampled_from(Reason)), max_size=8))
def test_any_history_is_sent_as_the_reference_library_would(
    history: list[tuple[Event, int, float, Reason]],
) -> None:
    """After each event of any sequence."""
    metrics = (
        Metric("connection_fake_level", "A level.", MetricType.GAUGE, "level"),
        Metric("connection_fake_hits_total", "Hits.", MetricType.COUNTER, "hits"),
        Metric("connection_fake_size", "A size.", MetricType.HISTOGRAM, "size", (0.5, 1.0, 5.0)),
    )
    clock = Clock()
    board = Board([a_service("a", metrics=metrics), a_service("b")], clock)

    async def play() -> None:
        exposition = Exposition(board, own_registry())
        for event, which, number, reason in history:
            clock.now += number
            name = "ab"[which]
            observation = None
            if event in (Event.ANSWERED_GOOD, Event.ANSWERED_BAD):
                details: dict[str, Json] = {"level": number, "size": number, "text": "x"}
                details = details if name == "a" else {}
                observation = Observation(details=details, counts={"hits": number} if name == "a" else {})
            why = None if event in (Event.ANSWERED_GOOD, Event.CANARY_GOOD, Event.BEGUN) else reason
            planned = clock.now + number
            report = Report(event, why, "reported", observation, number, held=True, next_attempt=planned)
            board.put(name, report)
            assert await sent(exposition) == expected(board)

    asyncio.run(play())


@pytest.mark.parametrize(
    "address", ['a"b', "a\\b", "a\nb", 'all\\"\n\\n', "ünïcode:1", "[::1]:5432", "run/a,b={x}"]
)
async def test_a_label_is_escaped_as_the_reference_library_would(address: str) -> None:
    """An address may hold what somebody named a file."""
    board = Board([a_service(address=address)], Clock())
    assert await sent(Exposition(board, own_registry())) == expected(board)


async def test_a_help_text_is_escaped_as_the_reference_library_would() -> None:
    """Of another package's kind; the two formats differ here."""
    metrics = (Metric("connection_fake_level", 'A "level"\nof\\what.', MetricType.GAUGE, "level"),)
    board = Board([a_service(metrics=metrics)], Clock())
    fill(board, "it")
    assert await sent(Exposition(board, own_registry())) == expected(board)


async def test_openmetrics_passes_the_strict_parser(board: Board) -> None:
    """Together with the exporter's own metrics, which end with # EOF."""
    for name in board.names:
        fill(board, name)
    own = OwnMetrics(board, callbacks_dropped=lambda: 0)
    answer = await Exposition(board, own.registry).answer(OPENMETRICS, None)
    assert answer.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    parsed = text_string_to_metric_families(answer.body.decode())  # type: ignore[no-untyped-call]
    families = {family.name: family for family in parsed}
    assert families["connection_checks"].type == "counter"
    assert {"connection_overall_status", "connection_exporter_build_info", "process_cpu_seconds"} <= set(
        families
    )


async def test_promtool_finds_nothing_in_the_text_format(board: Board) -> None:
    """Names, types, help and units are as Prometheus wants them."""
    tool = shutil.which("promtool", path=f"{os.environ.get('PATH', '')}{os.pathsep}{ROOT / '.tools' / 'bin'}")
    assert tool is not None, "promtool is neither on PATH nor in .tools/bin: run `make tools`"
    for name in board.names:
        board.put(name, Report(Event.FAILED, Reason.REFUSED, "no"))
        fill(board, name)
        board.put(name, Report(Event.CANARY_GOOD))
    body = (
        await Exposition(board, OwnMetrics(board, callbacks_dropped=lambda: 0).registry).answer(None, None)
    ).body
    lint = await asyncio.to_thread(
        subprocess.run, [tool, "check", "metrics"], input=body, capture_output=True, check=False
    )
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, b"")


@pytest.mark.parametrize("name", ["database", "redis", "bot_process", "external_api", "websocket"])
async def test_a_service_keeps_to_its_budget_of_series(board: Board, clock: Clock, name: str) -> None:
    """48, before its kind's own, the reasons seen and an open alert; counted when everything else is there."""
    board.put("database", Report(Event.FAILED, Reason.REFUSED, "no", next_attempt=clock.now))
    board.put(name, Report(Event.FAILED, Reason.REFUSED, "no", next_attempt=clock.now))
    fill(board, name)
    board.put(name, Report(Event.CANARY_BAD, Reason.REFUSED, "no"))
    board.record(name).announced = True
    own = {metric.name for metric in board.record(name).service.check.traits.metrics}
    own.add("connection_alert_announced")
    found = [
        what
        for what in series(await text_of(board), name)
        if re.sub(r"(_bucket|_sum|_count)?\{.*", "", what) not in own and "_by_reason_" not in what
    ]
    assert BUDGET - 2 <= len(found) <= BUDGET, "a process has one bound less, and may have no canary"
    reasons = [what for what in series(await text_of(board), name) if "_by_reason_" in what]
    assert len(reasons) == 1


async def test_a_measured_value_is_absent_until_measured_and_after_a_loss(board: Board, clock: Clock) -> None:
    """Never 0, -1 or NaN. Counters and histograms stay."""
    for name in board.names:
        metrics = board.record(name).service.check.traits.metrics
        gauges = {f"{m.name}{{" for m in metrics if m.type is MetricType.GAUGE}
        measured = gauges | {"connection_canary_up{"}

        async def present(name: str = name, measured: set[str] = measured) -> set[str]:
            found = series(await text_of(board), name)
            return {start for start in measured if any(what.startswith(start) for what in found)}

        assert await present() == set()
        fill(board, name)
        board.put(name, Report(Event.CANARY_GOOD))
        assert await present() == measured
        board.put(name, Report(Event.LOST, Reason.EOF, "gone", next_attempt=clock.now + 5))
        assert await present() == set()
        kept = series(await text_of(board), name)
        for metric in metrics:
            if metric.type is MetricType.COUNTER:
                assert kept[f'{metric.name}{{kind="{board.record(name).service.kind}",name="{name}"}}'] == 2.0


async def test_up_is_absent_while_unknown_and_only_then(board: Board) -> None:
    """So that an alert on connection_up == 0 never speaks of what nobody knows."""
    seen = {}
    for event in (None, Event.BEGUN, Event.ANSWERED_GOOD, Event.ANSWERED_BAD, Event.LOST, Event.OVERDUE):
        if event is not None:
            board.put("redis", Report(event, Reason.EXPECT if event is Event.ANSWERED_BAD else None))
        text = await text_of(board)
        seen[event] = series(text, "redis").get('connection_up{kind="redis",name="redis"}')
    assert seen == {
        None: None,
        Event.BEGUN: 0.0,
        Event.ANSWERED_GOOD: 1.0,
        Event.ANSWERED_BAD: 0.0,
        Event.LOST: 0.0,
        Event.OVERDUE: None,
    }


async def test_every_counter_is_there_at_the_first_scrape(board: Board) -> None:
    """From 0, for a process that was never started too, so that increase() misses nothing."""
    found = series(await text_of(board), "bot_process")
    plain = 'kind="process",name="bot_process"'
    for name in (
        *("connection_checks_total", "connection_check_failures_total", "connection_sessions_total"),
        *("connection_sessions_lost_total", "connection_outages_total", "connection_process_restarts_total"),
    ):
        assert found[f"{name}{{{plain}}}"] == 0.0
    for status in Status:
        assert found[f'connection_transitions_total{{{plain},to="{status.value}"}}'] == 0.0
        assert found[f'connection_state_seconds_total{{{plain},state="{status.value}"}}'] == 0.0
    assert found[f"connection_status{{{plain}}}"] == 0.0
    assert found[f"connection_check_duration_seconds_count{{{plain}}}"] == 0.0
    assert not [what for what in found if "by_reason" in what], "it appears with the first failure"


async def test_the_seconds_in_each_state_add_up(board: Board, clock: Clock) -> None:
    """Exact, and counted on between scrapes by themselves."""
    exposition = Exposition(board, CollectorRegistry())
    clock.now += 2
    board.put("redis", Report(Event.BEGUN))
    clock.now += 3
    fill(board, "redis")
    for passed in (0.0, 4.0, 1.5):
        clock.now += passed
        text = (await exposition.answer(None, None)).body.decode()
    spent = {k: v for k, v in series(text, "redis").items() if k.startswith("connection_state_seconds_total")}
    start = 'connection_state_seconds_total{kind="redis",name="redis",state='
    assert spent[f'{start}"unknown"}}'] == 2.0
    assert spent[f'{start}"connecting"}}'] == 3.0
    assert spent[f'{start}"healthy"}}'] == 5.5


async def test_seconds_never_fall_if_a_status_ends_while_lines_are_written(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prometheus would take a counter that falls for one that began anew, and add all of it again."""
    names = [f"service_{index}" for index in range(4)]
    board = Board(map(a_service, names), clock)
    answers(board, names)
    exposition = Exposition(board, CollectorRegistry())
    await exposition.answer(None, None)
    waiting = iter(names[1:])

    class Paused(Slices):
        """Lets a second pass and a service fail at each pause."""

        async def pause_if_due(self) -> None:
            clock.now += 1
            fails(board, [*islice(waiting, 1)])
            clock.now += 1

    monkeypatch.setattr("connection_exporter.web.exposition.Slices", Paused)
    fails(board, names[:1])  # the first pause comes after its lines
    shown: dict[str, float] = {}
    for _ in range(4):
        text = (await exposition.answer(None, None)).body.decode()
        for name in names:
            for key, seconds in series(text, name).items():
                if key.startswith("connection_state_seconds_total"):
                    assert seconds >= shown.get(key, 0.0), key
                    shown[key] = seconds
        clock.now += 0.5
    assert not [*waiting], "all have failed"


async def test_no_sample_has_a_timestamp(board: Board) -> None:
    """A line is a name, labels and one number."""
    for name in board.names:
        fill(board, name)
    own = OwnMetrics(board, callbacks_dropped=lambda: 0)
    for accept in (None, OPENMETRICS):
        body = (await Exposition(board, own.registry).answer(accept, None)).body.decode()
        for line in body.splitlines():
            if not line.startswith("#"):
                assert re.fullmatch(r"[a-z_]+(\{[^{}]*\})? [0-9.e+-]+(Inf)?", line), line


async def test_no_created_series_double_the_counters(board: Board) -> None:
    """Of the exporter's own neither."""
    own = OwnMetrics(board, callbacks_dropped=lambda: 0)
    for accept in (None, OPENMETRICS):
        body = (await Exposition(board, own.registry).answer(accept, None)).body
        assert b"_created" not in body


async def test_a_response_is_compressed_when_asked_for(board: Board) -> None:
    """It has the same bytes, in both formats and both codings."""
    exposition = Exposition(board, own_registry())
    for accept in (None, OPENMETRICS):
        plain = await exposition.answer(accept, None)
        assert plain.coding == "identity"
        for coding in ("gzip", "zstd"):
            packed = await exposition.answer(accept, f"br, {coding}")
            assert packed.coding == coding
            assert unpacked(packed) == plain.body
            assert len(packed.body) < len(plain.body) / 4


def unpacked(answer: Rendering) -> bytes:
    unpack: dict[str, Callable[[bytes], bytes]] = {
        "identity": bytes,
        "gzip": gzip.decompress,
        "zstd": import_module(ZSTD).decompress,
    }
    return unpack[answer.coding](answer.body)


def by_metric(text: bytes) -> dict[str, dict[str, list[str]]]:
    """Return the lines of each family by their labels other than ``le``; the order of these groups is free."""
    families: dict[str, dict[str, list[str]]] = {}
    family, before = "", ""
    for line in text.decode().splitlines():
        if line.startswith("#"):
            family = line
            assert family not in families, "the lines of a family are together"
            families[family] = {}
        else:
            metric = re.sub(r'le="[^"]*",|^[^{]*| [^ ]*$', "", line)
            assert metric == before or metric not in families[family], "the lines of a histogram are together"
            families[family].setdefault(metric, []).append(line)
        before = metric if not line.startswith("#") else ""
    return families


async def test_a_large_board_is_sent_as_the_reference_library_would(clock: Clock) -> None:
    """Whatever of its text is kept from earlier scrapes, after any change, for each format and coding."""
    kinds = [replace(s, about=About()) for s in build(load_text(EXAMPLE).services, Network())]
    services = [replace(kinds[i % 5], name=f"{kinds[i % 5].name}_{i}") for i in range(140)]
    board = Board(services[:130], clock)
    exposition = Exposition(board, own_registry())
    for change in CHANGES:
        clock.now += 2.5
        change(board, services)
        await same_in_each_form(board, exposition)
    assert len(board.names) == 89, "the changes were made"


async def same_in_each_form(board: Board, exposition: Exposition) -> None:
    for openmetrics, reference in zip((False, True), expected(board), strict=True):
        for coding in ("gzip", "identity", "zstd"):
            answer = await exposition._render(openmetrics=openmetrics, coding=coding)  # which is not shared
            assert answer.coding == coding
            assert by_metric(unpacked(answer)) == by_metric(reference)


def answers(board: Board, names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        fill(board, name, latency=index / 1000)


def fails(board: Board, names: Sequence[str]) -> None:
    for name in names:
        planned = board.clock.monotonic() + 5
        board.put(name, Report(Event.FAILED, Reason.REFUSED, "no", next_attempt=planned))


def other_families(board: Board, services: list[Service]) -> None:
    """A reload brings a service another set of metrics, as a new version of a plug-in may."""
    metrics = (Metric("connection_fake_level", "A level.", MetricType.GAUGE, "level"),)
    old = board.record(services[7].name).service
    board.replace(replace(old, check=FakeCheck("host:2", Traits(frozenset(Reason), metrics))))
    fill(board, old.name)


CHANGES: Final[tuple[Callable[[Board, list[Service]], object], ...]] = (
    lambda board, services: None,
    lambda board, services: answers(board, board.names),
    lambda board, services: answers(board, board.names),
    lambda board, services: answers(board, board.names[::6]),
    lambda board, services: answers(board, board.names[1::6]),
    lambda board, services: answers(board, board.names[:100]),
    lambda board, services: answers(board, board.names[:1]),
    lambda board, services: None,
    lambda board, services: fails(board, board.names[30:32]),
    lambda board, services: [board.put(n, Report(Event.CANARY_GOOD)) for n in board.names[:50]],
    lambda board, services: board.announce(services[20].name, announced=True),
    lambda board, services: [*map(board.add, services[130:])],
    lambda board, services: [*map(board.remove, [service.name for service in services[50:100]])],
    lambda board, services: answers(board, board.names[::7]),
    lambda board, services: board.reorder(reversed(board.names)),
    other_families,
    lambda board, services: board.remove(services[0].name),
    lambda board, services: fails(board, board.names),
)


async def test_what_has_not_changed_is_neither_written_nor_compressed_again(clock: Clock) -> None:
    """Services that were checked between the same two scrapes stay together, and so do their lines."""
    board = Board([a_service(f"service_{index}") for index in range(300)], clock)
    exposition = Exposition(board, own_registry())
    for turn in (0, 1, 2, 0, 1, 2):
        answers(board, board.names[turn::3])
        await exposition._render(openmetrics=False, coding="gzip")
    before = kept_texts(exposition)
    answers(board, board.names[0::3])
    await exposition._render(openmetrics=False, coding="gzip")
    new = {*kept_texts(exposition)} - {*before}
    newest = exposition._sheet._cohorts[-1]
    assert new == {*newest.texts.values()}
    assert {row.record.name for row in newest.rows} == {*board.names[0::3]}
    assert [len(cohort.rows) for cohort in exposition._sheet._cohorts] == [100, 100, 100]


async def test_no_text_stays_plain_until_the_last_is_written(clock: Clock) -> None:
    """Or 1,000 services would leave 2 MiB in holes of the heap. What is kept for gzip is compressed one by one."""
    board = Board([a_service(f"service_{index}") for index in range(1000)], clock)
    peaks: dict[str, int] = {}
    for coding in ("identity", "gzip"):
        exposition = Exposition(board, own_registry())
        tracemalloc.start()
        try:
            await exposition._sheet.renew(Slices(board), Compressor() if coding == "gzip" else None)
            _, peaks[coding] = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peaks["gzip"] < peaks["identity"] * 0.6


async def test_services_that_change_between_all_scrapes_stay_together(clock: Clock) -> None:
    """They need not be sorted each time."""
    board = Board([a_service(f"service_{index}") for index in range(450)], clock)
    exposition = Exposition(board, own_registry())
    for _ in range(3):
        answers(board, board.names)
        assert by_metric(unpacked(await exposition.answer(None, "gzip"))) == by_metric(expected(board)[0])
        cohorts = [[row.record.name for row in cohort.rows] for cohort in exposition._sheet._cohorts]
        assert cohorts == [[*board.names[:200]], [*board.names[200:400]], [*board.names[400:]]]


async def test_services_that_are_alike_are_written_together(clock: Clock) -> None:
    """Those of one interval and kind, in the order of the board: their text is smaller."""
    kinds = build(load_text(EXAMPLE).services, Network())
    board = Board([replace(s, name=f"{s.name}_{i}", about=About()) for i in range(90) for s in kinds], clock)
    exposition = Exposition(board, own_registry())
    await exposition.answer(None, "gzip")
    written = [row.record for cohort in exposition._sheet._cohorts for row in cohort.rows]
    alike = sorted(board.records(), key=lambda r: (r.service.policy.interval, r.service.kind))
    assert [record.name for record in written] == [record.name for record in alike]


def kept_texts(exposition: Exposition) -> list[Text]:
    """Return the texts that are kept: those of the families that seldom change, and of the others."""
    sheet = exposition._sheet
    every = [piece for _, pieces in sheet.families() for piece in pieces]
    return [piece for piece in every if isinstance(piece, Text)]


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (None, False),
        ("*/*", False),
        ("text/plain;version=0.0.4", False),
        (OPENMETRICS, True),
        ("application/openmetrics-text", True),
        ('Application/OpenMetrics-Text; Version="1.0.0"', True),
        ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.3", True),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=9.9", False),
        ("application/openmetrics-text;q=0,text/plain", False),
        ("text/plain;version=abc", False),
        ("application/openmetrics-text;version=x.y", False),
        (";;=,=,", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
    ],
)
async def test_the_format_follows_the_accept_header(accept: str | None, openmetrics: bool) -> None:
    """Whatever it contains, there is always an answer."""
    answer = await Exposition(Board([], Clock()), own_registry()).answer(accept, None)
    assert answer.content_type.startswith("application/openmetrics-text" if openmetrics else "text/plain")
    assert answer.body.endswith(b"# EOF\n") is openmetrics


async def test_a_hundred_scrapes_at_once_share_one_rendering(board: Board) -> None:
    """And the next one gets its own."""
    renderings = Counter("renderings", "How often the registry was rendered.", registry=None)

    class Counting:
        def collect(self) -> Iterator[ReferenceFamily]:
            renderings.inc()
            yield from renderings.collect()

    registry = CollectorRegistry()
    registry.register(Counting())
    before = next(iter(renderings.collect())).samples[0].value
    exposition = Exposition(board, registry)
    answers = await asyncio.gather(*(exposition.answer(None, "gzip") for _ in range(100)))
    assert len({id(answer) for answer in answers}) == 1
    assert next(iter(renderings.collect())).samples[0].value == before + 1
    assert await exposition.answer(None, "gzip") is not answers[0]


async def test_a_scraper_that_goes_away_does_not_take_the_others_answer(board: Board) -> None:
    """The rendering belongs to all who wait for it."""
    exposition = Exposition(board, own_registry())
    first, second = (asyncio.create_task(exposition.answer(None, None)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).body == expected(board)[0]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_the_series_of_a_removed_service_vanish(board: Board) -> None:
    """At the next scrape, and those of a new one of that name begin from 0."""
    exposition = Exposition(board, own_registry())
    fill(board, "redis")
    before = (await exposition.answer(None, None)).body.decode()
    service = board.record("redis").service
    board.remove("redis")
    after = (await exposition.answer(None, None)).body.decode()
    assert series(before, "redis")
    assert not series(after, "redis")
    assert "connection_redis_" not in after, "nor a family without samples"
    board.add(service)
    again = series((await exposition.answer(None, None)).body.decode(), "redis")
    assert again['connection_checks_total{kind="redis",name="redis"}'] == 0.0
    assert await sent(exposition) == expected(board)


async def test_a_rendering_of_a_thousand_services_lets_the_loop_run() -> None:
    """In slices: no check waits for a scrape. The shortest of three is taken, since others share the machine."""
    board = Board([a_service(f"service_{index}") for index in range(1000)], Clock())
    worst = []
    for _ in range(3):
        exposition = Exposition(board, own_registry())
        rendering = asyncio.create_task(exposition.answer(None, None))
        stalls, began = [0.0], time.perf_counter()
        while not rendering.done():
            before = time.perf_counter()
            await asyncio.sleep(0)
            stalls.append(time.perf_counter() - before)
        whole = time.perf_counter() - began
        assert len(stalls) > 5
        worst.append(max(stalls) / whole)
    assert min(worst) < 0.5, "one slice took more than half of the whole"
    assert (await rendering).body == expected(board)[0]


async def test_the_loop_runs_while_a_response_is_encoded(
    monkeypatch: pytest.MonkeyPatch, board: Board
) -> None:
    """Also while pieces are put together: a thread would keep the interpreter's lock for all of them."""
    turns, seen = 0, []

    def slowly(pieces: Iterable[Piece]) -> Iterator[bytes]:
        for _ in range(10):
            seen.append(turns)
            time.sleep(0.002)
            yield b"a part"

    monkeypatch.setattr(exposition_module, "CODINGS", {"identity": slowly, "gzip": slowly})
    rendering = asyncio.create_task(Exposition(board, own_registry()).answer(None, "gzip"))
    while not rendering.done():
        turns += 1
        await asyncio.sleep(0)
    assert len(set(seen)) == 10
    assert (await rendering).body == b"a part" * 10
