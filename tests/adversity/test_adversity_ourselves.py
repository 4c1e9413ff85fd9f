"""The exporter itself: suspended, starved, ended in the middle, asked by too many, let down by its own parts."""

import asyncio
import http.client
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from connection_exporter.core.health import Reason, Status
from connection_exporter.demo.servers import Redis
from connection_exporter.kind import Service, Session
from connection_exporter.kinds import load_text
from connection_exporter.kinds.redis.check import RedisCheck
from connection_exporter.kinds.registry import build
from connection_exporter.monitor.record import Transition
from connection_exporter.net import Network
from support.served import Served
from support.started import started
from support.watched import SLACK, on_uvloop, watching


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with started(Redis()) as server:
        yield server


def at(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).astimezone(UTC).timestamp()


@on_uvloop
async def test_a_suspended_exporter_never_shows_an_old_result(redis: Redis, tmp_path: Path) -> None:
    """The first read after SIGCONT shows no result from before it; each service is probed once, and no more.

    One server is frozen meanwhile, so that there is no newer result of it: it is `unknown`, `stale`.
    """
    config = "defaults: {interval: 500ms, timeout: 500ms, canary: off}\nservices:\n"
    config += "".join(f'  redis_{n}: {{kind: redis, url: "{redis.url}", depth: false}}\n' for n in range(20))
    async with (
        Redis() as frozen,
        Served(f'{config}  frozen: {{kind: redis, url: "{frozen.url}"}}\n', tmp_path) as served,
    ):
        for name in ("frozen", *(f"redis_{number}" for number in range(20))):
            await served.until(name, "healthy", within=10)
        served.send(signal.SIGSTOP)
        await frozen.pause()
        reader = asyncio.create_task(served.get("/health/detailed"))  # the kernel takes it in meanwhile
        await asyncio.sleep(3.0)
        before = await _checks(redis)
        resumed = time.time()
        served.send(signal.SIGCONT)
        first = await reader
        for name, service in first["services"].items():
            old = at(service["last_check"]) + 0.001 <= resumed  # it is cut to milliseconds
            assert not old or (service["status"], service["reason"]) == ("unknown", "stale"), (
                f"{name}: {service}"
            )
        assert first["services"]["frozen"]["status"] == "unknown"
        assert first["services"]["frozen"]["reason"] == "stale"
        await served.until("frozen", "connecting", within=2)  # the probe that was under way did not answer
        await frozen.resume()
        await served.until("frozen", "healthy", within=10)
        for number in range(20):
            reported = await served.until(f"redis_{number}", "healthy", within=5)
            assert [transition["to"] for transition in reported["transitions"][:2]] == ["healthy", "unknown"]
        probes, seconds = await _checks(redis) - before, time.time() - resumed
        # one each on waking; from then on at the usual rate, two a second each
        assert 20 <= probes <= 20 * (2 + seconds / 0.5), f"{probes} probes in {seconds:.1f} s"


@on_uvloop
async def test_an_answer_that_came_while_we_were_suspended_counts(tmp_path: Path) -> None:
    """Suspended in mid-probe, past its deadline: the answer is there when we wake, and nothing was lost."""
    async with Redis() as redis:
        # Three seconds: on a busy machine, SIGSTOP may come late, and has to come before the deadline.
        config = "defaults: {interval: 3s, timeout: 3s, canary: off}\nservices:\n"
        config += f'  redis: {{kind: redis, url: "{redis.url}"}}\n'
        async with Served(config, tmp_path) as served:
            await served.until("redis", "healthy", within=10)
            await redis.pause()
            reported = await served.get("/health/service/redis")
            # It is asked, and does not answer.
            await asyncio.sleep(at(reported["next_attempt"]) + 0.2 - time.time())
            served.send(signal.SIGSTOP)
            await redis.resume()
            await asyncio.sleep(3.5)
            served.send(signal.SIGCONT)
            await asyncio.sleep(0.3)
            reported = await served.until("redis", "healthy", within=5)
            assert "connecting" not in [transition["to"] for transition in reported["transitions"][:-2]]
            lines = str(await served.get("/metrics")).splitlines()
            lost = [line for line in lines if line.startswith("connection_sessions_lost_total{")]
            assert [line.rpartition(" ")[2] for line in lost] in (["0"], ["0.0"])


async def _checks(redis: Redis) -> int:
    """Return how often the server was asked PING."""
    reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
    try:
        writer.write(b"INFO commandstats\r\n")
        length = int((await reader.readline())[1:])
        stats = (await reader.readexactly(length)).decode()
    finally:
        writer.close()
    return next(
        int(line.partition("calls=")[2].partition(",")[0])
        for line in stats.splitlines()
        if line.startswith("cmdstat_ping:")
    )


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM], [signal.SIGINT]])
@on_uvloop
async def test_an_end_in_mid_connect_is_clean_and_quick(
    tmp_path: Path, signals: list[signal.Signals]
) -> None:
    """SIGTERM (twice, too) while a connect hangs in a black hole: exit status 0 within 2 s."""
    with socket.socket() as full, socket.socket() as filler:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # one connection fits, and is never accepted: the kernel drops what comes after it
        filler.connect(full.getsockname())
        port = full.getsockname()[1]
        config = "defaults: {interval: 30s, timeout: 30s, canary: off}\nservices:\n"
        config += f'  hole: {{kind: redis, url: "redis://127.0.0.1:{port}"}}\n'
        config += f'  database: {{kind: postgresql, dsn: "postgresql://a:b@127.0.0.1:{port}/c"}}\n'
        config += f'  api: {{kind: http, url: "http://127.0.0.1:{port}"}}\n'
        config += f'  feed: {{kind: websocket, url: "ws://127.0.0.1:{port}"}}\n'
        async with Served(config, tmp_path) as served:
            for name in ("hole", "database", "api", "feed"):
                await served.until(name, "connecting", within=10)
            for number in signals:
                served.send(number)
            assert await served.ended(within=2.0) == 0
            assert "Traceback" not in served.log.read_text()


@on_uvloop
async def test_without_file_descriptors_what_worked_goes_on(redis: Redis, tmp_path: Path) -> None:
    """What no longer fits is unknown with `internal` and the remedy; what is held stays healthy; then all recover."""
    config = "defaults: {interval: 300ms, timeout: 300ms, retry_delay: 100ms, max_retry_delay: 300ms, canary: off}\n"
    config += "services:\n"
    config += "".join(
        f'  redis_{n:03}: {{kind: redis, url: "{redis.url}", depth: false}}\n' for n in range(100)
    )
    async with Served(config, tmp_path, files=64) as served:
        deadline = time.monotonic() + 15
        while True:
            try:
                async with asyncio.timeout(2):
                    services = (await served.get("/health/detailed"))["services"]
            except (OSError, TimeoutError, http.client.HTTPException):
                services = {}
            starved = [s for s in services.values() if s["reason"] == "internal"]
            held = [s for s in services.values() if s["status"] == "healthy"]
            if starved and held and len(starved) + len(held) == len(services):
                break
            assert time.monotonic() < deadline, (
                f"{len(starved)} starved and {len(held)} held of {len(services)}"
            )
            await asyncio.sleep(0.1)
        assert all("file descriptors" in service["message"] for service in starved)
        assert all(service["status"] == "unknown" for service in starved)
        assert served.process.poll() is None


@on_uvloop
async def test_a_hundred_scrapes_and_a_thousand_force_checks_at_once(redis: Redis) -> None:
    """The scrapes are all answered; the force-checks share rounds, of which at most one begins per second."""
    config = f"""\
defaults: {{interval: 30s, timeout: 2s, canary: off}}
services:
  redis: {{kind: redis, url: "{redis.url}"}}
"""
    async with watching(config, read=False) as watched:
        await watched.healthy()
        scrapes = await asyncio.gather(*(_status(watched.port, "GET /metrics") for _ in range(100)))
        assert scrapes == [200] * 100
        checks = watched.record("redis").checks
        began = time.monotonic()
        answers = await asyncio.gather(
            *(_status(watched.port, "POST /health/force-check") for _ in range(1000))
        )
        seconds = time.monotonic() - began
        assert set(answers) <= {200, 429}
        assert answers.count(200) >= 1
        rounds = watched.monitor.board.forced_checks
        assert rounds <= seconds + 1, f"{rounds} rounds in {seconds:.1f} s"
        # Its second probe may be due meanwhile.
        assert rounds <= watched.record("redis").checks - checks <= rounds + 1
        assert watched.record("redis").sessions == 1


async def _status(port: int, request: str) -> int:
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(
                f"{request} HTTP/1.1\r\nHost: it\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
            status = int((await reader.readline()).split()[1])
            await reader.read()
            return status
        finally:
            writer.close()


@on_uvloop
async def test_callbacks_that_raise_or_never_return_disturb_nobody(redis: Redis) -> None:
    """A third one is still called, in order; the exporter ends without waiting for the one that hangs."""
    config = f"""\
defaults: {{interval: 100ms, timeout: 100ms, retry_delay: 50ms, max_retry_delay: 100ms, canary: off}}
services:
  redis: {{kind: redis, url: "{redis.url}"}}
"""
    reported: list[Status] = []
    release = threading.Event()

    def raises(_: Transition) -> None:
        raise RuntimeError("a callback's own fault")

    def hangs(_: Transition) -> None:
        release.wait(30)

    async def hangs_too(_: Transition) -> None:
        await asyncio.Event().wait()

    try:
        async with watching(config) as watched:
            for callback in (raises, hangs, hangs_too):
                watched.monitor.add_callback(callback)
            watched.monitor.add_callback(lambda transition: reported.append(transition.status))
            await watched.healthy()
            await asyncio.sleep(0.06)
            began = time.monotonic()
            await redis.call("CLIENT", "KILL", "TYPE", "normal")
            at_once = await watched.until("redis", Status.CONNECTING, since=began, within=5)
            assert at_once - began < SLACK
            await watched.healthy("redis")
            await watched.holds(lambda: reported[-2:] == [Status.CONNECTING, Status.HEALTHY], within=5)
            ending = time.monotonic()
        assert time.monotonic() - ending < 5
    finally:
        release.set()


class Faulty(RedisCheck):
    """A check with a fault of its own."""

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        raise ZeroDivisionError("what nobody expected")
        yield  # pragma: no cover - makes it a generator


@on_uvloop
async def test_a_check_that_raises_what_nobody_expected_is_alone_with_it(redis: Redis) -> None:
    """Unknown with `internal` for that service; the rest goes on."""
    config = f"""\
defaults: {{interval: 100ms, timeout: 100ms, retry_delay: 50ms, max_retry_delay: 100ms, canary: off}}
services:
  good: {{kind: redis, url: "{redis.url}"}}
  faulty: {{kind: redis, url: "{redis.url}"}}
"""
    network = Network()
    (_, sound) = build(load_text(config, environ={}).services, network)
    async with watching(config) as watched:
        monitor = watched.monitor
        await watched.healthy()
        await monitor._supervisor.stop("faulty")
        check = Faulty(load_text(config, environ={}).services["faulty"], network)  # type: ignore[arg-type]
        monitor._supervisor.start(Service("faulty", sound.kind, check, sound.policy))
        await watched.until("faulty", Status.UNKNOWN, Reason.INTERNAL, within=5)
        assert "ZeroDivisionError" in watched.record("faulty").trouble.message
        assert "what nobody expected" not in watched.record("faulty").trouble.message
        await asyncio.sleep(0.3)
        watched.undisturbed("good")
