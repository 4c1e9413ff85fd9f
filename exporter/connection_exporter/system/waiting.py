"""Waits for blocking work outside an event loop. Imports no asyncio, which takes 15 ms of the start of a command."""

from collections.abc import Callable
from threading import Event, Thread
from typing import Generic, TypeVar

_T = TypeVar("_T")


class _Work(Generic[_T]):
    """What runs in a thread, and how it has ended."""

    def __init__(self, work: Callable[[], _T]) -> None:
        self._work = work
        self._ended = Event()
        self._values: list[_T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._values.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised by `result`
            self._error = error
        finally:
            self._ended.set()

    def result(self, within: float | None) -> _T:
        if not self._ended.wait(within):
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._values[0]


def wait_for_thread(work: Callable[[], _T], *, name: str, within: float | None = None) -> _T:
    """Run ``work`` in a daemon thread and wait for it, outside an event loop; return or raise what it does.

    While it blocks on a file system that does not respond, signal handlers still run. Raises TimeoutError after
    ``within`` seconds.
    """
    running = _Work(work)
    try:
        Thread(target=running.run, name=name, daemon=True).start()
    except RuntimeError:  # no thread can be started
        return work()
    return running.result(within)
