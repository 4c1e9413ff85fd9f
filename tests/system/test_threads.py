"""A thread's result reaches the event loop on every exit path, and hanging work costs one thread per key."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial

import pytest
from connection_exporter.system import threads
from connection_exporter.system.threads import (
    SharedWork,
    WorkDied,
    run_in_pool,
    run_in_thread,
    start_in_thread,
)
from support.threads import no_threads


def _raise(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


async def test_the_result_is_returned() -> None:
    """From another thread, which has the name it was given."""
    assert await run_in_thread(lambda: threading.current_thread().name, name="some work") == "some work"


async def test_an_exception_is_raised_as_it_is() -> None:
    with pytest.raises(LookupError, match="not there"):
        await run_in_thread(_raise(LookupError("not there")), name="it")


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(), asyncio.CancelledError()],
    ids=repr,
)
@pytest.mark.parametrize("with_thread", [True, False])
@pytest.mark.parametrize("run", [partial(run_in_thread, name="it"), run_in_pool], ids=["thread", "pool"])
async def test_an_exception_that_asyncio_would_misread_becomes_work_died(
    error: BaseException, run: Callable[[Callable[[], None]], Awaitable[None]], *, with_thread: bool
) -> None:
    """SystemExit from a plug-in's import must not end the loop, and must not leave the caller waiting."""
    async with asyncio.timeout(5):
        with nullcontext() if with_thread else no_threads(), pytest.raises(WorkDied) as caught:
            await run(_raise(error))
    assert type(error).__name__ in str(caught.value)
    assert caught.value.__cause__ is error


async def test_a_cancelled_caller_leaves_no_error_behind() -> None:
    """The thread ends later; its result is dropped without a complaint from asyncio."""
    unseen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    go_on = threading.Event()
    waiting = asyncio.ensure_future(run_in_thread(lambda: go_on.wait(20) and 1 / 0, name="it"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    await until(lambda: all(thread.name != "it" for thread in threading.enumerate()))
    await asyncio.sleep(0.01)
    assert unseen == []


def test_a_loop_that_is_gone_is_no_error_of_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the process, threads outlive the loop."""
    monkeypatch.setattr(threads, "_IDLE_FOR", 0.01)
    go_on, raised = threading.Event(), list[object]()
    before, threading.excepthook = threading.excepthook, raised.append

    async def begin() -> None:
        start_in_thread(lambda: go_on.wait(20), name="late")

    try:
        asyncio.run(begin())
        (late,) = [thread for thread in threading.enumerate() if thread.name == "late"]
        go_on.set()
        late.join(20)
    finally:
        threading.excepthook = before
    assert raised == []


async def test_a_thread_does_one_job_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when it has had none for a while. Work never waits for a thread that is busy."""
    monkeypatch.setattr(threads, "_IDLE_FOR", 0.2)
    monkeypatch.setattr(threads._Worker, "idle", [])
    go_on = threading.Event()
    first = await run_in_thread(threading.current_thread, name="one")
    await until(lambda: first.name == "idle")
    hangs = start_in_thread(lambda: go_on.wait(20) and threading.current_thread(), name="two")
    second = await run_in_thread(threading.current_thread, name="three")
    assert first is not second
    go_on.set()
    assert await hangs is first
    await until(lambda: not first.is_alive() and not second.is_alive())
    assert threads._Worker.idle == []


async def test_no_job_is_lost_by_a_thread_that_is_about_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be taken at that very moment."""
    monkeypatch.setattr(threads, "_IDLE_FOR", 0.001)
    async with asyncio.timeout(20):
        for number in range(500):
            assert await run_in_thread(lambda: number, name="it") == number  # noqa: B023 - it is awaited at once
            await asyncio.sleep(number % 10 * 0.0002)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a thread sets no event
            await asyncio.sleep(0.001)


async def test_the_pool_returns_and_raises_what_the_work_does() -> None:
    """And no thread is started for it while one is idle."""
    assert await run_in_pool(lambda: 1 + 1) == 2
    with pytest.raises(ZeroDivisionError):
        await run_in_pool(lambda: 1 / 0)
    names = {(await run_in_pool(threading.current_thread)).name for _ in range(20)}
    assert len(names) < 5


async def test_the_pool_has_a_few_threads_and_leaves_out_what_is_cancelled_before_it_begins() -> None:
    """Four at a time, in the order in which they came."""
    go_on, done, used = threading.Event(), list[int](), set[threading.Thread]()

    def work(number: int) -> None:
        used.add(threading.current_thread())
        go_on.wait(20)
        done.append(number)

    calls = [asyncio.ensure_future(run_in_pool(partial(work, number))) for number in range(12)]
    await asyncio.sleep(0.05)
    calls[10].cancel()
    await asyncio.sleep(0)
    assert len(used) == 4
    go_on.set()
    await asyncio.wait(calls)
    assert sorted(done) == [number for number in range(12) if number != 10]


async def test_work_in_the_pool_does_not_wait_for_other_work_that_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As long as there are fewer than four at a time, each has a thread. One that is idle is used again."""
    monkeypatch.setattr(threads, "_POOL", threads._Pool(4))
    go_on = threading.Event()
    await run_in_pool(threading.current_thread)
    async with asyncio.timeout(10):
        await until(lambda: bool(threads._POOL._idle))
        slow = [asyncio.ensure_future(run_in_pool(partial(go_on.wait, 20))) for _ in range(2)]
        await asyncio.sleep(0)
        await run_in_pool(threading.current_thread)
        assert threads._POOL._started == 3
        go_on.set()
        await asyncio.gather(*slow)


async def test_work_that_hangs_costs_one_thread_per_key() -> None:
    """Callers that give up and ask again join the call in flight."""
    shared: SharedWork[str, bool] = SharedWork()
    go_on = threading.Event()

    def running() -> int:
        return sum(thread.name == "hangs" for thread in threading.enumerate())

    for _ in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await shared.run("a file", lambda: go_on.wait(20), name="hangs")
    assert running() == 1
    last = asyncio.ensure_future(shared.run("a file", lambda: False, name="hangs"))
    await asyncio.sleep(0)
    go_on.set()
    assert await last
    assert await shared.run("a file", lambda: True, name="hangs"), "the next call starts anew"


async def test_every_caller_gets_the_error_and_the_next_call_starts_anew() -> None:
    shared: SharedWork[str, None] = SharedWork()
    calls = [shared.run("it", _raise(SystemExit(1)), name="it") for _ in range(3)]
    assert [type(error) for error in await asyncio.gather(*calls, return_exceptions=True)] == [WorkDied] * 3
    await shared.run("it", lambda: None, name="it")
