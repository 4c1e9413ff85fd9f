"""Measures 50,000 held sessions of Redis in four shards on this machine. Takes three minutes and 4 GiB of memory."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from connection_exporter.demo.servers import Redis

from benchmarks.figures import Figure
from benchmarks.held import share_of_a_core
from benchmarks.processes import exporter

_SERVICES: Final = 50_000
_SHARDS: Final = 4
_SERVERS: Final = 6
"""Each server has room for 10,000 clients."""

_SETTLING: Final = 40.0
"""Seconds, so that every service has had its second check, and the measured ones are regular."""

_SECONDS: Final = 30.0


async def measure(folder: Path, *, rounds: int) -> AsyncIterator[Figure]:
    """Yield the figures of all shards together."""
    del rounds
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(Redis()) for _ in range(_SERVERS)]
        services = {
            f"redis_{n}": {"kind": "redis", "url": servers[n % _SERVERS].url} for n in range(_SERVICES)
        }
        config = folder / "sharded.yml"
        config.write_text(json.dumps({"services": services}))
        began = time.monotonic()
        shards = [
            await stack.enter_async_context(exporter(config, options=[f"--shard={n}/{_SHARDS}"]))
            for n in range(_SHARDS)
        ]
        await asyncio.gather(*(shard.healthy(within=120.0) for shard in shards))
        what = f"{_SERVICES} services in {_SHARDS} shards"
        yield Figure(f"start to all healthy, {what}", time.monotonic() - began, "s")
        await asyncio.sleep(_SETTLING)
        shares = await asyncio.gather(*(share_of_a_core(shard, seconds=_SECONDS) for shard in shards))
        note = "interval 30 s, each shard scraped every 5 s"
        yield Figure(f"CPU, {what}", sum(shares), "% of a core", note=note)
        yield Figure(f"memory, {what}", sum(shard.resident() for shard in shards) / 2**20, "MiB")
