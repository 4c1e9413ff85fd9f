"""A secret in a file is tried as soon as it changes, not when it is next needed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from exporter.app import serving
from exporter.board import Board
from exporter.config import load_text
from exporter.core.health import Reason, Status
from exporter.demo.servers import Redis
from exporter.publish.server import bind
from exporter.rotation import LOOK_EVERY, users_of_files

SECRETS = """\
defaults: {{interval: 10m, retry_delay: 10m, max_retry_delay: 10m, canary: 10m}}
services:
  cache: {{kind: redis, port: {port}, password_file: "{folder}/cache"}}
"""


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    async with Redis(password="right") as server:
        yield server


@asynccontextmanager
async def watching(redis: Redis, folder: Path) -> AsyncIterator[Board]:
    config = load_text(SECRETS.format(port=redis.port, folder=folder))
    async with serving(config, bind(["127.0.0.1:0"])) as monitor:
        yield monitor.board


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10 * LOOK_EVERY):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_new_secret_that_does_not_work_shows_before_it_is_needed(
    redis: Redis, tmp_path: Path
) -> None:
    """By the canary, minutes before it is due; the session stays. A written file and an exchanged one count alike."""
    secret = tmp_path / "cache"
    secret.write_text("right\n")
    async with watching(redis, tmp_path) as board:
        await until(lambda: board.record("cache").status is Status.HEALTHY)
        await asyncio.sleep(LOOK_EVERY)  # the first look is at what we started with
        secret.write_text("wrong\n")
        await until(lambda: board.record("cache").status is Status.UNHEALTHY)
        record = board.record("cache")
        assert (record.trouble.reason, record.health.session_up) == (Reason.AUTH, True)
        (tmp_path / "new").write_text("right\n")
        (tmp_path / "new").replace(secret)
        await until(lambda: board.record("cache").status is Status.HEALTHY)
        assert board.record("cache").sessions == 1


async def test_a_secret_that_works_ends_the_wait_of_a_service_that_was_locked_out(
    redis: Redis, tmp_path: Path
) -> None:
    """It does not sit out its back-off; neither does one whose file comes at last."""
    secret = tmp_path / "cache"
    async with watching(redis, tmp_path) as board:
        for content in ("wrong", "right"):
            await until(lambda: board.record("cache").trouble.reason is Reason.AUTH)
            checks = board.record("cache").checks
            await asyncio.sleep(LOOK_EVERY)
            secret.write_text(content)
            await until(lambda: board.record("cache").checks > checks)  # noqa: B023
        await until(lambda: board.record("cache").status is Status.HEALTHY)


def test_every_file_is_known_with_all_who_use_it() -> None:
    """A certificate's, one inside a list, one that two share; a pidfile is no secret."""
    config = load_text(
        """\
services:
  cache: {kind: redis, password_file: /s/shared, tls: {ca_file: /s/ca}}
  database: {kind: postgresql, password_file: /s/shared}
  feed: {kind: websocket, url: "wss://x.test", bearer_token_file: /s/token, on_connect: [{send_file: /s/hello}]}
  bot: {kind: process, pidfile: /run/bot.pid}
"""
    )
    assert users_of_files(config) == {
        Path("/s/shared"): ["cache", "database"],
        Path("/s/ca"): ["cache"],
        Path("/s/token"): ["feed"],
        Path("/s/hello"): ["feed"],
    }
