"""Owns the demo's cast and plot: the five servers together, the config that watches them, and the chaos.

Who serves the exporter meanwhile is the business of the command line.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from exporter.demo.servers import Bot, HttpApi, PostgreSQL, Redis, Server, WebSocket

_Server = TypeVar("_Server", bound=Server)

_CONFIG: Final = """\
defaults:
  interval: 5s
  timeout: 2s
  retry_delay: 1s
  max_retry_delay: 10s
services:
  database:
    kind: postgresql
    dsn: {dsn}
    canary: 10s
  redis:
    kind: redis
    url: {redis}
    canary: 10s
  bot_process:
    kind: process
    pidfile: {pidfile}
    heartbeat: {{file: {heartbeat}, max_age: 5s}}
  external_api:
    kind: http
    url: {api}
    expect: {{status: [200], json: {{status: ok}}}}
    canary: 10s
  websocket:
    kind: websocket
    url: {feed}
    max_gap: 5s
"""


@dataclass(frozen=True, slots=True)
class Demo:
    """The five servers, running."""

    database: PostgreSQL
    redis: Redis
    bot: Bot
    api: HttpApi
    feed: WebSocket

    @property
    def config(self) -> str:
        """The config file (YAML) that watches them; it holds no secret that outlives the demo."""
        return _CONFIG.format(
            dsn=self.database.dsn(),
            redis=self.redis.url,
            pidfile=self.bot.pidfile,
            heartbeat=self.bot.heartbeat,
            api=self.api.url,
            feed=self.feed.url,
        )


@asynccontextmanager
async def start_demo(say: Callable[[str], None]) -> AsyncIterator[Demo]:
    """Start the five servers, telling ``say`` where they are; stop them when the block ends.

    Raises ServerError, with everything stopped again. Stopping is bounded, for frozen servers too.
    """
    async with AsyncExitStack() as stack:

        def cast(server: _Server) -> _Server:
            stack.push_async_callback(server.close)
            return server

        demo = Demo(cast(PostgreSQL()), cast(Redis()), cast(Bot()), cast(HttpApi()), cast(WebSocket()))
        servers = (demo.database, demo.redis, demo.bot, demo.api, demo.feed)
        try:
            async with asyncio.TaskGroup() as starting:
                for server in servers:
                    starting.create_task(server.start())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        for server in servers:
            where = f"127.0.0.1:{server.port}" if server is not demo.bot else f"{demo.bot.pidfile}"
            say(f"demo: {server.name} runs, pid {server.pid}, {where}")
        yield demo


async def chaos(
    demo: Demo, say: Callable[[str], None], *, rounds: int | None = None, pace: float = 10.0
) -> None:
    """Break the servers and mend them again, one after the other, saying each time what is done.

    ``pace`` is how long, in seconds, a fault lasts, and how long the peace after it. ``rounds`` of
    ``None`` goes on until cancelled; the last fault is then left as it is, for the servers to be stopped.
    """
    for _ in itertools.count() if rounds is None else range(rounds):
        for act in _acts(demo):
            await asyncio.sleep(pace)
            say(f"chaos: {act.fault}")
            await act.do()
            await asyncio.sleep(pace)
            await act.undo()
            say(f"chaos: {act.mend}")


@dataclass(frozen=True, slots=True)
class _Act:
    fault: str
    do: Callable[[], Awaitable[None]]
    mend: str
    undo: Callable[[], Awaitable[None]]


def _acts(demo: Demo) -> tuple[_Act, ...]:
    database, redis, bot, api, feed = demo.database, demo.redis, demo.bot, demo.api, demo.feed

    async def lock_out() -> None:
        await database.set_hba(["host all all 127.0.0.1/32 reject"])

    return (
        _Act("kill -9 redis", redis.kill, "redis is back", redis.start),
        _Act(
            "postgresql is frozen (SIGSTOP)", database.pause, "postgresql goes on (SIGCONT)", database.resume
        ),
        _Act("the api answers 503", api.sick, "the api is well again", api.well),
        _Act("kill -9 bot", bot.kill, "the bot is back", bot.start),
        _Act("the websocket feed is stopped", feed.stop, "the websocket feed is back", feed.start),
        _Act(
            "postgresql lets nobody in any more (pg_hba: reject), but keeps who is there",
            lock_out,
            "postgresql lets everybody in again",
            database.reset_hba,
        ),
        _Act("kill -9 postgresql", database.kill, "postgresql is back", database.start),
    )
