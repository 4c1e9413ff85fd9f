"""Owns how the process is asked to end: by SIGINT or SIGTERM, of which only the first counts.

The loop's own signal handlers end with the loop, and a second SIGTERM would then kill a process that is
about to exit with 0.
"""

import asyncio
import signal
from typing import Final

_ASKS_TO_END: Final = (signal.SIGINT, signal.SIGTERM)


def asked_to_stop() -> asyncio.Event:
    """Return an event that is set by the first SIGINT or SIGTERM; all that follow are ignored.

    To be called in the main thread, in a running loop.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def asked(*_: object) -> None:
        for number in _ASKS_TO_END:
            signal.signal(number, signal.SIG_IGN)
        loop.call_soon_threadsafe(stop.set)

    for number in _ASKS_TO_END:
        signal.signal(number, asked)
    return stop
