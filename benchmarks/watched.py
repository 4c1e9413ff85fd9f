"""Runs the exporter and tells of each transition the moment it happens: a program of `held`.

    python -m benchmarks.watched CONFIG PORT

Prints `transition NAME STATUS TIME` and, twice a second, `lag SECONDS`, the longest that the event loop was late
since the last of these lines; times are those of the monotonic clock, which all processes share.
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


async def measure_lag() -> None:
    """Look at the clock every 5 ms, for ever."""
    worst, tell_at = 0.0, time.monotonic() + 0.5
    while True:
        before = time.monotonic()
        await asyncio.sleep(_LOOK)
        now = time.monotonic()
        worst = max(worst, now - before - _LOOK)
        if now > tell_at:
            print("lag", worst, flush=True)
            worst, tell_at = 0.0, now + 0.5


def tell(transition: Transition) -> None:
    """Tell of a transition."""
    print("transition", transition.name, transition.status.value, time.monotonic(), flush=True)


async def main(config: Path, port: int) -> None:
    """Serve until standard input ends."""
    logs.configure(level="info")
    async with serving(load(config), bind([f"127.0.0.1:{port}"])) as monitor:
        monitor.board.subscribe(tell)
        garbage.settle()
        lag = asyncio.create_task(measure_lag())
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        lag.cancel()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1]), int(sys.argv[2])))
