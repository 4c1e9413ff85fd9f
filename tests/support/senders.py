"""Runs the sender of one Alertmanager."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connection_exporter.alerting.sender import Sender


@asynccontextmanager
async def running(sender: Sender) -> AsyncIterator[None]:
    """Run ``sender`` while the block runs."""
    task = asyncio.get_running_loop().create_task(sender.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
