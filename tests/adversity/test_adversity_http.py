"""HTTP in the whole exporter: APIs that are unhealthy, slow, cut off, closed while idle, or hostile, and recover."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest
from connection_exporter.core.health import Reason, Status
from connection_exporter.demo.servers import HttpApi
from support.hostile import ITERATION_LIMIT, flooding, loop_cost
from support.proxy import Mode, Proxy
from support.started import started
from support.watched import SLACK, on_uvloop, watching

QUICK = """\
defaults: {interval: 500ms, timeout: 500ms, retry_delay: 200ms, max_retry_delay: 500ms, canary: off}
services:
"""


@pytest.fixture(scope="module")
def api() -> Iterator[HttpApi]:
    with started(HttpApi()) as server:
        yield server


def service(name: str, port: int, more: str = "") -> str:
    return f'  {name}: {{kind: http, url: "http://127.0.0.1:{port}/health"{more}}}\n'


@on_uvloop
async def test_an_api_that_reports_a_problem_is_unhealthy_and_not_lost(api: HttpApi) -> None:
    """A 503 or a bad body is `expect`: the session stays, no retry is counted, and the service recovers."""
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
                assert at - began < 0.5 + SLACK
                assert watched.record(name).health.session_up
            assert await watched.sample("connection_http_status_code", name="status") == 503
        finally:
            await api.well()
        await watched.healthy()
        watched.undisturbed("any")
        assert all(watched.record(name).sessions_lost == 0 for name in ("status", "body"))


@on_uvloop
async def test_a_slow_api_is_unhealthy_then_times_out_then_recovers(api: HttpApi) -> None:
    """Slower than `max_latency` is `slow`; slower than `timeout` is `timeout`; then it recovers."""
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
async def test_a_response_that_is_cut_off_fails_and_the_next_is_good(api: HttpApi) -> None:
    """An incomplete response is a failed attempt: the session is down, and it recovers."""
    async with Proxy(api.port, Mode.TRICKLE) as proxy:
        config = QUICK.replace("timeout: 500ms", "timeout: 500ms") + service("api", proxy.port)
        async with watching(config) as watched:
            await asyncio.sleep(0.3)
            proxy.cut()
            await watched.holds(lambda: watched.record("api").check_failures >= 1, within=5)
            # a reset if the proxy had not read all of the request
            assert watched.record("api").trouble.reason in (Reason.EOF, Reason.RESET, Reason.TIMEOUT)
            proxy.mode = Mode.PASS
            await watched.healthy()
            assert watched.record("api").health.retry_count == 0


@on_uvloop
async def test_a_server_that_closes_idle_connections_stays_healthy(api: HttpApi) -> None:
    """uvicorn, like most servers, closes a kept connection after 5 s. With an interval of 6 s, that is not a loss."""
    config = QUICK.replace("interval: 500ms", "interval: 6s") + service("api", api.port)
    async with watching(config) as watched:
        await watched.healthy()
        await watched.holds(lambda: watched.record("api").checks >= 3, within=20)
        watched.undisturbed("api")
        assert watched.record("api").check_failures == 0


@on_uvloop
async def test_floods_from_several_servers_disturb_no_other_service(api: HttpApi) -> None:
    """Each flood is reported with its reason, memory stays bounded, and a good API stays healthy throughout."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    floods = {
        "chunks": (chunked, b"1\r\nx\r\n" * 40_000, Reason.TOO_LARGE),
        "trailers": (chunked + b"0\r\n", b"a:\r\n" * 60_000, Reason.TOO_LARGE),
        "interim": (b"", b"HTTP/1.1 100 \r\n\r\n" * 15_000, Reason.TOO_LARGE),
        "headers": (b"HTTP/1.1 200 OK\r\n", b"a:\r\n" * 60_000, Reason.TOO_LARGE),
        "garbage": (b"", b"\r\n" * 100_000, Reason.PROTOCOL),
    }
    with ExitStack() as stack:
        ports = {
            name: stack.enter_context(flooding(head, piece)) for name, (head, piece, _) in floods.items()
        }
        # On a busy machine, the chunks take longer than half a second to exceed the limit.
        patient = ", interval: 5s, timeout: 5s"
        config = QUICK + "".join(service(name, port, patient) for name, port in ports.items())
        async with watching(config + service("good", api.port), read=False) as watched:
            await watched.healthy("good")
            for name, (_, _, reason) in floods.items():
                await watched.holds(lambda n=name, r=reason: watched.record(n).trouble.reason is r, within=10)  # type: ignore[misc]
            before = psutil.Process().memory_info().rss
            longest = []
            for _ in range(3):
                async with loop_cost() as measured:
                    await asyncio.sleep(1)
                longest.append(measured.longest)
            assert min(longest) < ITERATION_LIMIT
            assert psutil.Process().memory_info().rss - before < 64 * 2**20
            records = [watched.record(name) for name in floods]
            await watched.holds(lambda: all(it.check_failures + it.checks > 3 for it in records), within=20)
            watched.undisturbed("good")
