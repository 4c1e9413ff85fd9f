"""Runs the exporter and tells of each transition and when it happened: a program of `held`.

    python -m benchmarks.watched CONFIG PORT

Prints `transition NAME STATUS TIME CPU` and, twice a second, `lag SECONDS`, the longest that the event loop was late
since the last of these lines. Times are those of the monotonic clock, which all processes share; CPU is the seconds
that our one thread has used.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Final

import uvloop

from exporter import garbage, logs
from exporter.app import serving
from exporter.config import load
from exporter.publish.server import bind
from exporter.record import Transition

_LOOK: Final = 0.005


class Teller:
    """Keeps what is to be told, for a write to a pipe costs as much as the loss that it would tell of."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def heard(self, transition: Transition) -> None:
        """Note a transition, and when it was."""
        now, cpu = time.monotonic(), time.thread_time()
        self._lines.append(f"transition {transition.name} {transition.status.value} {now} {cpu}")

    async def run(self) -> None:
        """Tell what there is, for ever; in a thread, since nobody may be reading for a while."""
        while True:
            await asyncio.sleep(_LOOK)
            lines, self._lines = self._lines, []
            if lines:
                await asyncio.to_thread(print, *lines, sep="\n", flush=True)

    async def measure_lag(self) -> None:
        """Look at the clock every 5 ms, for ever."""
        worst, tell_at = 0.0, time.monotonic() + 0.5
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            worst = max(worst, now - before - _LOOK)
            if now > tell_at:
                self._lines.append(f"lag {worst}")
                worst, tell_at = 0.0, now + 0.5


async def main(config: Path, port: int) -> None:
    """Serve until standard input ends."""
    logs.configure(level="info")
    async with serving(load(config), bind([f"127.0.0.1:{port}"])) as monitor:
        teller = Teller()
        monitor.board.subscribe(teller.heard)
        garbage.settle()
        tasks = [asyncio.create_task(work) for work in (teller.run(), teller.measure_lag())]
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1]), int(sys.argv[2])))
