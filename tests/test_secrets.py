"""No secret shows anywhere: planted in every place where one can stand, and searched for in all that comes out."""

import asyncio
import base64
import json
import os
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from connection_exporter.core.health import Reason, Status
from connection_exporter.demo.ports import free_port
from connection_exporter.demo.servers import PostgreSQL, Redis
from connection_exporter.kinds import load
from connection_exporter.monitor.monitor import Monitor

PLANTED = {
    name: f"PLANTED+{name}/s3cret"
    for name in (
        "dsn", "wrong", "file", "wrong_file", "environment", "header", "query", "body", "bearer", "bearer_file",
        "basic", "redis", "redis_wrong", "websocket", "send", "heartbeat", "crash", "proxy", "proxy_file",
        "header_file", "body_file", "user_file", "client", "client_file", "parameter", "unreachable", "bad_file",
    )
}  # fmt: skip

LEAKY = """
from contextlib import asynccontextmanager
from pydantic import SecretStr
from connection_exporter.kind import Traits
from connection_exporter.config.service import ServiceConfig
from connection_exporter.core.health import Reason
from connection_exporter.kinds import Kind

class LeakyConfig(ServiceConfig):
    password: SecretStr

class Driver:
    def __init__(self, password): self.password = password
    def __repr__(self): return f"Driver({self.password})"
    def parse(self): raise ValueError(f"cannot parse {self.password!r}")

class LeakyCheck:
    traits = Traits(reasons=frozenset({Reason.TIMEOUT}))
    address = "nowhere:1"
    def __init__(self, config, network): self.driver = Driver(config.password.get_secret_value())
    @asynccontextmanager
    async def connect(self):
        try:
            self.driver.parse()
        except ValueError as error:
            raise RuntimeError(f"{self.driver!r} has failed") from error
        yield

KIND = Kind(LeakyConfig, "leaky:LeakyCheck")
"""


def variants(secret: str) -> set[str]:
    """Return how a secret may look on the way."""
    encoded = base64.b64encode(f"user:{secret}".encode()).decode()
    return {secret, quote(secret, safe=""), quote(secret), encoded, json.dumps(secret)[1:-1]}


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as a server in debug mode does: with everything that it was sent."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or b"0")
        body = b"you said: " + head + await reader.readexactly(size)
        length = b"Content-Length: %d\r\n" % len(body)
        writer.write(b"HTTP/1.1 500 " + head.split(b"\r\n")[1][:200] + b"\r\n" + length + b"\r\n" + body)
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


@pytest.fixture
async def echoing() -> AsyncIterator[int]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


def plant(folder: Path, database: PostgreSQL, redis: Redis, echoing: int) -> Path:
    for name in (
        "file", "wrong_file", "bearer_file", "proxy_file", "header_file", "body_file", "user_file", "client_file"
    ):  # fmt: skip
        (folder / name).write_text(PLANTED[name] + "\n")
    (folder / "leaky.py").write_text(LEAKY)
    package = folder / "leaky-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[connection_exporter.kinds]\nleaky = leaky:KIND\n")
    p, file = PLANTED, folder / "connection-exporter.yml"
    file.write_text(
        textwrap.dedent(f"""\
        defaults: {{interval: 500ms, retry_delay: 200ms, max_retry_delay: 500ms, canary: 500ms, retries: 2}}
        services:
          good: {{kind: postgresql, dsn: "{database.dsn()}"}}
          dsn: {{kind: postgresql, dsn: "postgresql://user:{quote(p["dsn"], safe="")}@127.0.0.1:{database.port}/x"}}
          wrong: {{kind: postgresql, port: {database.port}, user: postgres, password: "{p["wrong"]}"}}
          file: {{kind: postgresql, port: {database.port}, user: postgres, password_file: {folder}/wrong_file}}
          cache: {{kind: redis, port: {redis.port}, password: "${{SECRET}}"}}
          cache_wrong: {{kind: redis, url: "redis://:{quote(p["redis_wrong"], safe="")}@127.0.0.1:{redis.port}/0"}}
          cache_gone: {{kind: redis, port: {free_port()}, password: "{p["unreachable"]}"}}
          dns: {{kind: redis, host: nowhere.invalid, password: "{p["unreachable"]}"}}
          api:
            kind: http
            url: "http://127.0.0.1:{echoing}/x?key={quote(p["query"], safe="")}"
            headers: {{X-Key: "{p["header"]}"}}
            method: POST
            body: "{p["body"]}"
            bearer_token: "{p["bearer"]}"
            expect: {{json: {{a: b}}, body: nothing}}
          api_file: {{kind: http, url: "http://127.0.0.1:{echoing}/", bearer_token_file: {folder}/bearer_file}}
          api_basic:
            kind: http
            url: "http://user:{quote(p["basic"], safe="")}@127.0.0.1:{echoing}/"
            expect: {{status: 404}}
          feed:
            kind: websocket
            url: "ws://127.0.0.1:{echoing}/x?key={quote(p["query"], safe="")}"
            headers: {{X-Key: "{p["websocket"]}"}}
            on_connect: {{send: "{p["send"]}"}}
          files:
            kind: http
            url: "http://127.0.0.1:{echoing}/"
            method: PUT
            headers: {{X-Key: {{file: header_file}}}}
            body_file: body_file
            user_file: user_file
            expect: {{body: nothing}}
          through_proxy:
            kind: http
            url: https://api.example.com/
            proxy: "http://user:{quote(p["proxy"], safe="")}@127.0.0.1:{echoing}"
          with_whole_url:
            kind: http
            url: http://api.example.com/
            proxy: {{url: "http://127.0.0.1:{echoing}", user: user, password_file: proxy_file}}
            expect: {{body: nothing}}
          tokens:
            kind: http
            url: "http://127.0.0.1:{echoing}/"
            oauth2:
              token_url: "http://127.0.0.1:{echoing}/?key={quote(p["query"], safe="")}"
              client_id: me
              client_secret: "{p["client"]}"
              endpoint_params: {{password: "{p["parameter"]}"}}
          feed_with_tokens:
            kind: websocket
            url: "ws://127.0.0.1:{echoing}/"
            oauth2: {{token_url: "http://127.0.0.1:{echoing}/", client_id: me, client_secret_file: client_file}}
          leaky: {{kind: leaky, password: "{p["crash"]}"}}
        """)
    )
    return file


async def gather(base: str) -> str:
    """Return all responses over HTTP, including headers."""
    parts: list[str] = []
    async with httpx.AsyncClient(base_url=base, timeout=20) as client:

        def note(answer: httpx.Response) -> None:
            parts.append(f"{answer.status_code} {answer.headers} {answer.text}")

        note(await client.post("/health/force-check"))
        detailed = await client.get("/health/detailed")
        for path in ("/", "/health", "/health/detailed", "/metrics", "/config", "/openapi.json", "/nowhere"):
            note(await client.get(path))
        for name in detailed.json()["services"]:
            note(await client.get(f"/health/service/{name}"))
        note(await client.get("/config", headers={"Accept": "application/json"}))
        note(await client.get("/metrics", headers={"Accept": "application/openmetrics-text"}))
        note(await client.post("/-/reload"))
        async with client.stream("GET", "/events") as events:
            async for text in events.aiter_text():
                parts.append(text)
                if "event: board" in "".join(parts):
                    break
    return "\n".join(parts)


@pytest.mark.parametrize("log_format", ["logfmt", "json"])
async def test_no_planted_secret_comes_out_anywhere(tmp_path: Path, echoing: int, log_format: str) -> None:
    """Not from HTTP, the log at level debug, the store, `check` or `validate`, whatever goes wrong."""
    async with (
        PostgreSQL(password=PLANTED["file"]) as database,
        Redis(password=PLANTED["environment"]) as redis,
    ):
        file = plant(tmp_path, database, redis, echoing)
        environment = {**os.environ, "SECRET": PLANTED["environment"], "PYTHONPATH": str(tmp_path)}
        port = free_port()
        said = tmp_path / "log"
        flags = (
            *(f"--config.file={file}", f"--web.listen-address=127.0.0.1:{port}", "--web.enable-lifecycle"),
            *(f"--storage.path={tmp_path}/store", "--log.level=debug", f"--log.format={log_format}"),
        )
        process = await run(*flags, environment=environment, log=said)
        try:
            await answers(port)
            await asyncio.sleep(3)
            found = await gather(f"http://127.0.0.1:{port}")
            file.write_text(
                file.read_text() + f'  x: {{kind: redis, url: "redis://:{PLANTED["bad_file"]}@[::1"}}\n'
            )
            async with httpx.AsyncClient() as client:
                found += (await client.post(f"http://127.0.0.1:{port}/-/reload")).text
            for command in ("validate", "check"):
                out = tmp_path / command
                await (await run(command, f"--config.file={file}", environment=environment, log=out)).wait()
                found += out.read_text()
        finally:
            process.terminate()
            assert await process.wait() == 0
        log = said.read_text()
    found += log + "".join(p.read_bytes().decode("latin-1") for p in (tmp_path / "store").iterdir())
    assert '"disconnected"' in found
    assert "check_crashed" in log
    assert "RuntimeError" in log
    leaks = [(name, found[at - 150 : at + 60]) for name, secret in PLANTED.items()
             for one in variants(secret) if (at := found.find(one)) >= 0]  # fmt: skip
    assert leaks == []


async def run(*flags: str, environment: dict[str, str], log: Path) -> asyncio.subprocess.Process:
    with log.open("wb") as out:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "connection_exporter", *flags, env=environment, stdout=out, stderr=out
        )


async def answers(port: int) -> None:
    async with asyncio.timeout(20), httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(f"http://127.0.0.1:{port}/-/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.05)


async def test_nothing_that_is_written_out_as_a_repr_holds_a_secret(tmp_path: Path, echoing: int) -> None:
    """Configs, checks and records are shown by debuggers, error trackers and careless log lines."""
    async with (
        PostgreSQL(password=PLANTED["file"]) as database,
        Redis(password=PLANTED["environment"]) as redis,
    ):
        file = plant(tmp_path, database, redis, echoing)
        file.write_text(file.read_text().partition("  leaky:")[0])
        config = load(file, {"SECRET": PLANTED["environment"]})
        async with Monitor(config) as monitor:
            await monitor.force_check()
            records = monitor.board.records()
            shown = repr((config, monitor, records, [vars(r.service.check) for r in records]))
            shown += str(monitor.status())
    assert [name for name, secret in PLANTED.items() for one in variants(secret) if one in shown] == []


async def test_a_rotated_password_file_works_at_the_next_connection_and_the_canary_tries_it_before(
    tmp_path: Path,
) -> None:
    """The session that lives is left in peace: it was let in, and nothing says that it no longer may be."""
    secret = tmp_path / "password"
    secret.write_text("first\n")
    async with Redis(password="first") as redis:
        file = tmp_path / "connection-exporter.yml"
        file.write_text(
            "services:\n  cache: {kind: redis, interval: 200ms, retry_delay: 200ms, canary: 300ms, "
            f"port: {redis.port}, password_file: {secret}}}\n"
        )
        async with Monitor(load(file)) as monitor:

            async def until(status: Status, reason: Reason | None = None) -> None:
                async with asyncio.timeout(10):
                    record = monitor.board.record("cache")
                    while (record.status, record.trouble.reason) != (status, reason):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)

            await until(Status.HEALTHY)
            await redis.call("CONFIG", "SET", "requirepass", "second")
            redis.password = "second"
            await until(Status.UNHEALTHY, Reason.AUTH)
            assert monitor.board.record("cache").health.session_up
            secret.write_text("second\n")
            await until(Status.HEALTHY)
            assert monitor.board.record("cache").sessions == 1
            await redis.call("CLIENT", "KILL", "TYPE", "normal")
            async with asyncio.timeout(10):
                while monitor.board.record("cache").sessions == 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await until(Status.HEALTHY)
