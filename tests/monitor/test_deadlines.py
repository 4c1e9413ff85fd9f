"""Deadlines: one timer ends all attempts whose time is up, and no other."""

import asyncio
import time
from contextlib import suppress
from typing import Any, Final

import pytest
from connection_exporter.monitor.deadlines import Deadline, Deadlines
from support.virtual_time import on_virtual_time

TIMEOUT: Final = 5.0


def this_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None
    return task


async def attempt(deadline: Deadline, *, takes: float) -> float | None:
    """Return the seconds after which the deadline ended an attempt, or ``None`` if it did not."""
    loop, task, expired = asyncio.get_running_loop(), this_task(), False
    began = loop.time()
    deadline.begin(task)
    try:
        await asyncio.sleep(takes)
    except asyncio.CancelledError:
        expired = True
    finally:
        assert deadline.has_passed(task) is expired
        deadline.end(task)
    assert task.cancelling() == 0, "the cancellation is taken back"
    return loop.time() - began if expired else None


@on_virtual_time
async def test_each_attempt_ends_at_its_own_time() -> None:
    """Whatever began before or after it, ended meanwhile, or has another timeout."""
    deadlines = Deadlines()

    async def begin_after(seconds: float, takes: float, timeout: float) -> float | None:
        await asyncio.sleep(seconds)
        return await attempt(deadlines.after(timeout), takes=takes)

    rows = [
        (0.0, 99.0, 5.0),
        (0.5, 1.0, 5.0),
        (1.0, 99.0, 5.0),
        (1.0, 99.0, 2.0),
        (4.0, 4.9, 5.0),
        (30, 99, 5),
    ]
    took = await asyncio.gather(*(begin_after(*row) for row in rows))
    assert took == pytest.approx([5.0, None, 5.0, 2.0, None, 5.0])


@on_virtual_time
async def test_nothing_is_kept_of_attempts_that_have_ended() -> None:
    """After a thousand attempts that end at once, no timer goes on."""
    deadline = Deadline(TIMEOUT)
    for _ in range(1000):
        await attempt(deadline, takes=0.001)
    assert not deadline._due
    await asyncio.sleep(TIMEOUT + 1)
    assert not deadline._has_timer


@on_virtual_time
async def test_a_stop_from_outside_remains_one() -> None:
    """Also if the time is up in the same moment: the task is not asked to go on."""
    deadline = Deadline(TIMEOUT)

    async def work() -> None:
        deadline.begin(this_task())
        try:
            await asyncio.sleep(99)
        finally:
            assert (deadline.has_passed(this_task()), this_task().cancelling()) == (True, 2)
            deadline.end(this_task())
            assert this_task().cancelling() == 1

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(TIMEOUT, task.cancel)
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_what_arrived_while_the_loop_was_blocked_is_read_first() -> None:
    """An attempt gets a moment more if its timer is late."""
    deadline, answer = Deadline(0.01), asyncio.get_running_loop().create_future()
    deadline.begin(this_task())
    asyncio.get_running_loop().call_later(0.001, time.sleep, 0.3)
    asyncio.get_running_loop().call_later(0.02, answer.set_result, "late")
    assert await answer == "late"
    assert not deadline.has_passed(this_task())
    deadline.end(this_task())
    await asyncio.sleep(0.1)


async def test_an_attempt_that_has_ended_is_not_cancelled_later() -> None:
    """Not even if a late timer has given it a moment more, and the same task makes the next attempt meanwhile."""
    deadline = Deadline(0.2)
    deadline.begin(this_task())
    asyncio.get_running_loop().call_later(0.1, time.sleep, 0.3)
    await asyncio.sleep(0.3)
    deadline.end(this_task())
    deadline.begin(this_task())
    await asyncio.sleep(0.1)
    deadline.end(this_task())
    assert this_task().cancelling() == 0


async def test_an_attempt_that_cannot_be_cancelled_disturbs_no_other() -> None:
    """What it waits for may be an object of a plug-in, which raises."""

    class Broken(asyncio.Future[None]):
        def cancel(self, msg: object = None) -> bool:
            raise ValueError

    async def wait_for(it: asyncio.Future[None]) -> None:
        deadline.begin(this_task())
        with suppress(asyncio.CancelledError):
            await it
        deadline.end(this_task())

    deadline, seen, broken = Deadline(0.01), list[object](), Broken()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
    first = asyncio.create_task(wait_for(broken))
    async with asyncio.timeout(10):
        for _ in range(3):
            await wait_for(loop.create_future())
    assert [type(error) for error in seen] == [ValueError]
    broken.set_result(None)
    await first
