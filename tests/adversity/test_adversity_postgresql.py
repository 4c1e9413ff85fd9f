"""PostgreSQL under the whole exporter: who is not let in, what a canary sees, standbys, TLS, a pooler."""

import asyncio
import datetime
import os
import shutil
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Self

import asyncpg
import pytest
import trustme
from watched import on_uvloop, watching

from exporter.core.health import Reason, Status
from exporter.demo.servers import PostgreSQL, Server, free_port

QUICK = """\
defaults: {interval: 500ms, timeout: 500ms, retry_delay: 200ms, max_retry_delay: 500ms, canary: 500ms}
services:
"""


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    server = PostgreSQL()
    asyncio.run(server.start())
    yield server
    asyncio.run(server.close())


def service(name: str, dsn: str, more: str = "") -> str:
    return f'  {name}: {{kind: postgresql, dsn: "{dsn}"{more}}}\n'


@on_uvloop
async def test_who_is_not_let_in_is_told_why_and_gets_in_once_mended(database: PostgreSQL) -> None:
    """A wrong password, a role that may not log in, a database that is missing: their reasons; then healthy."""
    await database.execute(
        "CREATE ROLE wrong LOGIN PASSWORD 'other'",
        "CREATE ROLE locked NOLOGIN PASSWORD 'word'",
    )
    config = QUICK + service("wrong", database.dsn(user="wrong", password="word", database="postgres"))
    config += service("locked", database.dsn(user="locked", password="word", database="postgres"))
    config += service("missing", database.dsn(database="nowhere")) + service("good", database.dsn())
    async with watching(config) as watched:
        await watched.until("wrong", Status.DISCONNECTED, Reason.AUTH, within=10)
        await watched.until("locked", Status.DISCONNECTED, Reason.AUTH, within=10)
        await watched.until("missing", Status.DISCONNECTED, Reason.MISSING, within=10)
        assert all(watched.record(name).sessions == 0 for name in ("wrong", "locked", "missing"))
        for statement in (
            "ALTER ROLE wrong PASSWORD 'word'",
            "ALTER ROLE locked LOGIN",
            "CREATE DATABASE nowhere STRATEGY file_copy",
        ):
            await database.execute(statement)
        await watched.healthy(within=10)
        watched.undisturbed("good")


@on_uvloop
async def test_a_canary_sees_that_nobody_is_let_in_any_more(database: PostgreSQL) -> None:
    """pg_hba turned to reject while the session lives: `unhealthy`, `auth`, no loss; mended by the back-off."""
    async with watching(QUICK + service("database", database.dsn())) as watched:
        await watched.healthy()
        try:
            await database.set_hba(["host all all 127.0.0.1/32 reject"])
            began = time.monotonic()
            at = await watched.until("database", Status.UNHEALTHY, Reason.AUTH, within=5)
            assert at - began < 0.55 + 0.5 + 1.0  # the canary's period, its attempt, a loaded machine
            told = await watched.detailed("database")
            assert told["session"]["up"] is True
            assert told["canary"]["up"] is False
            assert "new connection" in told["message"]
            assert await watched.sample("connection_canary_up", name="database") == 0
            assert await watched.sample("connection_session_up", name="database") == 1
            assert await watched.sample("connection_up", name="database") == 0
        finally:
            await database.reset_hba()
        await watched.healthy(within=5)
        assert watched.record("database").sessions_lost == 0
        assert await watched.sample("connection_canary_up", name="database") == 1


@on_uvloop
async def test_a_canary_sees_that_all_slots_are_taken(database: PostgreSQL) -> None:
    """max_connections reached while the session lives: `unhealthy`, `slots_full`; healthy when there is room."""
    async with watching(QUICK + service("database", database.dsn())) as watched:
        await watched.healthy()
        async with AsyncExitStack() as crowd:
            with suppress(asyncpg.TooManyConnectionsError):
                for _ in range(100):
                    guest = await asyncpg.connect(database.dsn(), ssl=False, timeout=10)
                    crowd.push_async_callback(guest.close, timeout=5)
            await watched.until("database", Status.UNHEALTHY, Reason.SLOTS_FULL, within=5)
            assert watched.record("database").health.session_up
        await watched.healthy(within=10)
        assert watched.record("database").sessions_lost == 0


@on_uvloop
async def test_bad_queries_are_bad_answers_and_no_loss(database: PostgreSQL) -> None:
    """One that raises, one that never ends (the server ends it) and a wrong value, each beside a good one."""
    config = QUICK + service("raises", database.dsn(), ', query: "SELECT 1/0"')
    config += service("endless", database.dsn(), ', query: "SELECT pg_sleep(60)"')
    config += service("wrong", database.dsn(), ', query: "SELECT 41", expect: {value: 42}')
    config += service("good", database.dsn())
    async with watching(config) as watched:
        await watched.until("raises", Status.UNHEALTHY, Reason.QUERY, within=10)
        await watched.until("endless", Status.UNHEALTHY, within=10)
        await watched.until("wrong", Status.UNHEALTHY, Reason.EXPECT, within=10)
        await asyncio.sleep(1.0)
        for name in ("raises", "endless", "wrong"):
            assert watched.record(name).sessions_lost == 0, name
            assert watched.record(name).health.retry_count == 0, name
        watched.undisturbed("good")


@on_uvloop
async def test_a_shutdown_by_the_administrator_and_its_end() -> None:
    """A fast shutdown says so (57P01): `shutdown`, then `refused`; healthy after the start."""
    async with PostgreSQL() as own, watching(QUICK + service("database", own.dsn())) as watched:
        await watched.healthy()
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await own.stop()
        at = await watched.until("database", Status.CONNECTING, Reason.SHUTDOWN, since=began, within=5)
        assert at - began < 1.0
        await watched.until("database", Status.DISCONNECTED, Reason.REFUSED, within=10)
        await own.start()
        await watched.healthy(within=10)
        assert watched.record("database").sessions_lost == 1
        assert await watched.sample("connection_outages_total", name="database") == 1


class Standby(PostgreSQL):
    """A copy of ``primary`` that follows it; ``hot`` is whether it lets anybody in."""

    def __init__(self, primary: PostgreSQL) -> None:
        super().__init__()
        self._primary = primary
        self.hot = True

    def command(self) -> Sequence[str]:
        return [*super().command(), "-c", f"hot_standby={'on' if self.hot else 'off'}"]

    async def prepare(self) -> None:
        if (self.data / "PG_VERSION").exists():
            return
        self.give(self.folder)
        self._root = self._primary._root
        copy = [
            str(self._root / "bin" / "pg_basebackup"),
            "--pgdata",
            str(self.data),
            "--write-recovery-conf",
        ]
        await self.run_tool(*copy, "--checkpoint=fast", "--no-sync", "--dbname", self._primary.dsn())

    async def ready(self) -> bool:
        return await super().ready() if self.hot else await self._accepts()


@on_uvloop
async def test_a_standby_is_told_by_its_role_and_one_that_starts_by_its_words(database: PostgreSQL) -> None:
    """`role` until it is promoted, its lag in the metrics; `starting` (57P03) where it lets nobody in yet."""
    async with Standby(database) as standby:
        config = QUICK + service("database", standby.dsn(), ", expect: {role: primary}")
        async with watching(config) as watched:
            await watched.until("database", Status.UNHEALTHY, Reason.ROLE, within=10)
            assert await watched.sample("connection_postgresql_in_recovery", name="database") == 1
            assert (
                await watched.sample("connection_postgresql_replication_lag_seconds", name="database")
                is not None
            )
            await standby.stop()
            standby.hot = False
            await standby.start()
            await watched.until("database", Status.DISCONNECTED, Reason.STARTING, within=10)
            await standby.stop()
            standby.hot = True
            await standby.start()
            await watched.until("database", Status.UNHEALTHY, Reason.ROLE, within=10)
            lost = watched.record("database").sessions_lost
            await standby.execute("SELECT pg_promote()")
            await watched.healthy(within=10)
            assert watched.record("database").sessions_lost == lost
            assert await watched.sample("connection_postgresql_in_recovery", name="database") == 0


class TlsFront:
    """Does PostgreSQL's TLS (SSLRequest) before a server that was built without, with a certificate that may change."""

    def __init__(self, upstream: int, certificate: trustme.LeafCert) -> None:
        self.port = free_port()
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.show(certificate)

    def show(self, certificate: trustme.LeafCert) -> None:
        """Present ``certificate`` on new connections."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self._context)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, EOFError, asyncio.CancelledError):
                await reader.readexactly(8)
                writer.write(b"S")
                await writer.start_tls(self._context)
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
                try:
                    async with asyncio.TaskGroup() as pumps:
                        pumps.create_task(_pump(reader, up_writer))
                        pumps.create_task(_pump(up_reader, writer))
                except* (OSError, EOFError):
                    pass
                finally:
                    up_writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    raise EOFError


@on_uvloop
async def test_a_certificate_that_goes_bad_while_the_session_lives(
    database: PostgreSQL, tmp_path: Path
) -> None:
    """The canary says `tls` for one that has expired and one of an unknown authority; mended, all is well."""
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    good = authority.issue_cert("127.0.0.1")
    async with TlsFront(database.port, good) as front:
        more = f', sslmode: verify-full, tls: {{ca_file: "{tmp_path / "ca.pem"}"}}'
        config = QUICK + service(
            "database", database.dsn().replace(f":{database.port}/", f":{front.port}/"), more
        )
        config += service("plain", database.dsn(), ", sslmode: require")
        async with watching(config) as watched:
            await watched.healthy("database")
            for bad in (authority.issue_cert("127.0.0.1", not_after=past), stranger.issue_cert("127.0.0.1")):
                front.show(bad)
                await watched.until("database", Status.UNHEALTHY, Reason.TLS, within=10)
                assert "certificate" in watched.record("database").trouble.message
                front.show(good)
                await watched.healthy("database")
            assert watched.record("database").sessions_lost == 0
            assert watched.record("plain").status is Status.DISCONNECTED  # TLS required, and there is none
            assert watched.record("plain").trouble.reason is Reason.TLS


TOOLS = Path(__file__).parents[2] / ".tools" / "bin"
PGBOUNCER = shutil.which("pgbouncer", path=f"{TOOLS}:/usr/sbin:/usr/bin:/usr/local/bin")


class PgBouncer(Server):
    """A pooler in transaction mode, with one connection to the server for all."""

    name = "pgbouncer"

    def __init__(self, database: PostgreSQL) -> None:
        super().__init__()
        self._database = database

    @property
    def dsn(self) -> str:
        return self._database.dsn().replace(f":{self._database.port}/", f":{self.port}/") + "?sslmode=disable"

    def command(self) -> Sequence[str]:
        assert PGBOUNCER is not None, "there is no pgbouncer here: `make programs` fetches one"
        become = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to run as root
        return [PGBOUNCER, *become, str(self.folder / "pgbouncer.ini")]

    async def prepare(self) -> None:
        (self.folder / "users.txt").write_text(f'"postgres" "{self._database.password}"\n')
        (self.folder / "pgbouncer.ini").write_text(f"""\
[databases]
postgres = host=127.0.0.1 port={self._database.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = plain
auth_file = {self.folder / "users.txt"}
pool_mode = transaction
default_pool_size = 1
server_login_retry = 0.2
""")
        for path in (self.folder, *self.folder.iterdir()):
            self._database.give(path)


@on_uvloop
async def test_a_pooler_in_transaction_mode_is_no_hindrance(database: PostgreSQL) -> None:
    """Five services share one server connection; a query that raises harms no other, a restart is one loss."""
    config = QUICK.replace("canary: 500ms", "canary: 1s").replace("timeout: 500ms", "timeout: 500ms")
    async with PgBouncer(database) as pooler:
        for number in range(4):
            config += service(f"pooled_{number}", pooler.dsn, ", pooler: true")
        config += service("value", pooler.dsn, ', pooler: true, query: "SELECT 42", expect: {value: 42}')
        config += service("raises", pooler.dsn, ', pooler: true, query: "SELECT 1/0"')
        async with watching(config) as watched:
            names = [*(f"pooled_{number}" for number in range(4)), "value"]
            await watched.healthy(*names)
            await watched.until("raises", Status.UNHEALTHY, Reason.QUERY, within=10)
            await asyncio.sleep(3)
            watched.undisturbed(*names)
            assert await _limit_of(pooler) == "0", "a statement_timeout of ours has stayed on the server"
            await pooler.kill()
            await watched.until("value", Status.DISCONNECTED, Reason.REFUSED, within=10)
            await pooler.start()
            await watched.healthy(*names, within=10)
            assert all(watched.record(name).sessions_lost == 1 for name in names)


async def _limit_of(pooler: PgBouncer) -> str:
    guest = await asyncpg.connect(pooler.dsn, statement_cache_size=0, timeout=10)
    try:
        async with guest.transaction():
            return str(await guest.fetchval("SHOW statement_timeout"))
    finally:
        guest.terminate()
