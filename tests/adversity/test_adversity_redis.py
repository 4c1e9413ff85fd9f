"""Redis under the whole exporter: what changes while the session lives, and what a canary sees of it."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from connection_exporter.core.health import Reason, Status
from connection_exporter.demo.servers import Redis
from support.started import started
from support.watched import SLACK, on_uvloop, watching

QUICK = """\
defaults: {interval: 500ms, timeout: 500ms, retry_delay: 200ms, max_retry_delay: 500ms, canary: 500ms}
services:
"""


@pytest.fixture
def redis() -> Iterator[Redis]:
    with started(Redis()) as server:
        yield server


def service(name: str, redis: Redis, more: str = "") -> str:
    return f'  {name}: {{kind: redis, url: "redis://127.0.0.1:{redis.port}"{more}}}\n'


@on_uvloop
async def test_a_password_that_changes_while_connected_is_seen_by_the_canary(redis: Redis) -> None:
    """Wanted from now on: `unhealthy`, `auth`, session up. With the password file put right, healthy again."""
    secret = redis.folder / "password"
    secret.write_text("")
    config = (
        QUICK + service("redis", redis) + service("right", redis, f", password_file: {secret}, canary: off")
    )
    async with watching(config) as watched:
        await watched.until("redis", Status.HEALTHY, within=10)
        began = time.monotonic()
        await redis.call("CONFIG", "SET", "requirepass", "changed")
        redis.password = "changed"
        at = await watched.until("redis", Status.UNHEALTHY, Reason.AUTH, within=5)
        assert at - began < 0.55 + 0.5 + SLACK
        assert watched.record("redis").health.session_up
        assert watched.record("redis").sessions_lost == 0
        secret.write_text("wrong")
        await watched.until("right", Status.DISCONNECTED, Reason.AUTH, within=10)
        secret.write_text("changed\n")
        await watched.healthy("right")
        await redis.call("CONFIG", "SET", "requirepass", "")
        redis.password = None
        await watched.healthy("redis")
        assert watched.record("redis").sessions_lost == 0


@on_uvloop
async def test_no_room_for_another_client_is_seen_by_the_canary(redis: Redis) -> None:
    """maxclients reached: the session goes on, the canary says `slots_full`; newcomers are turned away."""
    config = QUICK + service("redis", redis)
    async with watching(config) as watched:
        await watched.healthy()
        assert await redis.call("CONFIG", "SET", "maxclients", "1") == b"+OK"
        await watched.until("redis", Status.UNHEALTHY, Reason.SLOTS_FULL, within=5)
        assert watched.record("redis").sessions_lost == 0
        assert await watched.sample("connection_session_up", name="redis") == 1
        # the server is full of us: only we can make room
    assert await redis.call("CONFIG", "SET", "maxclients", "1000") == b"+OK"


@on_uvloop
async def test_client_kill_is_a_loss_that_costs_no_outage(redis: Redis) -> None:
    """An administrator ends our session: reported in milliseconds, back at once, no outage."""
    async with watching(QUICK + service("redis", redis, ", interval: 30s, canary: off")) as watched:
        await watched.healthy()
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await redis.call("CLIENT", "KILL", "TYPE", "normal")
        lost = await watched.until("redis", Status.CONNECTING, Reason.IDLE_CLOSED, since=began, within=5)
        back = await watched.until("redis", Status.HEALTHY, since=lost, within=5)
        assert lost - began < SLACK
        assert back - lost < SLACK
        assert watched.record("redis").outages == 0


@on_uvloop
async def test_a_failover_that_makes_it_a_replica_with_no_master(redis: Redis) -> None:
    """`role` where a master is expected, and where the link to the master is down; a promotion repairs it."""
    config = QUICK + service("master", redis, ", expect: {role: master}")
    config += service("linked", redis, ", expect: {master_link_up: true}") + service("any", redis)
    async with watching(config) as watched:
        await watched.healthy()
        assert await redis.call("REPLICAOF", "127.0.0.1", "1") == b"+OK"  # nobody listens there
        await watched.until("master", Status.UNHEALTHY, Reason.ROLE, within=5)
        await watched.until("linked", Status.UNHEALTHY, Reason.ROLE, within=5)
        await watched.holds(lambda: watched.record("any").details["master_link_up"] is False, within=5)
        assert await watched.sample("connection_redis_master_link_up", name="any") == 0
        await redis.call("REPLICAOF", "NO", "ONE")
        await watched.healthy()
        watched.undisturbed("any")
        assert all(watched.record(name).sessions_lost == 0 for name in ("master", "linked"))


@on_uvloop
async def test_a_full_memory_is_a_bad_answer_until_there_is_room(redis: Redis) -> None:
    """noeviction and full: writes are refused, which is reported; then healthy."""
    async with watching(QUICK + service("redis", redis)) as watched:
        await watched.healthy()
        await redis.call("CONFIG", "SET", "maxmemory", "1")
        await watched.until("redis", Status.UNHEALTHY, Reason.QUERY, within=5)
        assert "memory is full" in watched.record("redis").trouble.message
        await redis.call("CONFIG", "SET", "maxmemory", "0")
        await watched.healthy()


@on_uvloop
async def test_a_long_script_holds_up_that_service_alone(redis: Redis) -> None:
    """While a script blocks the server its probe times out or gets BUSY; then it is back by itself."""
    async with Redis() as other:
        await redis.call("CONFIG", "SET", "lua-time-limit", "60000")
        script = "local n = 0 while n < tonumber(ARGV[1]) do n = n + 1 end return n"
        began = time.monotonic()
        await redis.call("EVAL", script, "0", "5000000")
        three_seconds = int(5_000_000 * 3 / (time.monotonic() - began))
        config = QUICK + service("redis", redis) + service("other", other)
        async with watching(config) as watched:
            await watched.healthy()
            blocked_at = time.monotonic()
            blocking = asyncio.create_task(redis.call("EVAL", script, "0", str(three_seconds)))
            await watched.until("redis", Status.CONNECTING, Reason.TIMEOUT, within=10, since=blocked_at)
            await blocking
            await watched.healthy(within=15)
            watched.undisturbed("other")
