"""Passes transitions to callbacks without ever waiting for one: a bounded queue and a worker for each.

A coroutine function runs in a task of its own, a plain function in a daemon thread of its own. A callback that is too
slow loses its oldest transitions, which are counted. One that raises is logged and called again.
"""

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import Condition, Thread
from typing import Any, Final, cast

from connection_exporter.monitor.details import presentable
from connection_exporter.monitor.record import Transition
from connection_exporter.system.log import get_logger

QUEUE_SIZE: Final = 1000
REPORT_EVERY: Final = 60.0
"""Seconds between log lines about one callback that keeps raising."""

_FINISH_WITHIN: Final = 1.0
"""Seconds that callbacks have at the end for what is still queued."""

Callback = Callable[[Transition], None] | Callable[[Transition], Awaitable[None]]
log = get_logger(__name__)


class Subscribers:
    """The subscribers of one monitor. `publish` feeds them; `aclose` ends them."""

    def __init__(self) -> None:
        self.dropped = 0
        self._workers: list[_TaskWorker | _ThreadWorker] = []
        self._leaving: list[_TaskWorker | _ThreadWorker] = []

    def add(self, callback: Callback) -> Callable[[], None]:
        """Call ``callback`` for each transition from now on, in order. Return the unsubscribe function."""
        worker: _TaskWorker | _ThreadWorker
        if inspect.iscoroutinefunction(inspect.unwrap(callback)) or inspect.iscoroutinefunction(
            getattr(callback, "__call__", None)  # noqa: B004 - an object may have an async __call__
        ):
            worker = _TaskWorker(cast("Callable[[Transition], Awaitable[None]]", callback))
        else:
            worker = _ThreadWorker(callback)
        self._workers.append(worker)

        def unsubscribe() -> None:
            if worker in self._workers:
                self._workers.remove(worker)
                self._leaving = [w for w in (*self._leaving, worker) if w.busy]
                worker.close()

        return unsubscribe

    def publish(self, transition: Transition) -> None:
        """Queue ``transition`` for every subscriber. Never blocks."""
        for worker in self._workers:
            self.dropped += worker.put(transition)

    async def aclose(self) -> None:
        """Give subscribers a second at most for what is queued, then end them."""
        workers, self._workers, self._leaving = [*self._workers, *self._leaving], [], []
        for worker in workers:
            worker.close()
        ends = [worker.ended for worker in workers if worker.ended is not None and worker.busy]
        if ends:
            _, late = await asyncio.wait(ends, timeout=_FINISH_WITHIN)
            for end in late:
                end.cancel()
            if late:
                await asyncio.wait(late, timeout=_FINISH_WITHIN)


class _Failures:
    """Logs the errors of one callback: the first with its text, the others as a number, once a minute."""

    def __init__(self, callback: object) -> None:
        self._name = _name(callback)
        self._count = 0
        self._reported = 0
        self._report_after = 0.0

    def add(self, error: BaseException) -> None:
        """Count an error, and log it if it is time. The text is the host's own, unlike that of a driver."""
        self._count += 1
        now = time.monotonic()
        if now >= self._report_after:
            text = presentable(f"{type(error).__name__}: {error}")
            since, self._reported = self._count - self._reported, self._count
            log.error("callback_failed", callback=self._name, error=text, failures=since, exc_info=error)
            self._report_after = now + REPORT_EVERY


class _TaskWorker:
    """Awaits a coroutine function for one transition after another."""

    def __init__(self, callback: Callable[[Transition], Awaitable[None]]) -> None:
        self.ended: asyncio.Future[None] | None = None
        self._callback = callback
        self._failures = _Failures(callback)
        self._queue: deque[Transition] = deque(maxlen=QUEUE_SIZE)
        self._more = asyncio.Event()
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether the task runs. Cancelling ``ended`` ends it."""
        return self.ended is not None and not self.ended.done()

    def put(self, transition: Transition) -> bool:
        """Queue, and return whether an older transition was dropped."""
        dropped = len(self._queue) == QUEUE_SIZE
        self._queue.append(transition)
        if self.ended is None:
            self.ended = asyncio.get_running_loop().create_task(self._run())
        self._more.set()
        return dropped

    def close(self) -> None:
        self._closed = True
        self._more.set()

    async def _run(self) -> None:
        while True:
            while self._queue:
                try:
                    await self._callback(self._queue.popleft())
                except BaseException as error:  # even SystemExit affects no other callback
                    task = asyncio.current_task()
                    if task is not None and task.cancelling():
                        raise
                    self._failures.add(error)
            if self._closed:
                return
            self._more.clear()
            await self._more.wait()


class _ThreadWorker:
    """Calls a plain function for one transition after another, in a thread, because it may block."""

    def __init__(self, callback: Callable[[Transition], object]) -> None:
        self.ended: asyncio.Future[None] | None = None
        self._callback = callback
        self._failures = _Failures(callback)
        self._queue: deque[Transition] = deque(maxlen=QUEUE_SIZE)
        self._more = Condition()
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether the thread runs. It cannot be cancelled: cancelling ``ended`` only ends the wait for it."""
        return self.ended is not None and not self.ended.done()

    def put(self, transition: Transition) -> bool:
        """Queue, and return whether an older transition was dropped."""
        with self._more:
            dropped = len(self._queue) == QUEUE_SIZE
            self._queue.append(transition)
            if self.ended is None:
                self._start()
            self._more.notify()
        return dropped

    def _start(self) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        name = _name(self._callback)
        try:
            Thread(target=self._run, args=(ended,), name=f"callback {name}", daemon=True).start()
        except RuntimeError as error:  # the next transition tries again, and what is queued is kept
            log.error("callback_delayed", callback=name, error=str(error))
        else:
            self.ended = ended

    def close(self) -> None:
        with self._more:
            self._closed = True
            self._more.notify()

    def _run(self, ended: "asyncio.Future[None]") -> None:
        while (transition := self._next()) is not None:
            try:
                self._callback(transition)
            except BaseException as error:  # noqa: BLE001 - as above
                self._failures.add(error)
        with suppress(RuntimeError):  # the loop is closed
            ended.get_loop().call_soon_threadsafe(_settle, ended)

    def _next(self) -> Transition | None:
        """Wait for the next transition; None when there will be no more."""
        with self._more:
            while not self._queue:
                if self._closed:
                    return None
                self._more.wait()
            return self._queue.popleft()


def _settle(ended: "asyncio.Future[None]") -> None:
    if not ended.done():
        ended.set_result(None)


def _name(callback: Any) -> str:
    return str(getattr(callback, "__qualname__", type(callback).__name__))
