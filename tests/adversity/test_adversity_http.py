"""HTTP under the whole exporter: sick, slow, closed when idle, cut in mid-answer, and well again."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from proxy import Mode, Proxy
from watched import on_uvloop, watching

from exporter.core.health import Reason, Status
from exporter.demo.servers import HttpApi

QUICK = """\
defaults: {interval: 500ms, timeout: 500ms, retry_delay: 200ms, max_retry_delay: 500ms, canary: off}
services:
"""


@pytest.fixture(scope="module")
def api() -> Iterator[HttpApi]:
    server = HttpApi()
    asyncio.run(server.start())
    yield server
    asyncio.run(server.close())


def service(name: str, port: int, more: str = "") -> str:
    return f'  {name}: {{kind: http, url: "http://127.0.0.1:{port}/health"{more}}}\n'


@on_uvloop
async def test_an_api_that_is_sick_is_unhealthy_and_not_lost(api: HttpApi) -> None:
    """503 and a body that says so: `expect`, the session stays, no retry counts; well again by itself."""
    config = QUICK + service("status", api.port)
    config += service("body", api.port, ", expect: {status: [200, 503], json: {status: ok}}")
    config += service("any", api.port, ", expect: {status: [200, 503]}")
    async with watching(config) as watched:
        await watched.healthy()
        began = time.monotonic()
        await api.sick()
        try:
            for name in ("status", "body"):
                at = await watched.until(name, Status.UNHEALTHY, Reason.EXPECT, since=began, within=5)
                assert at - began < 0.5 + 1.0
                assert watched.record(name).health.session_up
            assert await watched.sample("connection_http_status_code", name="status") == 503
        finally:
            await api.well()
        await watched.healthy()
        watched.undisturbed("any")
        assert all(watched.record(name).sessions_lost == 0 for name in ("status", "body"))


@on_uvloop
async def test_an_api_that_is_slow_is_unhealthy_then_times_out_then_is_back(api: HttpApi) -> None:
    """Slower than `max_latency` is `slow`, slower than `timeout` is `timeout`; as soon as it is quick, healthy."""
    async with Proxy(api.port) as proxy:
        config = QUICK + service("api", proxy.port, ", max_latency: 100ms") + service("direct", api.port)
        async with watching(config) as watched:
            await watched.healthy()
            proxy.delay = 0.08  # there and back
            await watched.until("api", Status.UNHEALTHY, Reason.SLOW, within=5)
            proxy.delay = 0.4
            await watched.until("api", Status.DISCONNECTED, Reason.TIMEOUT, within=10)
            proxy.delay = 0.0
            await watched.healthy()
            watched.undisturbed("direct")


@on_uvloop
async def test_an_answer_that_is_cut_in_the_middle_fails_and_the_next_is_good(api: HttpApi) -> None:
    """No answer is a failed attempt: the session is down, the count is 1, and it is back by itself."""
    async with Proxy(api.port, Mode.TRICKLE) as proxy:
        config = QUICK.replace("timeout: 500ms", "timeout: 500ms") + service("api", proxy.port)
        async with watching(config) as watched:
            await asyncio.sleep(0.3)
            proxy.cut()
            await watched.holds(lambda: watched.record("api").check_failures >= 1, within=5)
            assert watched.record("api").trouble.reason in (Reason.EOF, Reason.TIMEOUT)
            proxy.mode = Mode.PASS
            await watched.healthy()
            assert watched.record("api").health.retry_count == 0


@on_uvloop
async def test_a_server_that_closes_what_is_idle_is_healthy_all_the_while(api: HttpApi) -> None:
    """uvicorn, like most servers, closes a kept connection after 5 s: at an interval of 6 s that is no loss."""
    config = QUICK.replace("interval: 500ms", "interval: 6s") + service("api", api.port)
    async with watching(config) as watched:
        await watched.healthy()
        await watched.holds(lambda: watched.record("api").checks >= 3, within=20)
        watched.undisturbed("api")
        assert watched.record("api").check_failures == 0
