"""Sessions and the network: every way in which a connection dies, of every kind, over real servers.

Where a test says so, the connection goes over a proxy of our own that breaks it.
"""

import asyncio
import gc
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Self

import psutil
import pytest
from connection_exporter.core.health import Reason, Status
from connection_exporter.demo.servers import Bot, HttpApi, PostgreSQL, Redis, Server, WebSocket
from support.proxy import Mode, Proxy
from support.started import started
from support.watched import SLACK, Watched, on_uvloop, watching

QUICK = """\
defaults: {interval: 200ms, timeout: 200ms, retry_delay: 100ms, max_retry_delay: 400ms, canary: off}
services:
"""
RARE = """\
defaults: {interval: 30s, timeout: 2s, retry_delay: 200ms, max_retry_delay: 400ms, canary: off}
services:
"""


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with started(Redis()) as server:
        yield server


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    with started(PostgreSQL(settings={"max_connections": "60"})) as server:
        yield server


@pytest.fixture(scope="module")
def api() -> Iterator[HttpApi]:
    with started(HttpApi()) as server:
        yield server


@pytest.fixture(scope="module")
def feed() -> Iterator[WebSocket]:
    with started(WebSocket()) as server:
        yield server


def four(ports: dict[str, int], database: PostgreSQL) -> str:
    """Return the config of the four kinds that cross a network, each on its own port."""
    dsn = database.dsn().replace(f":{database.port}/", f":{ports['database']}/")
    return f"""\
  database: {{kind: postgresql, dsn: "{dsn}?sslmode=disable"}}
  redis: {{kind: redis, url: "redis://127.0.0.1:{ports["redis"]}/0"}}
  api: {{kind: http, url: "http://127.0.0.1:{ports["api"]}/health"}}
  feed: {{kind: websocket, url: "ws://127.0.0.1:{ports["feed"]}/prices"}}
"""


class Proxies:
    """A proxy before each of the four servers."""

    def __init__(self, database: PostgreSQL, redis: Redis, api: HttpApi, feed: WebSocket) -> None:
        self.database = database
        servers: dict[str, Server] = {"database": database, "redis": redis, "api": api, "feed": feed}
        self.all = {name: Proxy(server.port) for name, server in servers.items()}

    @property
    def config(self) -> str:
        return four({name: proxy.port for name, proxy in self.all.items()}, self.database)

    def __getitem__(self, name: str) -> Proxy:
        return self.all[name]

    async def __aenter__(self) -> Self:
        for proxy in self.all.values():
            await proxy.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for proxy in self.all.values():
            await proxy.__aexit__()

    def mode(self, mode: Mode) -> None:
        for proxy in self.all.values():
            proxy.mode = mode


@pytest.fixture
def proxies(database: PostgreSQL, redis: Redis, api: HttpApi, feed: WebSocket) -> Proxies:
    return Proxies(database, redis, api, feed)


NAMES = ("database", "redis", "api", "feed")


@on_uvloop
async def test_nothing_listens_and_then_something_does(proxies: Proxies) -> None:
    """Connecting, then disconnected with `refused`; healthy by itself once there is a listener."""
    async with proxies:
        for proxy in proxies.all.values():
            proxy.refuse()
        async with watching(RARE + proxies.config) as watched:
            for name in NAMES:
                await watched.until(name, Status.DISCONNECTED, Reason.REFUSED, within=5)
                assert watched.path(name) == ["connecting", "disconnected/refused"]
                assert watched.record(name).health.retry_count >= 3
                assert await watched.sample("connection_up", name=name) == 0
            for proxy in proxies.all.values():
                await proxy.accept()
            await watched.healthy(within=5)
            for name in NAMES:
                assert watched.record(name).health.retry_count == 0


@on_uvloop
async def test_a_name_that_does_not_resolve(redis: Redis) -> None:
    """`dns`, for that service alone."""
    config = f"""
  lost: {{kind: redis, url: "redis://no-such-name.invalid:6379"}}
  redis: {{kind: redis, url: "{redis.url}"}}
"""
    quick = QUICK.replace("timeout: 200ms", "timeout: 200ms, retries: 2")
    async with watching(quick + config) as watched:
        await watched.until("lost", Status.DISCONNECTED, Reason.DNS, within=10)
        await watched.healthy("redis")
        watched.undisturbed("redis")


@pytest.mark.parametrize("how", ["cut", "reset"])
@on_uvloop
async def test_a_lost_session_is_noticed_and_replaced_immediately(proxies: Proxies, how: str) -> None:
    """FIN and RST on an idle session at an interval of 30 s: reported without a probe, counted, and repaired.

    A session that had lived for `retry_delay` is replaced at once, so a balancer that closes what is idle
    costs a transition, and no outage.
    """
    reasons = {"database": Reason.IDLE_CLOSED, "redis": Reason.IDLE_CLOSED, "feed": Reason.EOF}
    async with proxies, watching(RARE + proxies.config) as watched:
        await watched.healthy()
        await asyncio.sleep(0.3)  # longer than retry_delay
        for name, reason in reasons.items():
            began = time.monotonic()
            getattr(proxies[name], how)()
            wanted = reason if how == "cut" else Reason.RESET
            lost = await watched.until(name, Status.CONNECTING, wanted, since=began, within=5)
            back = await watched.until(name, Status.HEALTHY, since=lost, within=5)
            print(
                f"{name} {how}: noticed {(lost - began) * 1e3:.1f} ms, healthy {(back - lost) * 1e3:.1f} ms"
            )
            assert lost - began < SLACK
            assert back - lost < SLACK
            watched.replaced_at_once(name, lost)
            assert watched.record(name).sessions_lost == 1
            assert await watched.sample("connection_sessions_lost_total", name=name) == 1
            assert await watched.sample("connection_outages_total", name=name) == 0


@on_uvloop
async def test_a_kept_http_connection_that_is_closed_is_no_loss(proxies: Proxies) -> None:
    """Either side may close it when idle; the next probe makes another, without a transition."""
    config = QUICK.replace("interval: 200ms, timeout: 200ms", "interval: 1s, timeout: 1s")
    async with proxies, watching(config + proxies.config) as watched:
        await watched.healthy()
        for _ in range(3):
            proxies["api"].cut()
            before = watched.record("api").checks
            await watched.holds(lambda before=before: watched.record("api").checks > before + 1, within=5)  # type: ignore[misc]
        watched.undisturbed("api")
        assert watched.record("api").sessions_lost == 0
        assert len(proxies["api"].accepted) >= 4


@on_uvloop
async def test_a_kill_is_reported_within_milliseconds_at_an_interval_of_30_s(database: PostgreSQL) -> None:
    """Redis, WebSocket server and process killed, a backend of PostgreSQL terminated and killed."""
    async with Redis() as redis, WebSocket() as feed, Bot() as bot:
        config = f"""
  database: {{kind: postgresql, dsn: "{database.dsn()}"}}
  redis: {{kind: redis, url: "{redis.url}"}}
  feed: {{kind: websocket, url: "{feed.url}"}}
  bot: {{kind: process, pidfile: {bot.pidfile}}}
"""
        async with watching(RARE + config) as watched:
            await watched.healthy()
            await asyncio.sleep(0.3)
            servers: dict[str, tuple[Server, set[Reason | None]]] = {
                "redis": (redis, {Reason.IDLE_CLOSED, Reason.RESET}),
                "feed": (feed, {Reason.EOF, Reason.RESET}),
                "bot": (bot, {Reason.EXIT}),
            }
            for name, (server, reasons) in servers.items():
                began = time.monotonic()
                os.kill(server.pid, signal.SIGKILL)
                at = await watched.until(name, Status.CONNECTING, since=began, within=5)
                print(f"kill -9 {name}: reported after {(at - began) * 1e3:.1f} ms")
                assert at - began < SLACK
                assert watched.record(name).transitions[0].reason in reasons
                assert await watched.sample("connection_sessions_lost_total", name=name) == 1
                await server.kill()
                await server.start()
                back = time.monotonic()
                await watched.healthy(name)
                print(f"{name}: healthy {(time.monotonic() - back) * 1e3:.0f} ms after it served again")
            await _end_a_backend(watched, database)


async def _end_a_backend(watched: Watched, database: PostgreSQL) -> None:
    ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'connection-exporter'"
    began = time.monotonic()
    await database.execute(f"SELECT pg_terminate_backend(pid) FROM ({ours}) AS ours")
    at = await watched.until("database", Status.CONNECTING, Reason.SHUTDOWN, since=began, within=5)
    print(
        f"pg_terminate_backend: reported after at most {(at - began) * 1e3:.1f} ms, connecting by ourselves included"
    )
    assert at - began < SLACK
    await watched.healthy("database")
    await asyncio.sleep(0.3)
    (backend,) = await database.execute(ours)
    began = time.monotonic()
    os.kill(backend["pid"], signal.SIGKILL)
    at = await watched.until("database", Status.CONNECTING, since=began, within=5)
    print(f"kill -9 of a backend: reported after {(at - began) * 1e3:.1f} ms")
    assert at - began < SLACK
    await watched.healthy("database", within=20)  # the server has to recover first
    assert watched.record("database").sessions_lost == 2


@on_uvloop
async def test_frozen_servers_are_noticed_within_interval_and_timeout(database: PostgreSQL) -> None:
    """SIGSTOP: the kernel goes on accepting, nothing answers. `timeout`, and healthy again after SIGCONT."""
    timed = QUICK.replace("interval: 200ms, timeout: 200ms", "interval: 1s, timeout: 500ms")
    async with PostgreSQL() as frozen, Redis() as redis, HttpApi() as api, WebSocket() as feed, Bot() as bot:
        config = four(
            {"database": frozen.port, "redis": redis.port, "api": api.port, "feed": feed.port}, frozen
        )
        config += f"""\
  bot: {{kind: process, pidfile: {bot.pidfile}}}
  other: {{kind: postgresql, dsn: "{database.dsn()}"}}
"""
        async with watching(timed + config) as watched:
            await watched.healthy()
            for server in (frozen, redis, api, feed, bot):
                await server.pause()
            began = time.monotonic()
            for name in NAMES:
                at = await watched.until(name, Status.CONNECTING, Reason.TIMEOUT, since=began, within=20)
                assert at - began < 1.5 + SLACK  # interval + timeout, and room for a loaded machine
            at = await watched.until("bot", Status.UNHEALTHY, Reason.STOPPED, since=began, within=20)
            assert at - began < 1.0 + SLACK
            for name in NAMES:
                await watched.until(name, Status.DISCONNECTED, Reason.TIMEOUT, within=10)
            for server in (frozen, redis, api, feed, bot):
                await server.resume()
            await watched.healthy(within=10)
            watched.undisturbed("other")
            for name in ("database", "redis", "feed"):
                assert watched.record(name).sessions_lost == 1


@pytest.mark.parametrize(
    ("mode", "reasons"),
    [
        (Mode.HANG_UP, {Reason.EOF, Reason.RESET}),
        (Mode.RESET, {Reason.RESET, Reason.EOF}),
        (Mode.GARBLE, {Reason.PROTOCOL, Reason.TIMEOUT}),  # what is garbled may ask us to wait for more
        (Mode.TRICKLE, {Reason.TIMEOUT}),
        (Mode.SWALLOW, {Reason.TIMEOUT}),
        (Mode.ENDLESS, {Reason.PROTOCOL}),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Mode) else "",
)
@on_uvloop
async def test_each_answer_to_a_connect_is_reported_with_its_reason(
    proxies: Proxies, mode: Mode, reasons: set[Reason]
) -> None:
    """Accepts and closes, resets, speaks garbage, a byte a second, nothing, or without end; then it is repaired."""
    proxies.mode(mode)
    before = psutil.Process().memory_info().rss
    # On a busy machine, an answer that comes at once may come after 200 ms.
    config = QUICK if Reason.TIMEOUT in reasons else RARE
    async with proxies, watching(config + proxies.config) as watched:
        for name in NAMES:
            await watched.until(name, Status.DISCONNECTED, within=10)
            trouble = watched.record(name).trouble
            assert trouble.reason in reasons, f"{name}: {trouble}"
        assert psutil.Process().memory_info().rss - before < 64 * 1024 * 1024
        proxies.mode(Mode.PASS)
        await watched.healthy(within=10)
        for name in NAMES:
            assert watched.record(name).sessions_lost == 0


@pytest.mark.parametrize(
    "mode", [Mode.SWALLOW, Mode.TRICKLE, Mode.GARBLE], ids=lambda mode: mode.name.lower()
)
@on_uvloop
async def test_a_session_that_goes_bad_in_the_middle_is_lost_once_and_comes_back(
    proxies: Proxies, mode: Mode
) -> None:
    """Half open, crawling or garbled from one moment to the next: one loss each, within interval + timeout."""
    wanted = {Reason.PROTOCOL, Reason.TIMEOUT} if mode is Mode.GARBLE else {Reason.TIMEOUT}
    async with proxies, watching(QUICK + proxies.config) as watched:
        await watched.healthy()
        proxies.mode(mode)
        began = time.monotonic()
        for name in NAMES:
            at = await watched.until(name, Status.CONNECTING, since=began, within=5)
            assert at - began < 0.4 + SLACK
            reason = next(
                seen.transition.reason
                for seen in watched.seen
                if seen.at == at and seen.transition.name == name
            )
            assert reason in wanted, f"{name}: {reason}"
        proxies.mode(Mode.PASS)
        await watched.healthy(within=10)
        for name in ("database", "redis", "feed"):
            assert watched.record(name).sessions_lost == 1, name


@on_uvloop
async def test_a_server_that_answers_and_closes_is_never_hammered(proxies: Proxies) -> None:
    """Never more than one session in 0.8 x `retry_delay`."""
    config = QUICK.replace("retry_delay: 100ms, max_retry_delay: 400ms", "retry_delay: 500ms")
    proxies.mode(Mode.ANSWER_ONCE)
    async with proxies, watching(config + proxies.config) as watched:
        for name in ("database", "redis", "feed"):
            times = proxies[name].accepted
            await watched.holds(lambda times=times: len(times) >= 8, within=10)  # type: ignore[misc]
            gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
            assert min(gaps) >= 0.8 * 0.5 - 0.02, f"{name}: {gaps}"
        assert watched.record("redis").sessions >= 3
        assert watched.record("redis").sessions_lost >= 3
        proxies.mode(Mode.PASS)
        await watched.healthy(within=10)


@on_uvloop
async def test_an_end_in_mid_probe_is_one_loss(proxies: Proxies) -> None:
    """A server that goes away between question and answer: one loss, no failed check, and back."""
    config = QUICK.replace("interval: 200ms, timeout: 200ms", "interval: 1s, timeout: 1s")
    async with proxies, watching(config + proxies.config) as watched:
        await watched.healthy()
        await asyncio.sleep(0.3)
        for name in ("database", "redis", "feed"):
            proxies[name].mode = Mode.SWALLOW
            record = watched.record(name)
            checks = record.checks
            await watched.holds(lambda r=record: r.next_attempt_at + 0.1 < time.time(), within=5)  # type: ignore[misc]
            proxies[name].mode = Mode.PASS
            began = time.monotonic()
            proxies[name].cut()
            at = await watched.until(name, Status.CONNECTING, since=began, within=5)
            await watched.until(name, Status.HEALTHY, since=at, within=5)
            record = watched.record(name)
            assert record.transitions[1].reason in (Reason.EOF, Reason.RESET), name  # not idle_closed
            assert record.sessions_lost == 1, name
            assert record.check_failures == 0, name
            assert record.checks > checks


@on_uvloop
async def test_five_restarts_are_five_losses_and_no_leak() -> None:
    """Redis and WebSocket server killed and started five times: one loss each, and nothing piles up."""
    async with Redis() as redis, WebSocket() as feed, Proxy(redis.port) as before_redis:
        config = f"""
  redis: {{kind: redis, url: "redis://127.0.0.1:{before_redis.port}"}}
  direct: {{kind: redis, url: "{redis.url}"}}
  feed: {{kind: websocket, url: "{feed.url}"}}
"""
        async with watching(RARE + config, read=False) as watched:
            await watched.healthy()
            start: tuple[int, int, int] | None = None
            for turn in range(5):
                began = time.monotonic()
                await redis.kill()
                await feed.kill()
                for name in ("redis", "direct", "feed"):
                    await watched.until(name, Status.CONNECTING, since=began, within=5)
                await redis.start()
                await feed.start()
                await watched.healthy()
                for name in ("redis", "direct", "feed"):
                    assert watched.record(name).sessions_lost == turn + 1, name
                    assert watched.record(name).sessions == turn + 2, name
                await asyncio.sleep(0.1)
                gc.collect()
                threads = sum(thread.name != "idle" for thread in threading.enumerate())
                now = (psutil.Process().num_fds(), len(asyncio.all_tasks()), threads)
                start = start or now
                assert all(a <= b for a, b in zip(now, start, strict=True)), f"{start} became {now}"


@on_uvloop
async def test_two_hundred_services_that_fail_together_come_back_spread() -> None:
    """Attempts are bounded in number while all is down, and jitter spreads them, then and on the way back."""
    config = """\
defaults: {interval: 10s, timeout: 1s, retry_delay: 1s, max_retry_delay: 4s, canary: off}
services:
"""
    async with Redis() as redis, Proxy(redis.port) as proxy:
        for number in range(200):
            config += (
                f'  redis_{number}: {{kind: redis, url: "redis://127.0.0.1:{proxy.port}", depth: false}}\n'
            )
        async with watching(config) as watched:
            await watched.healthy(within=20)
            await asyncio.sleep(1.1)  # all have lived for retry_delay
            names = [name for name in watched.monitor.board.names if name.startswith("redis_")]
            before = {name: watched.record(name).checks for name in names}
            proxy.mode = Mode.RESET
            failed = time.monotonic()
            proxy.cut()
            for name in names:
                await watched.until(name, Status.CONNECTING, since=failed, within=5)
            await asyncio.sleep(5.0)
            attempts = {name: watched.record(name).checks - before[name] for name in names}
            # at once, then after about 1, 2 and 4 s, each times 0.8 to 1.2
            assert max(attempts.values()) <= 5, attempts
            assert min(attempts.values()) >= 3, attempts
            planned = [at for name in names if (at := watched.record(name).next_attempt_at) is not None]
            assert len(planned) > 180
            assert _fullest(planned, 0.05) < 40, "the attempts are planned in a lump"
            proxy.mode = Mode.PASS
            back = time.monotonic()
            await watched.healthy(within=15)
            came = [at - back for at in proxy.accepted if at > back]
            assert len(came) == 200
            assert max(came) - min(came) > 1.0
            assert _fullest(came, 0.05) < 80, "they come back in a lump"
            assert all(watched.record(name).sessions_lost == 1 for name in names)


def _fullest(times: list[float], width: float) -> int:
    """Return the largest number of ``times`` within ``width`` seconds."""
    times = sorted(times)
    return max((sum(1 for at in times if start <= at < start + width) for start in times), default=0)
