"""A connection that has ended is freed by its reference count: the garbage collector would look for 1,000 at once."""

import asyncio
import gc
import json
import weakref
from collections.abc import Iterator

import pytest
from connection_exporter.demo.servers import PostgreSQL, Redis
from connection_exporter.kinds import load_text
from connection_exporter.kinds.postgresql.wire import Wire
from connection_exporter.kinds.redis.connection import RedisConnection
from connection_exporter.kinds.registry import build
from connection_exporter.net import Network
from connection_exporter.net.pacing import PacedProtocol
from support.watched import on_uvloop


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def use(config: dict[str, object], protocol: type[PacedProtocol]) -> "weakref.ref[PacedProtocol]":
    """Connect, probe and close; return a reference to the connection."""
    [service] = build(load_text(json.dumps({"services": {"it": config}})).services, Network())
    async with service.check.connect() as session:
        await session.probe()
        [connection] = [found for found in gc.get_objects() if type(found) is protocol]
        return weakref.ref(connection)


@on_uvloop
@pytest.mark.usefixtures("no_collector")
async def test_a_connection_to_redis_is_freed_at_once() -> None:
    """Nothing that it has refers back to it."""
    async with Redis() as server:
        freed = await use({"kind": "redis", "url": f"redis://127.0.0.1:{server.port}"}, RedisConnection)
        await asyncio.sleep(0.05)
        assert freed() is None


@on_uvloop
@pytest.mark.usefixtures("no_collector")
async def test_a_connection_to_postgresql_is_freed_at_once() -> None:
    """Nothing that it has refers back to it."""
    async with PostgreSQL() as server:
        dsn = f"postgresql://postgres:{server.password}@127.0.0.1:{server.port}/postgres"
        freed = await use({"kind": "postgresql", "dsn": dsn, "sslmode": "disable"}, Wire)
        await asyncio.sleep(0.05)
        assert freed() is None
