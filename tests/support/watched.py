"""The whole exporter under test: monitor, board and HTTP server, with a reader and a neighbour that must not suffer.

Whatever a test breaks, `watching` holds two promises to the end: /metrics and /health/detailed answer from
memory all the while, and a healthy neighbour stays healthy.
"""

import asyncio
import functools
import http.client
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, ParamSpec

import uvloop
from connection_exporter.app import serving
from connection_exporter.core.health import Reason, Status
from connection_exporter.kinds import load_text
from connection_exporter.monitor.monitor import Monitor
from connection_exporter.monitor.record import Record, Transition
from connection_exporter.web.server import bind
from prometheus_client.parser import text_string_to_metric_families

P = ParamSpec("P")

SLACK: Final = 8.0
"""Seconds that a machine with a load of 15 may be late. No test asserts less: what is immediate is shown by its order,
or by an interval that is much longer."""

TYPICAL: Final = 1.0
"""Seconds of the median response, unless `/-/healthy` is slow too. One that waits for a dependency takes seconds."""

RATIO: Final = 20.0
"""How many times as long as `/-/healthy` the median response may take on a slow machine."""

NEIGHBOUR: Final = "neighbour"
_LIMIT: Final = 50.0
"""Seconds for one test, below the limit of pytest-timeout, whose signal no callback of uvloop receives."""

_HEALTHY_FROM_THE_START: Final = [Status.CONNECTING, Status.HEALTHY]


def on_uvloop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run ``test`` on the event loop that the exporter itself runs on, and leave no task behind."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def whole() -> None:
            async with asyncio.timeout(_LIMIT):
                await test(*args, **kwargs)
            await asyncio.sleep(0.01)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks left behind: {left}"

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(whole())

    return run


@dataclass(frozen=True, slots=True)
class Seen:
    """A transition, when it was received (monotonic), and for when the next attempt was planned then (wall clock)."""

    transition: Transition
    at: float
    next_attempt_at: float | None


class Watched:
    """A running exporter."""

    def __init__(self, monitor: Monitor, port: int) -> None:
        self.monitor = monitor
        self.port = port
        self.seen: list[Seen] = []
        monitor.board.subscribe(self._see)

    def record(self, name: str) -> Record:
        return self.monitor.board.record(name)

    async def until(
        self,
        name: str,
        status: Status,
        reason: Reason | None = None,
        *,
        within: float,
        since: float | None = None,
    ) -> float:
        """Wait for ``name`` to get into ``status`` with ``reason`` (any, if none), and return when it did.

        With ``since``, a transition that has passed already counts too, if it came after that moment.
        """
        deadline = time.monotonic() + within + SLACK
        while True:
            for seen in self.seen:
                reported = seen.transition
                if since is None or seen.at < since or reported.name != name or reported.status is not status:
                    continue
                if reason in (None, reported.reason):
                    return seen.at
            record = self.record(name)
            if since is None and record.status is status and reason in (None, record.trouble.reason):
                return max(seen.at for seen in self.seen if seen.transition.name == name)
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{name} is not {status} ({reason or 'any reason'}) after {within:g} s, but {record.status} "
                    f"({record.trouble.reason}: {record.trouble.message}); it was {self.path(name)}"
                )
            await asyncio.sleep(0.005)

    async def healthy(self, *names: str, within: float = 10.0) -> float:
        """Wait until all of ``names`` (everybody, if none) are healthy; return when the last became so."""
        everybody = names or self.monitor.board.names
        return max([await self.until(name, Status.HEALTHY, within=within) for name in everybody])

    async def holds(self, condition: Callable[[], bool], *, within: float) -> None:
        """Wait until ``condition`` holds. Raises AssertionError."""
        deadline = time.monotonic() + within + SLACK
        while not condition():
            assert time.monotonic() < deadline, f"not within {within:g} s"
            await asyncio.sleep(0.005)

    def path(self, name: str) -> list[str]:
        """All that ``name`` has gone through, as status and reason."""
        mine = [seen.transition for seen in self.seen if seen.transition.name == name]
        return [f"{t.status}/{t.reason}" if t.reason else str(t.status) for t in mine]

    def undisturbed(self, *names: str) -> None:
        """Hold that ``names`` became healthy and have been so ever since."""
        for name in names:
            statuses = [seen.transition.status for seen in self.seen if seen.transition.name == name]
            assert statuses == _HEALTHY_FROM_THE_START, f"{name}: {self.path(name)}"

    def replaced_at_once(self, name: str, at: float) -> None:
        """Hold that ``name`` planned no delay when it lost its session ``at`` that moment, and was healthy next."""
        mine = [seen for seen in self.seen if seen.transition.name == name]
        lost, back = next(pair for pair in pairwise(mine) if pair[0].at == at)
        assert lost.next_attempt_at is not None
        assert lost.next_attempt_at <= lost.transition.at
        assert back.transition.status is Status.HEALTHY

    async def get(self, path: str) -> bytes:
        """Return what a route answers."""
        return await asyncio.to_thread(self._get, path)

    async def detailed(self, name: str) -> dict[str, Any]:
        """Return one service of /health/detailed."""
        service: dict[str, Any] = json.loads(await self.get("/health/detailed"))["services"][name]
        return service

    async def sample(self, metric: str, **labels: str) -> float | None:
        """Return the value of a sample of /metrics; ``None`` where it is absent."""
        text = (await self.get("/metrics")).decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == metric and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None

    def _see(self, transition: Transition) -> None:
        record = self.monitor.board._records[transition.name]  # `record` would mark others as overdue first
        self.seen.append(Seen(transition, time.monotonic(), record.next_attempt_at))

    def _get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()


class Reader(threading.Thread):
    """Reads routes again and again, from outside the event loop, and keeps the times."""

    def __init__(self, port: int, *, every: float = 0.05) -> None:
        super().__init__(name="reader", daemon=True)
        self.seconds: list[float] = []
        self.baseline: list[float] = []
        self.trouble: Exception | None = None
        self._port = port
        self._every = every
        self._over = threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            while not self._over.wait(self._every):
                for path in ("/-/healthy", "/metrics", "/health/detailed"):
                    times = self.baseline if path == "/-/healthy" else self.seconds
                    began = time.monotonic()
                    connection.request("GET", path)
                    answer = connection.getresponse()
                    answer.read()
                    times.append(time.monotonic() - began)
                    if answer.status != 200:
                        raise AssertionError(f"{path} answered {answer.status}")
        except Exception as error:  # noqa: BLE001 - it is reported where the test can fail
            self.trouble = error
        finally:
            connection.close()

    def stop(self) -> None:
        """Stop reading."""
        self._over.set()
        if self.ident is not None:
            self.join()

    def judge(self) -> None:
        """Assert that all answers were good, and came from memory."""
        if self.trouble is not None:
            raise AssertionError("a route did not answer") from self.trouble
        if self.seconds:
            middle, simplest = statistics.median(self.seconds), statistics.median(self.baseline)
            print(
                f"{len(self.seconds)} answers, median {middle * 1e3:.1f} ms, /-/healthy {simplest * 1e3:.1f} ms"
            )
            assert middle < max(RATIO * simplest, TYPICAL), (
                f"the median was {middle:.3f} s, of /-/healthy {simplest:.3f} s"
            )


@asynccontextmanager
async def watching(config: str, *, neighbour: bool = True, read: bool = True) -> AsyncIterator[Watched]:
    """Run the exporter with ``config`` and a healthy neighbour, who has to stay so until the end."""
    with tempfile.TemporaryDirectory() as folder:
        if neighbour:
            config = config.replace("services:\n", f"services:\n{_neighbour(Path(folder, 'pid'))}", 1)
        sockets = bind(["127.0.0.1:0"])  # from here on the kernel takes connections
        port = sockets[0].getsockname()[1]
        async with serving(load_text(config, environ={}), sockets) as monitor:
            watched = Watched(monitor, port)
            reader = Reader(port)
            if read:
                reader.start()
            try:
                yield watched
            finally:
                await asyncio.to_thread(reader.stop)
            if neighbour:
                await watched.healthy(NEIGHBOUR)
                watched.undisturbed(NEIGHBOUR)
    reader.judge()


def _neighbour(pidfile: Path) -> str:
    """Return the config of the neighbour: this very process."""
    pidfile.write_text(str(os.getpid()))
    return f"  {NEIGHBOUR}: {{kind: process, pidfile: {pidfile}, interval: 500ms, timeout: 500ms}}\n"
