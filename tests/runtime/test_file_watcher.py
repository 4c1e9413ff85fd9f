"""A secret in a file is tried as soon as it changes, not when it is next needed."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from connection_exporter.app import serving
from connection_exporter.core.health import Reason, Status
from connection_exporter.demo.servers import Redis
from connection_exporter.kinds import load_text
from connection_exporter.monitor.board import Board
from connection_exporter.runtime import file_watcher
from connection_exporter.runtime.file_watcher import LOOK_EVERY, FileWatcher, users_of_files
from connection_exporter.system.files import read_regular_file
from connection_exporter.web.server import bind
from support.dead_mount import dead_mount

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


async def test_only_content_counts_and_only_when_it_has_settled(tmp_path: Path) -> None:
    """A touch is no change; an exchanged, a rewritten, a removed and a new file are; a half-written one waits."""
    watcher, file, other = FileWatcher(), tmp_path / "a", tmp_path / "b"
    file.write_text("one")
    assert await watcher.changed([file, other]) == []
    os.utime(file)
    assert await watcher.changed([file, other]) == []
    file.write_text("two")
    assert await watcher.changed([file, other]) == [], "it can still be incomplete"
    assert await watcher.changed([file, other]) == [file]
    assert await watcher.changed([file, other]) == []
    times = file.stat()
    file.write_text("six")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.write_text("new")
    await watcher.changed([file, other])
    assert await watcher.changed([file, other]) == [file, other], "the same size and time of modification"
    file.unlink()
    await watcher.changed([file])
    assert await watcher.changed([file]) == [file]


async def test_what_is_accepted_is_no_change(tmp_path: Path) -> None:
    watcher, file = FileWatcher(), tmp_path / "a"
    file.write_text("one")
    await watcher.changed([file])
    file.write_text("two")
    await watcher.accept([file])
    assert await watcher.changed([file]) == []
    assert await watcher.changed([file]) == []


async def test_unchanged_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at thousands of secrets costs no more than their stat."""
    read: list[Path] = []

    def counted(path: Path, *, most: int) -> bytes:
        read.append(path)
        return read_regular_file(path, most=most)

    monkeypatch.setattr(file_watcher, "read_regular_file", counted)
    files = [tmp_path / str(number) for number in range(50)]
    for file in files:
        file.write_text("it")
    await asyncio.sleep(1.1)  # what has just changed is read again, for it may change again in the same tick
    watcher = FileWatcher()
    for _ in range(5):
        await watcher.changed(files)
    assert len(read) == 50


async def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with asyncio.timeout(20):
        assert await FileWatcher().changed([pipe]) == []


def threads_looking() -> int:
    return sum(thread.name == "look at files" for thread in threading.enumerate())


async def test_a_mount_that_does_not_respond_hides_no_other_change(tmp_path: Path) -> None:
    """Each file on it costs one thread however often it is looked at, and counts again when the mount responds."""
    (tmp_path / "mount").mkdir()
    good, dead = [tmp_path / name for name in "ab"], [tmp_path / "mount" / name for name in "xyz"]
    files = [good[0], *dead, good[1]]
    watcher = FileWatcher()
    with dead_mount(tmp_path / "mount"):
        for file in good:
            file.write_text("one")
        assert await watcher.changed(files) == []
        for number in range(3):
            for file in good:
                file.write_text(str(number))
            assert await watcher.changed(files) == []
            assert await watcher.changed(files) == good
        await until(lambda: threads_looking() == len(dead))
    await until(lambda: threads_looking() == 0)
    await asyncio.sleep(0.1)  # the event loop learns of their end
    for file in dead:
        file.write_text("one")
    assert await watcher.changed(files) == []
    dead[0].write_text("two")
    await watcher.changed(files)
    assert await watcher.changed(files) == [dead[0]]
