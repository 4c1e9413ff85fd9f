"""Runs a command's coroutine on uvloop."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

import uvloop

from connection_exporter.system import collector
from connection_exporter.system.log import get_logger

_END_WITHIN: Final = 1.0
"""Seconds in which the tasks of plug-ins have to end, after the monitor has."""

_unended: list["asyncio.Task[Any]"] = []
"""They are kept, because asyncio complains about a task that is forgotten before it has ended."""

_T = TypeVar("_T")


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run on uvloop, which needs half of asyncio's time for each probe. Call `leave` if plug-ins may run in it."""
    collector.resume()
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        return runner.run(work)
    finally:
        _end(runner.get_loop())


def run_until_done(work: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop, and continue if a task or a callback that is not ours raises SystemExit or KeyboardInterrupt.

    Event loops stop for these two, wherever they are raised: a plug-in's background task would end the process.
    Call `leave` afterwards.
    """
    collector.resume()
    loop = uvloop.new_event_loop()
    task = loop.create_task(work)
    try:
        while not task.done():
            try:
                loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as error:
                # Ctrl-C, while our own handler is not installed yet
                interrupted = signal.getsignal(signal.SIGINT) is signal.default_int_handler
                if task.done() or (isinstance(error, KeyboardInterrupt) and interrupted):
                    raise
                get_logger(__name__).error("exit_ignored", error=type(error).__name__, exc_info=error)
    finally:
        _end(loop)


def leave(status: int) -> int:
    """Return ``status``, or end the process with it if a plug-in's task or thread would keep the interpreter."""
    if _unended or any(not t.daemon for t in threading.enumerate() if t is not threading.main_thread()):
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(status)
    return status


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Close the loop, and end the tasks that are left, which are a plug-in's: `asyncio.Runner` would wait for them."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with suppress(SystemExit, KeyboardInterrupt):
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=_END_WITHIN))
        if all(task.done() for task in tasks):
            tasks = {loop.create_task(loop.shutdown_asyncgens())}
            loop.run_until_complete(asyncio.wait(tasks, timeout=_END_WITHIN))
    if unended := [task for task in tasks if not task.done()]:
        _unended.extend(unended)
    else:
        loop.close()
