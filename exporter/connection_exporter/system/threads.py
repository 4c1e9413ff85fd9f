"""Runs blocking work in threads and brings its result back to the event loop.

`run_in_pool` is for work that takes a little CPU and waits for nothing. It has a few threads that stay: to start one
blocks the event loop until it runs, for milliseconds if the CPUs are busy.

`run_in_thread` is for any other work. The threads of a pool are shared, and `concurrent.futures` joins them when the
process exits. One call that hangs, such as reading a file on a dead mount, would hold up the others and the exit. So
each call gets a daemon thread of its own.
"""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Thread
from typing import Final, Generic, TypeVar, cast

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)


_POOL: Final = ThreadPoolExecutor(4, thread_name_prefix="pool")


class NoThread(Exception):
    """The system refuses to start a thread: a limit of processes is reached."""


class WorkDied(Exception):
    """Work in a thread ended with an exception that must not cross into the event loop, such as SystemExit.

    The exception is the cause of this one.
    """


def start_in_thread(work: Callable[[], _T], *, name: str) -> "asyncio.Future[_T]":
    """Run ``work`` in a new daemon thread called ``name``; return the future of what it returns or raises.

    The future is completed on every exit path of ``work``, unless the loop has been closed. An exception that asyncio
    would not deliver (SystemExit and KeyboardInterrupt end the loop, StopIteration and CancelledError are taken for
    something else) becomes `WorkDied`. Raises `NoThread`.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[_T] = loop.create_future()

    def run() -> None:
        settle: Callable[[], None]
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001 - the waiting caller gets it
            problem = _deliverable(error)
            settle = lambda: _set_exception(result, problem)  # noqa: E731 - the name is needed below
        else:
            settle = lambda: _set_result(result, value)  # noqa: E731
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle)

    try:
        Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        raise NoThread(str(error)) from error
    return result


async def run_in_thread(work: Callable[[], _T], *, name: str) -> _T:
    """Run ``work`` in a new daemon thread called ``name``; return what it returns, or raise what it raises.

    A cancelled caller leaves the thread behind. Where no thread can be started, ``work`` runs in the caller's thread:
    a pause of the event loop is better than the end of the process. Raises `WorkDied` as `start_in_thread` does.
    """
    try:
        result = start_in_thread(work, name=name)
    except NoThread:
        return _deliverably(work)
    return await result


async def run_in_pool(work: Callable[[], _T]) -> _T:
    """Run ``work`` in one of a few threads; return what it returns, or raise what it raises.

    Where no thread can be started, it runs in the caller's. Raises `WorkDied` as `start_in_thread` does.
    """
    refused = False
    try:
        result = asyncio.get_running_loop().run_in_executor(
            _POOL, lambda: None if refused else _deliverably(work)
        )
    except RuntimeError:
        refused = True  # the pool keeps it, and runs it as soon as it has a thread
        return _deliverably(work)
    return cast("_T", await result)


class SharedWork(Generic[_K, _T]):
    """Work in threads, of which at most one call per key is in flight. Belongs to one event loop.

    A call that hangs therefore costs one thread, however often its callers give up and ask again.
    """

    def __init__(self) -> None:
        self._in_flight: dict[_K, asyncio.Future[_T]] = {}

    async def run(self, key: _K, work: Callable[[], _T], *, name: str) -> _T:
        """Join the call in flight for ``key``, or start ``work``. A cancelled caller does not disturb the others.

        Raises what ``work`` raises, `WorkDied`, and `NoThread`.
        """
        result = self._in_flight.get(key)
        if result is None:
            result = self._in_flight[key] = start_in_thread(work, name=name)
            result.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(result)

    def _ended(self, key: _K, done: "asyncio.Future[_T]") -> None:
        del self._in_flight[key]
        if not done.cancelled():
            done.exception()  # retrieved, so that asyncio does not log it when every caller has given up


def _deliverably(work: Callable[[], _T]) -> _T:
    """Return what ``work`` returns. Raise what it raises, or `WorkDied`: of a StopIteration, no future would end."""
    try:
        return work()
    except BaseException as error:
        if (problem := _deliverable(error)) is error:
            raise
        raise problem from error


def _deliverable(error: BaseException) -> Exception:
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    problem = WorkDied(f"unexpected {type(error).__name__} in a thread")
    problem.__cause__ = error
    return problem


def _set_result(future: "asyncio.Future[_T]", value: _T) -> None:
    if not future.done():  # the caller was cancelled
        future.set_result(value)


def _set_exception(future: "asyncio.Future[_T]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
