"""Serves a board of many services with nothing behind it, to measure what answers cost: a program of `answers`.

The services are of the five kinds, with the details that their real checks give, but their results are made up and
come in on request. Everything from the socket to the board is what `serve` runs.

    python -m benchmarks.board_server PORT SERVICES
"""

import asyncio
import random
import sys
import time
from collections.abc import Mapping
from typing import Final

import uvloop

from exporter.board import Board
from exporter.building import build
from exporter.check import Json, MetricType, Observation, Service
from exporter.clock import SystemClock
from exporter.config import EXAMPLE, load_text
from exporter.core.health import Event
from exporter.net import Network
from exporter.publish.api import Api
from exporter.publish.own_metrics import OwnMetrics
from exporter.publish.server import Server, bind
from exporter.record import Report

_CHANGED: Final = 6
"""One service in so many has a new result at each scrape: an interval of 30 s, scraped every 5 s."""

_OTHERS: Final[Mapping[str, Json]] = {"server_version": "16.2", "reused_connection": True, "body_bytes": 48}


class Lag:
    """The longest time that the event loop was held up while this was looking, which costs CPU itself."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._looking: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Begin anew."""
        self.worst = 0.0
        self._looking = self._looking or asyncio.create_task(self._look())

    def stop(self) -> None:
        """Look no longer."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def _look(self) -> None:
        before = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            self.worst = max(self.worst, now - before)
            before = now


def services(count: int) -> list[Service]:
    """Return the services of the example config again and again, each with a name of its own."""
    example = build(load_text(EXAMPLE).services, Network())
    chosen = (example[number % len(example)] for number in range(count))
    return [Service(f"{s.kind}_{i}", s.kind, s.check, s.policy) for i, s in enumerate(chosen)]


def change(board: Board, *, share: int) -> None:
    """Have one service of every ``share`` answer."""
    offset = random.randrange(share)
    for name in board.names[offset::share]:
        metrics = board.record(name).service.check.traits.metrics
        details: dict[str, Json] = {
            m.source: random.random() for m in metrics if m.type is not MetricType.COUNTER
        }
        counts = {m.source: 1.0 for m in metrics if m.type is MetricType.COUNTER}
        planned = board.clock.monotonic() + 3600.0
        seen = Observation(details={**_OTHERS, **details}, counts=counts)
        board.put(name, Report(Event.ANSWERED_GOOD, None, "", seen, random.random() / 500, True, planned))


async def serve(port: int, count: int) -> None:
    """Serve until standard input ends; each line of it is a request, answered by a line."""
    board, lag = Board(services(count), SystemClock()), Lag()
    change(board, share=1)
    board.active = True
    own = OwnMetrics(board, dropped=lambda: 0)

    async def nothing(_: str | None) -> None:
        """Check nothing."""

    api = Api(board, own.registry, force_check=nothing, ready=lambda: True)
    server = Server(api.app, bind([f"127.0.0.1:{port}"]))
    serving = asyncio.create_task(server.serve())
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        match line.strip():
            case "change":
                change(board, share=_CHANGED)
            case "look":
                lag.look()
            case "stop":
                lag.stop()
        print(lag.worst, flush=True)
    lag.stop()
    server.stop()
    await serving


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), int(sys.argv[2])))
