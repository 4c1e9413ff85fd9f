"""Runs blocking work in threads and brings its result back to the event loop.

`run_in_pool` is for work that takes a little CPU and waits for nothing. It has a few threads that stay.

`run_in_thread` is for any other work. The threads of a pool are shared, so one call that hangs, such as reading a file
on a dead mount, would hold up the others. So each call has a daemon thread to itself: one that is idle, or a new one.

To start a thread takes 0.2 ms of CPU, and blocks the event loop until it runs, for milliseconds if the CPUs are busy.
"""

import asyncio
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, Generic, TypeVar

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)

_Job = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]
"""Work, the future of its outcome, and the event loop of that."""


class NoThread(Exception):
    """The system refuses to start a thread: a limit of processes is reached."""


class WorkDied(Exception):
    """Work in a thread ended with an exception that must not cross into the event loop, such as SystemExit.

    The exception is the cause of this one.
    """


_IDLE_FOR: Final = 10.0
"""Seconds for which a thread waits for other work before it ends."""


class _Worker(Thread):
    """A thread that does one job, and then others, if there are any within `_IDLE_FOR`."""

    idle: Final[list["_Worker"]] = []
    """All that wait. Several threads may change it: each method of a list is atomic."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._jobs: SimpleQueue[_Job] = SimpleQueue()

    def give(self, job: _Job, name: str) -> None:
        """Have the thread do ``job``, and be called ``name`` meanwhile. It must be new, or taken from ``idle``."""
        self.name = name
        self._jobs.put(job)

    def run(self) -> None:
        """Do one job after another."""
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE_FOR)
            except Empty:
                try:
                    self.idle.remove(self)
                except ValueError:
                    continue  # it has just been taken
                return
            _do(*job)
            del job  # with its result
            self.name = "idle"
            self.idle.append(self)


class _Pool:
    """At most ``size`` threads, started as they are needed, that stay.

    Work that is cancelled before it begins is left out. With `ThreadPoolExecutor`, a connection over
    TLS would take 660 opcodes more, a quarter.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._started = 0
        self._idle: list[None] = []  # one for each thread that waits, until all are started
        self._jobs: SimpleQueue[_Job] = SimpleQueue()

    def submit(self, job: _Job) -> None:
        """Have a thread do ``job``. Raises `NoThread` if there is none, and none can be started."""
        if self._started < self._size:
            try:
                self._idle.pop()
            except IndexError:
                self._start_another()
        self._jobs.put(job)

    def _start_another(self) -> None:
        try:
            Thread(target=self._work, name="pool", daemon=True).start()
        except RuntimeError as error:
            if not self._started:
                raise NoThread(str(error)) from error
        else:
            self._started += 1

    def _work(self) -> None:
        while True:
            work, result, loop = self._jobs.get()
            if not result.cancelled():
                _do(work, result, loop)
            del work, result  # they may be large, and the next job may be far off
            if self._started < self._size:
                self._idle.append(None)


_POOL: Final = _Pool(4)


def start_in_thread(work: Callable[[], _T], *, name: str) -> "asyncio.Future[_T]":
    """Run ``work`` in a daemon thread called ``name``; return the future of what it returns or raises.

    The future is completed on every exit path of ``work``, unless the loop has been closed. An exception that asyncio
    would not deliver (SystemExit and KeyboardInterrupt end the loop, StopIteration and CancelledError are taken for
    something else) becomes `WorkDied`. Raises `NoThread`.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[_T] = loop.create_future()

    try:
        worker = _Worker.idle.pop()
    except IndexError:
        worker = _Worker()
        try:
            worker.start()
        except RuntimeError as error:
            raise NoThread(str(error)) from error
    worker.give((work, result, loop), name)
    return result


async def run_in_thread(work: Callable[[], _T], *, name: str) -> _T:
    """Run ``work`` in a daemon thread called ``name``; return what it returns, or raise what it raises.

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
    loop = asyncio.get_running_loop()
    result: asyncio.Future[_T] = loop.create_future()
    try:
        _POOL.submit((work, result, loop))
    except NoThread:
        return _deliverably(work)
    return await result


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


def _do(work: Callable[[], _T], result: "asyncio.Future[_T]", loop: asyncio.AbstractEventLoop) -> None:
    """Do ``work``, and complete ``result`` in its event loop."""
    try:
        value = work()
    except BaseException as error:  # noqa: BLE001 - the waiting caller gets it
        settle: Callable[[], object] = partial(_set_exception, result, _deliverable(error))
    else:
        settle = partial(_set_result, result, value)
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(settle)


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
