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
from typing import Any, Final

import uvloop
from connection_exporter.app import serving
from connection_exporter.kinds import load
from connection_exporter.monitor.record import Transition
from connection_exporter.runtime.logs import log_to_stderr
from connection_exporter.system import collector as garbage
from connection_exporter.web.server import bind

_LOOK: Final = 0.005


class Teller:
    """Keeps what is to be printed until no more comes: to print a line costs as much as the loss that it reports."""

    def __init__(self) -> None:
        self._kept: list[tuple[Any, ...]] = []

    def heard(self, transition: Transition) -> None:
        """Note a transition, and when it was."""
        self._kept.append(
            ("transition", transition.name, transition.status, time.monotonic(), time.thread_time())
        )

    async def run(self) -> None:
        """Print what is kept, in a thread, because the reader of the pipe can be slow."""
        seen = 0
        while True:
            await asyncio.sleep(_LOOK)
            if len(self._kept) > seen:
                seen = len(self._kept)
            elif self._kept:
                kept, self._kept, seen = self._kept, [], 0
                await asyncio.to_thread(_print, kept)

    async def measure_lag(self) -> None:
        """Look at the clock every 5 ms."""
        worst, tell_at = 0.0, time.monotonic() + 0.5
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            worst = max(worst, now - before - _LOOK)
            if now > tell_at:
                self._kept.append(("lag", worst))
                worst, tell_at = 0.0, now + 0.5


def _print(lines: list[tuple[Any, ...]]) -> None:
    print("\n".join(" ".join(map(str, line)) for line in lines), flush=True)


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
