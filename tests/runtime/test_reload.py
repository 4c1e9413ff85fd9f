"""A changed config is taken into force at once and as a whole, or not at all."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx
import pytest
from connection_exporter.app import serving
from connection_exporter.config.changes import compare
from connection_exporter.config.web import WebConfig
from connection_exporter.demo.servers import HttpApi, Redis
from connection_exporter.kinds import load
from connection_exporter.runtime import reload
from connection_exporter.runtime.file_watcher import LOOK_EVERY
from connection_exporter.runtime.history import Store
from connection_exporter.runtime.settings import Settings, read_settings
from connection_exporter.system.wakeup import Wakeup
from connection_exporter.web.server import bind
from support.certificates import issue

SOON = 10.0


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    server = Redis(tmp_path / "redis")
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[HttpApi]:
    server = HttpApi(tmp_path / "api")
    await server.start()
    yield server
    await server.close()


class Running:
    """An exporter under test: its config file, and what it says."""

    def __init__(self, file: Path, client: httpx.AsyncClient, hangup: Wakeup) -> None:
        self.file = file
        self.client = client
        self.hangup = hangup

    def write(self, *services: str, defaults: str = "interval: 1s, retry_delay: 500ms") -> None:
        write(self.file, *services, defaults=defaults)

    async def reload(self) -> httpx.Response:
        return await self.client.post("/-/reload")

    async def service(self, name: str) -> dict[str, object]:
        reported: dict[str, object] = (await self.client.get(f"/health/service/{name}")).json()
        return reported

    async def metric(self, start: str) -> float | None:
        for line in (await self.client.get("/metrics")).text.splitlines():
            if line.startswith(start):
                return float(line.rpartition(" ")[2])
        return None

    async def healthy(self, name: str) -> None:
        await until(lambda: self._is_healthy(name))

    async def _is_healthy(self, name: str) -> bool:
        return (await self.service(name))["status"] == "healthy"


def write(file: Path, *services: str, defaults: str = "interval: 1s, retry_delay: 500ms") -> None:
    lines = "".join(f"  {service}\n" for service in services)
    file.write_text(f"defaults: {{{defaults}}}\nservices:\n{lines}")


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SOON):
        while not await true():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.02)


@asynccontextmanager
async def exporter(
    file: Path, *, lifecycle: bool = True, storage: Path | None = None
) -> AsyncIterator[Running]:
    def read() -> Settings:
        return read_settings(lambda: load(file), WebConfig, files=(file,))

    sockets, hangup = bind(["127.0.0.1:0"]), Wakeup()
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    async with (
        serving(read(), sockets, reread=read, lifecycle=lifecycle, hangup=hangup, storage=storage),
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield Running(file, client, hangup)


def redis_line(redis: Redis, name: str = "cache", more: str = "") -> str:
    return f'{name}: {{kind: redis, url: "{redis.url}"{more}}}'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "connection-exporter.yml"


@pytest.fixture
async def running(file: Path, redis: Redis, api: HttpApi) -> AsyncIterator[Running]:
    write(file, redis_line(redis), f'api: {{kind: http, url: "{api.url}"}}')
    async with exporter(file) as it:
        await it.healthy("cache")
        await it.healthy("api")
        yield it


def test_configs_are_compared_service_by_service() -> None:
    """By value, in the order of the files."""
    changes = compare({"a": 1, "b": 2, "c": 3}, {"d": 4, "c": 3, "b": 5})
    assert (changes.added, changes.changed, changes.removed, changes.unchanged) == (
        ("d",),
        ("b",),
        ("a",),
        ("c",),
    )


async def test_a_service_that_has_not_changed_keeps_session_counters_and_history(
    running: Running, redis: Redis, api: HttpApi
) -> None:
    """Whatever happens around it."""
    before = await running.service("cache")
    checks = await running.metric('connection_checks_total{kind="redis",name="cache"}')
    running.write(redis_line(redis), redis_line(redis, "second"))
    answer = (await running.reload()).json()
    assert answer == {"added": ["second"], "changed": [], "removed": ["api"], "unchanged": ["cache"]}
    after = await running.service("cache")
    assert after["session"] == before["session"]
    assert after["transitions"] == before["transitions"]
    assert checks is not None
    assert (await running.metric('connection_checks_total{kind="redis",name="cache"}') or 0) >= checks
    assert await running.metric('connection_sessions_total{kind="redis",name="cache"}') == 1
    await running.healthy("second")


async def test_a_changed_service_reconnects_and_what_was_counted_goes_on(
    running: Running, redis: Redis
) -> None:
    """A counter that fell back would be a reset in the eyes of Prometheus; a stop of ours is no loss."""
    sessions = 'connection_sessions_total{kind="redis",name="cache"}'
    assert await running.metric(sessions) == 1
    running.write(redis_line(redis, more=", database: 0, critical: false").replace("/0", ""))
    assert (await running.reload()).json()["changed"] == ["cache"]
    await running.healthy("cache")
    assert await running.metric(sessions) == 2
    assert await running.metric('connection_sessions_lost_total{kind="redis",name="cache"}') == 0
    assert await running.metric('connection_outages_total{kind="redis",name="cache"}') == 0
    assert (await running.service("cache"))["critical"] is False


async def test_a_name_that_changes_its_kind_begins_anew(running: Running, redis: Redis, api: HttpApi) -> None:
    """Its series have another label, so none is continued."""
    running.write(redis_line(redis), f'api: {{kind: redis, url: "{redis.url}"}}')
    assert (await running.reload()).json()["changed"] == ["api"]
    await running.healthy("api")
    text = (await running.client.get("/metrics")).text
    assert 'kind="http"' not in text
    assert 'connection_sessions_total{kind="redis",name="api"} 1' in text


async def test_the_series_of_a_removed_service_vanish(running: Running, redis: Redis) -> None:
    """From metrics, the board and the list of known names alike."""
    running.write(redis_line(redis))
    assert (await running.reload()).status_code == 200
    assert 'name="api"' not in (await running.client.get("/metrics")).text
    assert list((await running.client.get("/health/detailed")).json()["services"]) == ["cache"]
    assert (await running.client.get("/health/service/api")).status_code == 404
    await asyncio.sleep(1.2)  # its watch would have probed by now
    assert (await running.client.post("/health/force-check", timeout=20)).status_code == 200


async def test_a_service_that_comes_back_has_its_history(file: Path, redis: Redis, api: HttpApi) -> None:
    """It was kept on disk, and is there again without a restart, what has happened since before it."""
    with_api = f'api: {{kind: http, url: "{api.url}"}}'
    write(file, redis_line(redis), with_api)
    async with exporter(file, storage=file.parent / "store") as running:
        await running.healthy("api")
        before = (await running.service("api"))["transitions"]
        running.write(redis_line(redis))
        assert (await running.reload()).json()["removed"] == ["api"]
        assert isinstance(before, list)
        with closing(Store(file.parent / "store")) as store:
            async with asyncio.timeout(SOON):  # the last, of the stop, is kept too
                while len(store.newest(["api"])["api"]) <= len(before):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        running.write(redis_line(redis), with_api)
        assert (await running.reload()).json()["added"] == ["api"]
        await running.healthy("api")
        after = (await running.service("api"))["transitions"]
    assert isinstance(after, list)
    assert after[-len(before) :] == before
    assert len(after) > len(before) + 1


async def test_the_board_follows_the_order_of_the_new_file(
    running: Running, redis: Redis, api: HttpApi
) -> None:
    """New services stand where they were written, not at the end."""
    http = f'{{kind: http, url: "{api.url}"}}'
    running.write(f"first: {http}", f"api: {http}", redis_line(redis))
    await running.reload()
    assert list((await running.client.get("/health/detailed")).json()["services"]) == [
        "first",
        "api",
        "cache",
    ]


async def test_a_bad_file_changes_nothing_and_says_every_mistake(running: Running, redis: Redis) -> None:
    """In the answer and in the metrics; the next good file fixes both."""
    successful = "connection_exporter_config_last_reload_successful"
    stamp = "connection_exporter_config_last_reload_success_timestamp_seconds"
    before, when = await running.service("cache"), await running.metric(stamp)
    assert await running.metric(successful) == 1
    running.write("cache: {kind: redis, intervall: 1s}", "other: {kind: nothing}")
    answer = await running.reload()
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    reported = "\n".join(answer.json()["mistakes"])
    assert "did you mean 'interval'" in reported
    assert "other" in reported
    assert await running.metric(successful) == 0
    assert await running.metric(stamp) == when
    assert (await running.service("cache"))["session"] == before["session"]
    assert (await running.client.get("/health/service/api")).status_code == 200
    running.write(redis_line(redis))
    assert (await running.reload()).status_code == 200
    assert await running.metric(successful) == 1


async def test_a_hang_up_reloads(running: Running, redis: Redis) -> None:
    """What SIGHUP does, below the signal."""
    running.write(redis_line(redis), redis_line(redis, "second"))
    running.hangup.set()
    await running.healthy("second")


async def test_a_change_of_the_content_reloads_by_itself_and_a_touch_does_not(
    running: Running, redis: Redis
) -> None:
    """An atomic rename, as editors and Kubernetes do it, counts by what is in the file."""
    stamp = "connection_exporter_config_last_reload_success_timestamp_seconds"
    when = await running.metric(stamp)
    os.utime(running.file)
    await asyncio.sleep(2.5 * LOOK_EVERY)
    assert await running.metric(stamp) == when
    beside = running.file.with_suffix(".new")
    Running(beside, running.client, running.hangup).write(redis_line(redis), redis_line(redis, "second"))
    beside.rename(running.file)
    await running.healthy("second")


async def test_reloading_on_request_has_to_be_allowed(file: Path, redis: Redis) -> None:
    """And even then no page of another site may ask for it."""
    Running(file, httpx.AsyncClient(), Wakeup()).write(redis_line(redis))
    async with exporter(file, lifecycle=False) as closed:
        assert (await closed.reload()).status_code == 403
    async with exporter(file) as allowed:
        refused = await allowed.client.post("/-/reload", headers={"Origin": "https://evil.example"})
        assert refused.status_code == 403
        assert (await allowed.client.get("/-/reload")).status_code == 405
        assert (await allowed.reload()).status_code == 200


async def test_a_hundred_reloads_under_forced_checks_lose_nothing(running: Running, redis: Redis) -> None:
    """Services come, change and go while rounds are under way; what stays, stays as it was."""
    before = (await running.service("cache"))["session"]
    codes: set[int] = set()

    async def force() -> None:
        while True:
            codes.add((await running.client.post("/health/force-check", timeout=30)).status_code)
            await asyncio.sleep(0.01)

    forcing = asyncio.create_task(force())
    for turn in range(100):
        more = [redis_line(redis, f"extra_{n}", f", timeout: {400 + turn % 3}ms") for n in range(turn % 4)]
        running.write(redis_line(redis), *more)
        assert (await running.reload()).status_code == 200
    forcing.cancel()
    await asyncio.wait({forcing})
    assert codes <= {200, 429}
    assert (await running.service("cache"))["session"] == before
    assert await running.metric('connection_sessions_lost_total{kind="redis",name="cache"}') == 0


@asynccontextmanager
async def process_of(it: Running) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """Run the exporter as a process with the config of ``it``; yield it and its log, and end it."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "connection_exporter",
            f"--config.file={it.file}",
            "--web.listen-address=127.0.0.1:0",
        ),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        yield process, process.stderr
    finally:
        process.terminate()
        assert await process.wait() == 0
        await it.client.aclose()


async def test_the_signal_itself_reloads_a_running_process(file: Path, redis: Redis) -> None:
    """SIGHUP does not end the process, and a bad file is said in the log."""
    it = Running(file, httpx.AsyncClient(), Wakeup())
    it.write(redis_line(redis))
    async with process_of(it) as (process, log):
        await _line(log, "listening")
        it.write("cache: {kind: nothing}")
        process.send_signal(signal.SIGHUP)
        assert "unknown kind" in await _line(log, "reload_refused")
        it.write(redis_line(redis, "second"))
        process.send_signal(signal.SIGHUP)
        assert "added=second removed=cache" in await _line(log, "event=reloaded")


async def test_a_config_is_read_again_when_a_file_that_it_names_can_be_used(file: Path, redis: Redis) -> None:
    """A config may be changed before the files are there that it names."""
    it = Running(file, httpx.AsyncClient(), Wakeup())
    it.write(redis_line(redis))
    authorities = file.with_name("ca.pem")
    async with process_of(it) as (process, log):
        await _line(log, "listening")
        it.write(redis_line(redis), "api: {kind: http, url: 'https://127.0.0.1:1', tls: {ca_file: ca.pem}}")
        process.send_signal(signal.SIGHUP)
        assert "ca.pem cannot be read: no such file" in await _line(log, "reload_refused")
        authorities.write_text("no PEM")
        assert "ca.pem contains no certificate" in await _line(log, "reload_refused")
        issue("127.0.0.1").write(authorities)
        assert "added=api" in await _line(log, "event=reloaded")


async def test_a_hang_up_in_the_first_second_is_ignored(file: Path, redis: Redis) -> None:
    """It does not end the process, whenever it comes: while Python imports us, and while we start."""
    it = Running(file, httpx.AsyncClient(), Wakeup())
    it.write(redis_line(redis))
    async with process_of(it) as (process, log):
        status = Path(f"/proc/{process.pid}/status")
        await until(lambda: _ignores_hangup(status))
        listening = asyncio.ensure_future(_line(log, "listening"))
        while not listening.done():
            process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.01)
        await listening
        assert process.returncode is None


async def _ignores_hangup(status: Path) -> bool:
    """Return whether the process ignores SIGHUP (bit 0 of SigIgn, proc(5))."""
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("SigIgn:")]
    return bool(int(line.split()[1], 16) & 1)


@pytest.mark.parametrize(
    "error", [AssertionError("cert"), SystemExit(1), KeyboardInterrupt(), RecursionError()]
)
async def test_an_unforeseen_error_while_reading_is_refused_like_any_other(
    file: Path, redis: Redis, error: BaseException
) -> None:
    """The config and the web config are read by many parts: whatever fails in them, the exporter continues."""
    write(file, redis_line(redis))
    broken: list[BaseException] = []

    def read() -> Settings:
        if broken:
            raise broken[0]
        return read_settings(lambda: load(file), WebConfig, files=(file,))

    sockets = bind(["127.0.0.1:0"])
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    async with (
        serving(read(), sockets, reread=read, lifecycle=True),
        httpx.AsyncClient(base_url=url) as client,
    ):
        it = Running(file, client, Wakeup())
        await it.healthy("cache")
        broken.append(error)
        refused = await it.reload()
        assert refused.status_code == 500
        assert "unexpected" in "".join(refused.json()["mistakes"])
        assert await it.metric("connection_exporter_config_last_reload_successful") == 0
        broken.clear()
        assert (await it.reload()).status_code == 200
        assert (await it.service("cache"))["status"] == "healthy"


async def test_a_caller_who_leaves_does_not_stop_the_reload(running: Running, redis: Redis) -> None:
    """Neither half of it is lost: the services, and what follows them."""
    running.write(redis_line(redis), redis_line(redis, "second"))
    with pytest.raises(httpx.TimeoutException):
        await running.client.post("/-/reload", timeout=0.001)
    await running.healthy("second")
    assert (await running.reload()).json()["unchanged"] == ["cache", "second"]


async def test_reloads_at_once_are_all_answered(running: Running, redis: Redis) -> None:
    running.write(redis_line(redis))
    answers = await asyncio.gather(*(running.reload() for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    running.write("cache: {kind: nothing}")
    answers = await asyncio.gather(*(running.reload() for _ in range(20)))
    assert {answer.status_code for answer in answers} == {500}


async def test_a_mount_that_does_not_respond_delays_the_reload_only(
    file: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading ends with an error, costs one thread however often it is tried, and works again afterwards."""
    monkeypatch.setattr(reload, "READ_WITHIN", 0.05)
    write(file, redis_line(redis))
    go_on, stuck = threading.Event(), list[bool]()

    def read() -> Settings:
        if stuck:
            go_on.wait(20)
        return read_settings(lambda: load(file), WebConfig, files=(file,))

    sockets = bind(["127.0.0.1:0"])
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    async with (
        serving(read(), sockets, reread=read, lifecycle=True),
        httpx.AsyncClient(base_url=url) as client,
    ):
        it = Running(file, client, Wakeup())
        stuck.append(True)
        for _ in range(3):
            assert "could not be read within" in (await it.reload()).text
        assert sum(thread.name == "reload" for thread in threading.enumerate()) == 1
        await it.healthy("cache")
        go_on.set()
        monkeypatch.setattr(reload, "READ_WITHIN", 20.0)
        assert (await it.reload()).status_code == 200


async def _line(log: asyncio.StreamReader, word: str) -> str:
    async with asyncio.timeout(SOON):
        while line := (await log.readline()).decode():
            if word in line:
                return line
    raise AssertionError(f"the log ended without {word}")
