"""Runs the exporter and prints each transition with its time: a program of `held`.

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
from connection_exporter.app import serving
from connection_exporter.kinds import load
from connection_exporter.monitor.record import Transition
from connection_exporter.runtime.logs import log_to_stderr
from connection_exporter.system import collector as garbage
from connection_exporter.web.server import bind

_LOOK: Final = 0.005


class Teller:
    """Keeps the lines to print, because a write to a pipe costs as much as the loss that it reports."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def heard(self, transition: Transition) -> None:
        """Note a transition, and when it was."""
        now, cpu = time.monotonic(), time.thread_time()
        self._lines.append(f"transition {transition.name} {transition.status.value} {now} {cpu}")

    async def run(self) -> None:
        """Print the lines, in a thread, because the reader of the pipe can be slow."""
        while True:
            await asyncio.sleep(_LOOK)
            lines, self._lines = self._lines, []
            if lines:
                await asyncio.to_thread(print, *lines, sep="\n", flush=True)

    async def measure_lag(self) -> None:
        """Look at the clock every 5 ms."""
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
    with log_to_stderr(level="info", replace_streams=False):
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
