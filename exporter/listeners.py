"""Owns telling subscribers of transitions without ever waiting for one: a bounded queue and a worker each.

A coroutine function runs in a task of its own, a plain function in a daemon thread of its own. One that
is too slow loses its oldest transitions, counted; one that raises is logged and goes on.
"""

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import Condition, Thread
from typing import Any, Final, cast

import structlog

from exporter.record import Transition

QUEUE_SIZE: Final = 1000
_LAST_WORDS: Final = 1.0
"""Seconds that subscribers have at the end for what is still queued."""

Callback = Callable[[Transition], None] | Callable[[Transition], Awaitable[None]]
log = structlog.get_logger()


class Listeners:
    """The subscribers of one monitor. Feed it by `tell`; end it by `aclose`."""

    def __init__(self) -> None:
        self.dropped = 0
        self._workers: list[_TaskWorker | _ThreadWorker] = []
        self._leaving: list[_TaskWorker | _ThreadWorker] = []

    def add(self, callback: Callback) -> Callable[[], None]:
        """Call ``callback`` for each transition from now on, in order. Returns the unsubscriber."""
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

    def tell(self, transition: Transition) -> None:
        """Queue ``transition`` for every subscriber; never blocks."""
        for worker in self._workers:
            self.dropped += worker.put(transition)

    async def aclose(self) -> None:
        """Let subscribers have what is queued, for a second at the most, then end them."""
        workers, self._workers, self._leaving = [*self._workers, *self._leaving], [], []
        for worker in workers:
            worker.close()
        ends = [worker.end() for worker in workers if worker.busy]
        if ends:
            _, late = await asyncio.wait(ends, timeout=_LAST_WORDS)
            for end in late:
                end.cancel()
            if late:
                await asyncio.wait(late, timeout=_LAST_WORDS)


class _TaskWorker:
    """Runs a coroutine function for one transition after the other."""

    def __init__(self, callback: Callable[[Transition], Awaitable[None]]) -> None:
        self._callback = callback
        self._queue: deque[Transition] = deque(maxlen=QUEUE_SIZE)
        self._more = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether there is something to wait for, once it was closed."""
        return self._task is not None and not self._task.done()

    def end(self) -> "asyncio.Future[None]":
        """Return what is done when a busy worker that was closed has ended; to cancel it ends the worker."""
        assert self._task is not None
        return self._task

    def put(self, transition: Transition) -> bool:
        """Queue, and tell whether an older one had to go."""
        dropped = len(self._queue) == QUEUE_SIZE
        self._queue.append(transition)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
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
                except asyncio.CancelledError as error:
                    task = asyncio.current_task()
                    if task is not None and task.cancelling():
                        raise
                    log.error("callback_failed", callback=_name(self._callback), exc_info=error)
                except Exception as error:  # a subscriber's mistake is its own
                    log.error("callback_failed", callback=_name(self._callback), exc_info=error)
            if self._closed:
                return
            self._more.clear()
            await self._more.wait()


class _ThreadWorker:
    """Runs a plain function for one transition after the other, in a thread, for it may block."""

    def __init__(self, callback: Callable[[Transition], object]) -> None:
        self._callback = callback
        self._queue: deque[Transition] = deque(maxlen=QUEUE_SIZE)
        self._more = Condition()
        self._closed = False
        self._ended: asyncio.Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether there is something to wait for, once it was closed."""
        return self._ended is not None and not self._ended.done()

    def end(self) -> "asyncio.Future[None]":
        """Return what is done when a busy worker that was closed has ended. A thread cannot be cancelled."""
        assert self._ended is not None
        return self._ended

    def put(self, transition: Transition) -> bool:
        """Queue, and tell whether an older one had to go."""
        with self._more:
            dropped = len(self._queue) == QUEUE_SIZE
            self._queue.append(transition)
            if self._ended is None:
                self._begin()
            self._more.notify()
        return dropped

    def _begin(self) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        name = _name(self._callback)
        try:
            Thread(target=self._run, args=(ended,), name=f"callback {name}", daemon=True).start()
        except RuntimeError as error:  # the next transition is another chance, and what is queued stays
            log.error("callback_delayed", callback=name, error=str(error))
        else:
            self._ended = ended

    def close(self) -> None:
        with self._more:
            self._closed = True
            self._more.notify()

    def _run(self, ended: "asyncio.Future[None]") -> None:
        while (transition := self._next()) is not None:
            try:
                self._callback(transition)
            except Exception as error:  # a subscriber's mistake is its own
                log.error("callback_failed", callback=_name(self._callback), exc_info=error)
        with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits any more
            ended.get_loop().call_soon_threadsafe(_settle, ended)

    def _next(self) -> Transition | None:
        """Wait for the next transition; ``None`` when there will be no more."""
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
