"""Owns work that would hold up the event loop: a daemon thread for each call.

Not the loop's default executor: its few threads are shared, and one call that hangs, such as reading a file
on a dead mount, would hold up the others and the exit of the process.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

_T = TypeVar("_T")


async def aside(work: Callable[[], _T]) -> _T:
    """Run ``work`` in a thread and return what it returns, or raise what it raises.

    Where no thread can be had (a limit of processes is reached), it runs here: a pause is better than the end.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[_T] = loop.create_future()

    def settle(value: _T | None, error: Exception | None) -> None:
        if result.done():  # whoever waited was cancelled
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value, problem = None, None
        try:
            value = work()
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            problem = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, value, problem)

    try:
        Thread(target=run, name="aside", daemon=True).start()
    except RuntimeError:
        return work()
    return await result
