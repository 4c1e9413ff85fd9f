"""Callbacks are called in order, and none of them can hold up the monitor or another callback."""

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from connection_exporter.core.health import Status
from connection_exporter.monitor import subscribers as monitor_subscribers
from connection_exporter.monitor.record import Transition
from connection_exporter.monitor.subscribers import QUEUE_SIZE, Callback, Subscribers
from support.logs import captured_logs

Record = Callable[[Transition], None]


def change(number: int) -> Transition:
    return Transition("it", "scripted", Status.HEALTHY, Status.CONNECTING, None, "", float(number))


@pytest.fixture
async def subscribers() -> AsyncIterator[Subscribers]:
    """Give subscribers that are ended after the test, and see that they leave no task."""
    subscribers = Subscribers()
    yield subscribers
    await subscribers.aclose()
    assert workers() == []


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[dict[str, Any]]]:
    """Give what is logged."""
    with captured_logs() as events:
        yield events


def workers() -> list[str]:
    """Return the tasks that run callbacks now."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("_TaskWorker")]


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def coroutine_function(record: Record) -> Callback:
    async def callback(transition: Transition) -> None:
        await asyncio.sleep(0)
        record(transition)

    return callback


def plain_function(record: Record) -> Callback:
    def callback(transition: Transition) -> None:
        record(transition)

    return callback


def partial_of_a_coroutine_function(record: Record) -> Callback:
    async def callback(_: str, transition: Transition) -> None:
        record(transition)

    return functools.partial(callback, "bound")


def object_with_an_async_call(record: Record) -> Callback:
    class AsyncCall:
        async def __call__(self, transition: Transition) -> None:
            record(transition)

    return AsyncCall()


def method_of_an_object(record: Record) -> Callback:
    class Owner:
        def reported(self, transition: Transition) -> None:
            record(transition)

    return Owner().reported


KINDS = [
    coroutine_function,
    plain_function,
    partial_of_a_coroutine_function,
    object_with_an_async_call,
    method_of_an_object,
]
BOTH = [coroutine_function, plain_function]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_callback_gets_each_transition_in_order(
    kind: Callable[[Record], Callback], subscribers: Subscribers
) -> None:
    """Of whatever kind it is: a coroutine is awaited, a function is called."""
    seen: list[float] = []
    subscribers.add(kind(lambda t: seen.append(t.at)))
    for number in range(200):
        subscribers.publish(change(number))
    await until(lambda: len(seen) == 200)
    assert seen == list(range(200))
    assert subscribers.dropped == 0


async def test_a_coroutine_runs_in_the_loop_and_a_function_outside_it(subscribers: Subscribers) -> None:
    """So that a function may block."""
    threads: dict[str, threading.Thread] = {}
    subscribers.add(coroutine_function(lambda _: threads.update(coroutine=threading.current_thread())))
    subscribers.add(plain_function(lambda _: threads.update(function=threading.current_thread())))
    subscribers.publish(change(1))
    await until(lambda: len(threads) == 2)
    assert threads["coroutine"] is threading.current_thread()
    assert threads["function"] is not threading.current_thread()
    assert threads["function"].daemon


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("kind", BOTH)
async def test_a_callback_that_raises_goes_on_with_the_next(
    kind: Callable[[Record], Callback],
    subscribers: Subscribers,
    logged: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    """It is logged once, with the error's text, and a minute later with how often since."""
    seen: list[float] = []
    monkeypatch.setattr(monitor_subscribers, "REPORT_EVERY", 60.0)

    def raising(transition: Transition) -> None:
        seen.append(transition.at)
        if transition.at == 3:
            monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 61)
        raise error("of the callback")

    subscribers.add(kind(raising))
    for number in range(4):
        subscribers.publish(change(number))
    await until(lambda: len(seen) == 4)
    assert seen == [0, 1, 2, 3]
    await until(lambda: len(logged) == 2)
    assert [(line["event"], line["error"], line["failures"]) for line in logged] == [
        ("callback_failed", f"{error.__name__}: of the callback", 1),
        ("callback_failed", f"{error.__name__}: of the callback", 3),
    ]


async def test_a_callback_that_ends_as_if_cancelled_goes_on_with_the_next(subscribers: Subscribers) -> None:
    """As one does that awaits a cancelled task."""
    seen: list[float] = []

    async def cancelled(transition: Transition) -> None:
        seen.append(transition.at)
        raise asyncio.CancelledError

    subscribers.add(cancelled)
    for number in range(3):
        subscribers.publish(change(number))
    await until(lambda: len(seen) == 3)


async def test_a_coroutine_that_never_returns_holds_up_nobody_and_drops_the_oldest() -> None:
    """A thousand wait for it, the newest; what had to go is counted; the end of it all takes a second."""
    subscribers, release, stuck, free = Subscribers(), asyncio.Event(), list[float](), list[float]()

    async def never(transition: Transition) -> None:
        stuck.append(transition.at)
        await release.wait()

    subscribers.add(never)
    subscribers.add(plain_function(lambda t: free.append(t.at)))
    subscribers.publish(change(0))
    await until(lambda: stuck == [0] and free == [0])
    for number in range(1, QUEUE_SIZE + 8):
        subscribers.publish(change(number))
        if number % 100 == 0:
            await until(lambda number=number: free[-1] == number)  # type: ignore[misc]
    await until(lambda: len(free) == QUEUE_SIZE + 8)
    assert subscribers.dropped == 7
    release.set()
    await until(lambda: len(stuck) == QUEUE_SIZE + 1)
    assert stuck == [0, *range(8, QUEUE_SIZE + 8)]
    await subscribers.aclose()


async def test_a_function_that_never_returns_holds_up_nobody_and_drops_the_oldest() -> None:
    """The same, in its thread."""
    subscribers, release, stuck = Subscribers(), threading.Event(), list[float]()

    def never(transition: Transition) -> None:
        stuck.append(transition.at)
        release.wait(30)

    subscribers.add(never)
    subscribers.publish(change(0))
    await until(lambda: stuck == [0])
    for number in range(1, QUEUE_SIZE + 8):
        subscribers.publish(change(number))
    assert subscribers.dropped == 7
    release.set()
    await until(lambda: len(stuck) == QUEUE_SIZE + 1)
    assert stuck == [0, *range(8, QUEUE_SIZE + 8)]
    await subscribers.aclose()


@pytest.mark.parametrize("kind", BOTH)
async def test_an_unsubscribed_callback_is_not_called_again(
    kind: Callable[[Record], Callback], subscribers: Subscribers
) -> None:
    """Unsubscribing twice is no mistake, and takes nobody else away."""
    gone: list[float] = []
    here: list[float] = []
    unsubscribe = subscribers.add(kind(lambda t: gone.append(t.at)))
    subscribers.add(kind(lambda t: here.append(t.at)))
    subscribers.publish(change(0))
    await until(lambda: gone == here == [0])
    unsubscribe()
    unsubscribe()
    subscribers.publish(change(1))
    await until(lambda: here == [0, 1])
    assert gone == [0]


async def test_a_callback_may_unsubscribe_itself(subscribers: Subscribers) -> None:
    """And comes to its end in peace."""
    seen: list[str] = []

    async def once(transition: Transition) -> None:
        unsubscribe()
        await asyncio.sleep(0)
        seen.append("to the end")

    unsubscribe = subscribers.add(once)
    subscribers.publish(change(0))
    await until(lambda: bool(seen))
    subscribers.publish(change(1))
    await asyncio.sleep(0.01)
    assert seen == ["to the end"]


async def test_a_callback_that_unsubscribed_in_the_middle_of_its_work_is_ended_with_the_rest() -> None:
    """Its task is still ours: nothing is left behind."""
    subscribers, begun = Subscribers(), asyncio.Event()

    async def never(_: Transition) -> None:
        begun.set()
        await asyncio.Event().wait()

    unsubscribe = subscribers.add(never)
    subscribers.publish(change(0))
    await begun.wait()
    unsubscribe()
    await subscribers.aclose()
    assert workers() == []


@pytest.mark.parametrize("kind", BOTH)
async def test_the_end_waits_for_what_is_queued(kind: Callable[[Record], Callback]) -> None:
    """The last transitions, those of the stop, reach everybody who takes less than a second for them."""
    subscribers, seen = Subscribers(), list[float]()

    def slow(transition: Transition) -> None:
        time.sleep(0.01)
        seen.append(transition.at)

    subscribers.add(kind(slow))
    for number in range(10):
        subscribers.publish(change(number))
    await subscribers.aclose()
    assert seen == list(range(10))


@pytest.mark.parametrize("kind", BOTH)
async def test_the_end_waits_a_second_for_those_who_never_return(kind: Callable[[Record], Callback]) -> None:
    """And no longer: an exit must not hang on a callback."""
    subscribers, release, begun = Subscribers(), threading.Event(), threading.Event()

    async def never(_: Transition) -> None:
        begun.set()
        await asyncio.Event().wait()

    def never_either(_: Transition) -> None:
        begun.set()
        release.wait(30)

    subscribers.add(never if kind is coroutine_function else never_either)
    subscribers.publish(change(0))
    await until(begun.is_set)
    before = time.monotonic()
    await subscribers.aclose()
    assert 0.9 < time.monotonic() - before < 5
    assert workers() == []
    release.set()


async def test_the_end_can_come_twice_and_before_any_event(subscribers: Subscribers) -> None:
    """A subscriber that was never called has neither task nor thread."""
    threads = set(threading.enumerate())
    subscribers.add(coroutine_function(lambda _: None))
    subscribers.add(plain_function(lambda _: None))
    assert set(threading.enumerate()) <= threads
    await subscribers.aclose()
    await subscribers.aclose()
    subscribers.publish(change(0))
