"""Wakeups: nothing is lost between a time and an event, and periodic work comes in the same moments."""

import asyncio
from itertools import pairwise

import pytest
from connection_exporter.system.wakeup import Wakeup, until_next
from support.virtual_time import on_virtual_time


@pytest.mark.parametrize("late", [0.0, 0.001, -0.001, 0.3])
@on_virtual_time
async def test_periodic_work_begins_together(late: float) -> None:
    """Whenever it started, once in each period, and also if the timers of the loop are a little early or late."""
    loop = asyncio.get_running_loop()

    async def moments(start: float, period: float) -> list[float]:
        await asyncio.sleep(start)
        found = []
        for _ in range(20):
            await asyncio.sleep(max(until_next(period) + late * period, 0.0))
            found.append(loop.time() - late * period)
        return found

    ones, twos = await asyncio.gather(moments(0.77, 1.0), moments(0.13, 2.0))
    for found, period in ((ones, 1.0), (twos, 2.0)):
        assert found == pytest.approx([round(at / period) * period for at in found], abs=1e-6)
        assert [b - a for a, b in pairwise(found)] == pytest.approx([period] * 19)


@on_virtual_time
async def test_an_event_in_the_moment_of_the_time_is_not_lost() -> None:
    """It ends the next wait if it is too late for this one."""
    wakeup, loop = Wakeup(), asyncio.get_running_loop()
    waiter = wakeup.waiter(loop)
    loop.call_soon(waiter.set_result, True)
    loop.call_soon(wakeup.set)
    assert await waiter
    began = loop.time()
    assert await wakeup.wait(5.0)
    assert loop.time() == began
    assert not await wakeup.wait(5.0)
