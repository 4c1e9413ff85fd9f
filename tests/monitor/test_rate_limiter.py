"""A single caller passes at once; of many, some pass a few in each turn of the loop, in order."""

import asyncio

from connection_exporter.monitor.rate_limiter import RateLimiter


async def crowd(limiter: RateLimiter, count: int) -> tuple[list[asyncio.Task[None]], list[int]]:
    passed: list[int] = []

    async def go(number: int) -> None:
        await limiter.turn()
        passed.append(number)

    return [asyncio.create_task(go(number)) for number in range(count)], passed


async def test_one_alone_is_not_held_up() -> None:
    """Not for a single turn of the loop."""
    limiter = RateLimiter()
    for _ in range(3):
        assert limiter.turn().done()
        await asyncio.sleep(0.01)


async def test_a_crowd_passes_in_order_and_not_in_one_turn() -> None:
    """However many they are, all pass in the end."""
    tasks, passed = await crowd(RateLimiter(), 100)
    turns = 0
    most = 0
    while len(passed) < 100:
        before = len(passed)
        await asyncio.sleep(0)
        most = max(most, len(passed) - before)
        turns += 1
    assert passed == list(range(100))
    assert most <= 16, "of two turns' worth, by the order in which the loop runs us"
    assert turns >= 6
    await asyncio.gather(*tasks)


async def test_those_who_give_up_take_nobodys_place() -> None:
    """A watch that is stopped while it waits."""
    tasks, passed = await crowd(RateLimiter(), 60)
    await asyncio.sleep(0)
    for task in tasks[10:50]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert passed == [*range(10), *range(50, 60)]


async def test_nobody_passes_while_others_still_come() -> None:
    """The first caller passes first: it has news, which goes before waiting work."""
    limiter = RateLimiter()
    tasks: list[asyncio.Task[None]] = []
    for _ in range(5):
        more, _ = await crowd(limiter, 20)
        tasks += more
        await asyncio.sleep(0)
    assert sum(task.done() for task in tasks) <= 16
    await asyncio.gather(*tasks)


async def test_those_who_wait_pass_in_the_end_though_others_still_come() -> None:
    """A stream of news without end must not keep everybody out."""
    limiter = RateLimiter()
    first, _ = await crowd(limiter, 30)
    later: list[asyncio.Task[None]] = []
    while not all(task.done() for task in first):
        more, _ = await crowd(limiter, 1)
        later += more
        await asyncio.sleep(0)
    await asyncio.gather(*later)


async def test_nobody_passes_while_a_response_is_rendered() -> None:
    """A client that scrapes while everything reconnects gets its answer first."""
    rendering = True
    limiter = RateLimiter(lambda: rendering)
    tasks, passed = await crowd(limiter, 20)
    for _ in range(10):
        await asyncio.sleep(0)
    assert passed == [0]
    rendering = False
    await asyncio.gather(*tasks)
    assert passed == list(range(20))


async def test_those_who_wait_pass_in_the_end_though_responses_are_rendered_without_end() -> None:
    """Clients that scrape without a pause must not keep everybody out."""
    tasks, passed = await crowd(RateLimiter(lambda: True), 20)
    await asyncio.gather(*tasks)
    assert passed == list(range(20))
