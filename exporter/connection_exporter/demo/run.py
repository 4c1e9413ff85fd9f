"""The five servers of the demo together, the config that monitors them, and the chaos."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from connection_exporter.demo.servers import Bot, HttpApi, PostgreSQL, Redis, Server, WebSocket

_Server = TypeVar("_Server", bound=Server)

_SILENCE: Final = 2.0
"""Seconds without a line, while servers start, after which there is one."""

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
        """The config (YAML) that monitors them. Its secrets end with the demo."""
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
    """Start the five servers, and call ``say`` with the place of each. Stop them when the block ends.

    Raises ServerError, after it has stopped all of them. Stopping ends in time even if servers are frozen.
    """
    async with AsyncExitStack() as stack:

        def cast(server: _Server) -> _Server:
            stack.push_async_callback(server.close)
            return server

        demo = Demo(cast(PostgreSQL()), cast(Redis()), cast(Bot()), cast(HttpApi()), cast(WebSocket()))
        servers = (demo.database, demo.redis, demo.bot, demo.api, demo.feed)

        waiting = {server.name for server in servers}

        async def start(server: Server) -> None:
            await server.start()
            waiting.discard(server.name)
            where = f"127.0.0.1:{server.port}" if server is not demo.bot else f"{demo.bot.pidfile}"
            say(f"demo: {server.name} is running, pid {server.pid}, {where}")

        async def say_what_is_awaited() -> None:
            while True:
                await asyncio.sleep(_SILENCE)
                say(f"demo: waiting for {', '.join(sorted(waiting))}")

        saying = asyncio.create_task(say_what_is_awaited())
        try:
            async with asyncio.TaskGroup() as starting:
                for server in servers:
                    starting.create_task(start(server))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            saying.cancel()
        yield demo


async def chaos(
    demo: Demo, say: Callable[[str], None], *, rounds: int | None = None, pace: float = 10.0
) -> None:
    """Break and repair one server after the other, and call ``say`` for each step.

    A fault lasts ``pace`` seconds, and so does the pause after it. Without ``rounds``, it runs until it is cancelled,
    and then leaves the last fault as it is.
    """
    for _ in itertools.count() if rounds is None else range(rounds):
        for act in _acts(demo):
            await asyncio.sleep(pace)
            say(f"chaos: {act.fault}")
            await act.do()
            await asyncio.sleep(pace)
            await act.undo()
            say(f"chaos: {act.repair}")


@dataclass(frozen=True, slots=True)
class _Act:
    fault: str
    do: Callable[[], Awaitable[None]]
    repair: str
    undo: Callable[[], Awaitable[None]]


def _acts(demo: Demo) -> tuple[_Act, ...]:
    database, redis, bot, api, feed = demo.database, demo.redis, demo.bot, demo.api, demo.feed

    async def lock_out() -> None:
        await database.set_hba(["host all all 127.0.0.1/32 reject"])

    return (
        _Act("kill -9 redis", redis.kill, "redis is back", redis.start),
        _Act(
            "postgresql is frozen (SIGSTOP)",
            database.pause,
            "postgresql continues (SIGCONT)",
            database.resume,
        ),
        _Act("the api answers 503", api.sick, "the api answers 200 again", api.well),
        _Act("kill -9 bot", bot.kill, "the bot is back", bot.start),
        _Act("the websocket feed is stopped", feed.stop, "the websocket feed is back", feed.start),
        _Act(
            "postgresql rejects new logins (pg_hba: reject), and keeps its sessions",
            lock_out,
            "postgresql accepts logins again",
            database.reset_hba,
        ),
        _Act("kill -9 postgresql", database.kill, "postgresql is back", database.start),
    )
