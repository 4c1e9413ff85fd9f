"""PostgreSQL under the whole exporter: who is not let in, what a canary sees, standbys, TLS, a pooler."""

import asyncio
import datetime
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Self

import asyncpg
import pytest
import trustme
from connection_exporter.core.health import Reason, Status
from connection_exporter.demo.servers import PostgreSQL, Server, free_port
from support.certificates import presenting
from support.postgresql_pairs import Standby
from support.postgresql_servers import SELECTED, HostileServer, Script, endless, message, row
from support.started import started
from support.watched import SLACK, on_uvloop, watching

QUICK = """\
defaults: {interval: 500ms, timeout: 500ms, retry_delay: 200ms, max_retry_delay: 500ms, canary: 500ms}
services:
"""


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    with started(PostgreSQL()) as server:
        yield server


def service(name: str, dsn: str, more: str = "") -> str:
    return f'  {name}: {{kind: postgresql, dsn: "{dsn}"{more}}}\n'


@on_uvloop
async def test_a_rejected_login_is_reported_and_works_once_it_is_fixed(database: PostgreSQL) -> None:
    """A wrong password, a role without login, a database that is missing: their reasons; then healthy."""
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
    """pg_hba turned to reject while the session lives: `unhealthy`, `auth`, no loss; repaired by the back-off."""
    async with watching(QUICK + service("database", database.dsn())) as watched:
        await watched.healthy()
        try:
            await database.set_hba(["host all all 127.0.0.1/32 reject"])
            began = time.monotonic()
            at = await watched.until("database", Status.UNHEALTHY, Reason.AUTH, within=5)
            assert at - began < 0.55 + 0.5 + SLACK  # the canary's period, its attempt, a loaded machine
            reported = await watched.detailed("database")
            assert reported["session"]["up"] is True
            assert reported["canary"]["up"] is False
            assert "new connection" in reported["message"]
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
            full = asyncio.create_task(
                watched.until("database", Status.UNHEALTHY, Reason.SLOTS_FULL, within=20)
            )
            while not full.done():  # a canary that was connected meanwhile has given its slot back
                with suppress(asyncpg.TooManyConnectionsError):
                    guest = await asyncpg.connect(database.dsn(), ssl=False, timeout=10)
                    crowd.callback(guest.terminate)
                await asyncio.sleep(0.02)
            await full
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
        assert at - began < 0.5 + 0.5 + SLACK
        await watched.until("database", Status.DISCONNECTED, Reason.REFUSED, within=10)
        await own.start()
        await watched.healthy(within=10)
        assert watched.record("database").sessions_lost == 1
        assert await watched.sample("connection_outages_total", name="database") == 1


@on_uvloop
async def test_a_standby_and_a_server_that_starts_are_reported_as_such(database: PostgreSQL) -> None:
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
        self._context = presenting(certificate)

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
    """The canary says `tls` for one that has expired and one of an unknown authority; then healthy."""
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
stats_users = postgres
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


@on_uvloop
async def test_a_poolers_refusals_and_its_admin_console(database: PostgreSQL) -> None:
    """A wrong password and an unknown user are `auth`, a missing database is `missing`; the console is healthy."""
    async with PgBouncer(database) as pooler:
        config = QUICK + service(
            "wrong", pooler.dsn.replace(f":{database.password}@", ":wrong@"), ", pooler: true"
        )
        config += service("unknown", pooler.dsn.replace("://postgres:", "://nobody:"), ", pooler: true")
        config += service("missing", pooler.dsn.replace("/postgres?", "/nowhere?"), ", pooler: true")
        console = pooler.dsn.replace("/postgres?", "/pgbouncer?")
        config += service("console", console, ', pooler: true, query: "SHOW VERSION"')
        config += service("console_by_itself", console, ', query: "SHOW VERSION"')
        async with watching(config) as watched:
            await watched.until("wrong", Status.DISCONNECTED, Reason.AUTH, within=10)
            await watched.until("unknown", Status.DISCONNECTED, Reason.AUTH, within=10)
            await watched.until("missing", Status.DISCONNECTED, Reason.MISSING, within=10)
            await watched.healthy("console", "console_by_itself")
            await asyncio.sleep(1.5)
            watched.undisturbed("console", "console_by_itself")


@on_uvloop
async def test_servers_that_flood_disturb_nobody(database: PostgreSQL) -> None:
    """Floods in the login, in an answer and between two probes end their own sessions; the others notice nothing."""
    rows = Script(answers=[endless(row(b"1"))])
    logins = Script(login=endless(message("N", b"MHello\0\0")))
    unasked = Script(answers=[[SELECTED]], unasked=endless(message("A", bytes(4) + b"channel\0payload\0")))
    with HostileServer(rows) as first, HostileServer(logins) as second, HostileServer(unasked) as third:
        config = QUICK + service("good", database.dsn())
        for name, server in (("rows", first), ("login", second), ("unasked", third)):
            config += service(name, f"postgresql://me:x@127.0.0.1:{server.port}/x", ", pooler: true")
        async with watching(config) as watched:
            await watched.healthy("good")
            for name in ("rows", "login"):
                await watched.until(name, Status.DISCONNECTED, within=20)
            await watched.holds(lambda: watched.record("unasked").sessions_lost > 0, within=20)
            watched.undisturbed("good")
