"""Runs a command's coroutine on uvloop."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from connection_exporter.system import collector
from connection_exporter.system.log import get_logger

_T = TypeVar("_T")


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run on uvloop, which needs half of asyncio's time for each probe."""
    collector.resume()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def run_until_done(work: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop, and continue if a task or a callback that is not ours raises SystemExit or KeyboardInterrupt.

    Event loops stop for these two, wherever they are raised: a plug-in's background task would end the process.
    """
    collector.resume()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        task = runner.get_loop().create_task(work)
        while not task.done():
            try:
                runner.get_loop().run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as error:
                # Ctrl-C, while our own handler is not installed yet
                interrupted = signal.getsignal(signal.SIGINT) is signal.default_int_handler
                if task.done() or (isinstance(error, KeyboardInterrupt) and interrupted):
                    raise
                get_logger(__name__).error("exit_ignored", error=type(error).__name__, exc_info=error)
