"""Sessions and attempts as the monitor makes them, of any kind."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from connection_exporter.kind import Check, Failure, Observation, Session
from connection_exporter.monitor.attempt import waited_for

_T = TypeVar("_T")


@asynccontextmanager
async def held(check: Check, *, timeout: float = 5) -> AsyncIterator[tuple[Session, Observation]]:
    """Hold a session that has had its first answer."""
    async with check.connect() as session:
        async with asyncio.timeout(timeout):
            first = await session.probe()
        yield session, first


async def attempt(check: Check, *, timeout: float = 5) -> Observation | Failure:
    """Connect and probe under one deadline."""

    async def connect_and_probe() -> Observation:
        async with check.connect() as session:
            return await session.probe()

    return await outcome(connect_and_probe(), timeout=timeout)


async def outcome(work: Awaitable[_T], *, timeout: float = 5) -> _T | Failure:
    """Return the result of ``work``, or why an attempt would say there is none: at the deadline, what is missing."""
    try:
        async with asyncio.timeout(timeout):
            return await work
    except Failure as failure:
        return failure
    except TimeoutError as error:
        cause = waited_for(error)
        assert cause is not None, "nothing says what was waited for"
        return cause
