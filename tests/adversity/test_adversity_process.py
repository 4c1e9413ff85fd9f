"""Processes in the whole exporter: never started, ended, restarted, replaced twice, stopped, hanging."""

import asyncio
import os
import signal
import time
from pathlib import Path

from connection_exporter.core.health import Reason, Status
from connection_exporter.demo.servers import Bot
from support.watched import SLACK, on_uvloop, watching

CONFIG = """\
defaults: {interval: 30s, timeout: 2s, retry_delay: 200ms, max_retry_delay: 30s}
services:
"""


@on_uvloop
async def test_a_process_that_never_ran_has_its_series_and_is_found_when_it_starts(tmp_path: Path) -> None:
    """Its series exist from the first second, counters at 0. It is found within 250 ms, in spite of the back-off."""
    async with Bot(tmp_path) as bot:
        await bot.stop()
        config = CONFIG + f"  bot: {{kind: process, pidfile: {bot.pidfile}, retries: 2}}\n"
        async with watching(config) as watched:
            assert await watched.sample("connection_status", name="bot") is not None
            assert await watched.sample("connection_sessions_lost_total", name="bot") == 0
            assert await watched.sample("connection_process_restarts_total", name="bot") == 0
            assert await watched.sample("connection_process_resident_memory_bytes", name="bot") is None
            await watched.until("bot", Status.DISCONNECTED, Reason.MISSING, within=5)
            await asyncio.sleep(1.0)  # the next attempt is some while away by now
            await bot.start()
            began = time.monotonic()
            at = await watched.healthy("bot", within=5)
            print(f"found {(at - began) * 1e3:.0f} ms after it was ready")
            assert at - began < SLACK
            assert await watched.sample("connection_process_restarts_total", name="bot") == 0


@on_uvloop
async def test_two_restarts_between_two_scrapes_are_counted(tmp_path: Path) -> None:
    """With an interval of 30 s, two kills in half a second are two losses and two restarts."""
    async with Bot(tmp_path) as bot:
        config = CONFIG + f"  bot: {{kind: process, pidfile: {bot.pidfile}}}\n"
        async with watching(config, read=False) as watched:
            await watched.healthy()
            assert await watched.sample("connection_process_restarts_total", name="bot") == 0
            for _ in range(2):
                began = time.monotonic()
                await bot.kill()
                lost = await watched.until("bot", Status.CONNECTING, Reason.EXIT, since=began, within=5)
                await bot.start()
                await watched.until("bot", Status.HEALTHY, since=lost, within=5)
            assert await watched.sample("connection_process_restarts_total", name="bot") == 2
            assert await watched.sample("connection_sessions_lost_total", name="bot") == 2


@on_uvloop
async def test_stopped_and_hanging_processes_are_distinguished_and_recover(tmp_path: Path) -> None:
    """SIGSTOP is `stopped`; a heartbeat that is too old is `heartbeat`; both recover."""
    async with Bot(tmp_path) as bot:
        old = tmp_path / "old"
        old.touch()
        os.utime(old, (time.time() - 60,) * 2)
        config = CONFIG.replace("30s, timeout: 2s", "300ms, timeout: 300ms")
        config += f"  bot: {{kind: process, pidfile: {bot.pidfile}}}\n"
        config += (
            f"  hung: {{kind: process, pidfile: {bot.pidfile}, heartbeat: {{file: {old}, max_age: 1s}}}}\n"
        )
        async with watching(config) as watched:
            await watched.healthy("bot")
            await watched.until("hung", Status.UNHEALTHY, Reason.HEARTBEAT, within=5)
            begun = time.time() + 60  # no longer old for as long as the test takes
            os.utime(old, (begun, begun))
            await watched.healthy("hung")
            began = time.monotonic()
            os.kill(bot.pid, signal.SIGSTOP)
            try:
                at = await watched.until("bot", Status.UNHEALTHY, Reason.STOPPED, since=began, within=5)
                assert at - began < 0.6 + SLACK
            finally:
                os.kill(bot.pid, signal.SIGCONT)
            await watched.healthy()
            assert watched.record("bot").sessions_lost == 0


@on_uvloop
async def test_a_process_that_exits_by_itself_is_reported_with_exit(tmp_path: Path) -> None:
    """Status 0 is also `exit`; after that, the missing pidfile is `missing`."""
    async with Bot(tmp_path) as bot:
        config = CONFIG + f"  bot: {{kind: process, pidfile: {bot.pidfile}}}\n"
        async with watching(config) as watched:
            await watched.healthy()
            began = time.monotonic()
            os.kill(bot.pid, signal.SIGTERM)
            await watched.until("bot", Status.CONNECTING, Reason.EXIT, since=began, within=5)
            await watched.until("bot", Status.DISCONNECTED, Reason.MISSING, within=10)
            assert await watched.sample("connection_up", name="bot") == 0
