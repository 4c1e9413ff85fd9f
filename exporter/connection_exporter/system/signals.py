"""Turns the process's signals into events: SIGINT and SIGTERM into a request to stop, SIGHUP into one to reload.

The event loop's own signal handlers end with the loop, and restore the default action. A second SIGTERM would then kill
a process that is about to exit with 0, and so would a SIGHUP.
"""

import asyncio
import signal
from contextlib import suppress
from typing import Final

from connection_exporter.system.wakeup import Wakeup

_STOP: Final = (signal.SIGINT, signal.SIGTERM)


def asked_to_stop() -> asyncio.Event:
    """Return an event that the first SIGINT or SIGTERM sets; later ones are ignored.

    Call it in the main thread, in a running loop.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def asked(*_: object) -> None:
        for number in _STOP:
            signal.signal(number, signal.SIG_IGN)
        loop.call_soon_threadsafe(stop.set)

    for number in _STOP:
        signal.signal(number, asked)
    return stop


def hung_up() -> Wakeup:
    """Return what each SIGHUP sets, from now to the end of the process. Call it as `asked_to_stop`."""
    hangup, loop = Wakeup(), asyncio.get_running_loop()

    def asked(*_: object) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(hangup.set)

    signal.signal(signal.SIGHUP, asked)
    return hangup
