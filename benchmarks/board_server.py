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
from itertools import count
from typing import Final

import uvloop
from connection_exporter.config import EXAMPLE
from connection_exporter.core.health import Event
from connection_exporter.kind import Json, MetricType, Observation, Service
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import build
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Report
from connection_exporter.net import Network
from connection_exporter.system.clock import SystemClock
from connection_exporter.web.api import Api
from connection_exporter.web.own_metrics import OwnMetrics
from connection_exporter.web.server import WebServer, bind

CHANGED: Final = 6
"""One service in so many has a new result at each scrape: an interval of 30 s, scraped every 5 s. So each has one at
every sixth scrape, together with the same others."""

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


def services(size: int) -> list[Service]:
    """Return the services of the example config again and again, each with a name of its own."""
    example = build(load_text(EXAMPLE).services, Network())
    chosen = (example[number % len(example)] for number in range(size))
    return [Service(f"{s.kind}_{i}", s.kind, s.check, s.policy) for i, s in enumerate(chosen)]


def change(board: Board, *, share: int, turn: int) -> None:
    """Have one service of every ``share`` answer: others at each ``turn``."""
    for name in board.names[turn % share :: share]:
        metrics = board.record(name).service.check.traits.metrics
        details: dict[str, Json] = {
            m.source: random.random() for m in metrics if m.type is not MetricType.COUNTER
        }
        counts = {m.source: 1.0 for m in metrics if m.type is MetricType.COUNTER}
        planned = board.clock.monotonic() + 3600.0
        seen = Observation(details={**_OTHERS, **details}, counts=counts)
        board.put(name, Report(Event.ANSWERED_GOOD, None, "", seen, random.random() / 500, True, planned))


async def serve(port: int, size: int) -> None:
    """Serve until standard input ends; each line of it is a request, answered by a line."""
    board, lag = Board(services(size), SystemClock()), Lag()
    change(board, share=1, turn=0)
    board.active = True
    own = OwnMetrics(board, callbacks_dropped=lambda: 0)

    async def nothing(_: str | None) -> None:
        """Check nothing."""

    api = Api(board, own.registry, force_check=nothing, ready=lambda: True)
    server = WebServer(api.app, bind([f"127.0.0.1:{port}"]))
    serving = asyncio.create_task(server.serve())
    loop = asyncio.get_running_loop()
    turns = count()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        match line.strip():
            case "change":
                change(board, share=CHANGED, turn=next(turns))
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
