"""Sessions and attempts as the monitor makes them, of any kind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from exporter.attempt import waited_for
from exporter.check import Check, Failure, Observation, Session


@asynccontextmanager
async def held(check: Check, *, timeout: float = 5) -> AsyncIterator[tuple[Session, Observation]]:
    """Hold a session that has had its first answer."""
    async with check.connect() as session:
        async with asyncio.timeout(timeout):
            first = await session.probe()
        yield session, first


async def attempt(check: Check, *, timeout: float = 5) -> Observation | Failure:
    """Connect and probe under one deadline."""
    try:
        async with asyncio.timeout(timeout), check.connect() as session:
            return await session.probe()
    except Failure as failure:
        return failure
    except TimeoutError as error:
        cause = waited_for(error)
        assert cause is not None, "nothing says what was waited for"
        return cause
