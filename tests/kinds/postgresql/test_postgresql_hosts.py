"""Several hosts: libpq's order, as psql shows it, under one deadline, and a failover."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from connection_exporter.core.health import Reason, Status
from connection_exporter.demo.ports import free_port
from connection_exporter.demo.servers import PostgreSQL
from connection_exporter.kind import Failure, Observation
from connection_exporter.kinds.postgresql.check import PostgresqlCheck
from connection_exporter.kinds.postgresql.config import PostgresqlConfig
from connection_exporter.net import Network
from support.attempts import attempt, held
from support.postgresql_pairs import Standby, psql
from support.postgresql_servers import HostileServer, Script, error
from support.started import started
from support.watched import on_uvloop, watching

ATTRIBUTES = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgreSQL]:
    with started(PostgreSQL()) as server:
        yield server


@pytest.fixture(scope="module")
def standby(primary: PostgreSQL) -> Iterator[PostgreSQL]:
    with started(Standby(primary)) as server:
        yield server


def dsn(password: str, ports: list[int], more: str = "") -> str:
    hosts = ",".join("127.0.0.1" for _ in ports)
    return f"host={hosts} port={','.join(map(str, ports))} user=postgres dbname=postgres password={password} {more}"


def check(text: str, **keys: object) -> PostgresqlCheck:
    config = PostgresqlConfig.model_validate({"kind": "postgresql", "dsn": text, **keys})
    return PostgresqlCheck(config, Network())


async def failure(text: str, **keys: object) -> Failure:
    found = await attempt(check(text, **keys), timeout=10)
    assert isinstance(found, Failure), found
    return found


async def host_of(text: str, **keys: object) -> str:
    """Return the host in use, or the reason of the failure."""
    found = await attempt(check(text, **keys), timeout=10)
    return str(found.details["host"]) if isinstance(found, Observation) else found.reason


@asynccontextmanager
async def closing() -> AsyncIterator[int]:
    """Accept every connection and close it."""

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("wanted", ATTRIBUTES)
async def test_the_host_is_the_one_that_psql_takes(
    primary: PostgreSQL, standby: PostgreSQL, wanted: str
) -> None:
    """In either order, with and without a host that refuses, and where no host is as wanted."""
    pairs = [primary.port, standby.port], [standby.port, primary.port], [primary.port], [standby.port]
    for ports in (*pairs, [free_port(), *pairs[0]], [*pairs[1], free_port()]):
        text = dsn(primary.password, ports, f"target_session_attrs={wanted}")
        theirs, refusal = await psql(text, "SELECT inet_server_port()")
        ours = await host_of(text)
        assert ours == (f"127.0.0.1:{theirs}" if theirs else Reason.ROLE), refusal


async def test_what_ends_the_search_for_a_host_is_what_ends_it_for_psql(
    primary: PostgreSQL, standby: PostgreSQL
) -> None:
    """A wrong database and a close after the connect are final; a host that is starting or unknown is passed over."""
    starting = Script(login=[error(b"the database system is starting up", severity=b"FATAL", state=b"57P03")])
    full = Script(login=[error(b"too many clients already", severity=b"FATAL", state=b"53300")])
    with HostileServer(starting) as first, HostileServer(full) as second:
        async with closing() as closed:
            ended = {Reason.EOF, Reason.RESET}
            for port, reasons in ((first.port, None), (second.port, {Reason.SLOTS_FULL}), (closed, ended)):
                text = dsn(primary.password, [port, primary.port], "sslmode=disable")
                theirs, refusal = await psql(text, "SELECT inet_server_port()")
                expected: set[str] = {*(reasons or [f"127.0.0.1:{primary.port}"])}
                assert await host_of(text) in expected
                assert bool(theirs) == (reasons is None), refusal
    unknown = f"host=unknown.invalid,127.0.0.1 port={primary.port} user=postgres password={primary.password}"
    assert (await psql(unknown, "SELECT inet_server_port()"))[0] == str(primary.port)
    assert await host_of(unknown) == f"127.0.0.1:{primary.port}"
    missing = dsn(primary.password, [primary.port, standby.port], "dbname=nowhere")
    assert (await psql(missing, "SELECT 1"))[0] == ""
    assert (await failure(missing)).reason is Reason.MISSING


async def test_the_message_says_what_is_wrong_with_each_host(
    primary: PostgreSQL, standby: PostgreSQL
) -> None:
    """The most informative first, and that is the reason."""
    dead = free_port()
    found = await failure(dsn(primary.password, [dead, standby.port], "target_session_attrs=read-write"))
    assert found.reason is Reason.ROLE
    assert found.message == (
        f"127.0.0.1:{standby.port}: the session is read-only, and target_session_attrs is read-write; "
        f"127.0.0.1:{dead}: connection refused"
    )
    found = await failure(f"host=unknown.invalid,127.0.0.1 port=1,{dead}")
    assert found.reason is Reason.REFUSED
    assert found.message.startswith(f"127.0.0.1:{dead}: connection refused; unknown.invalid does not resolve")
    assert primary.password not in found.message


async def test_a_silent_host_leaves_the_next_one_its_share_of_the_deadline(primary: PostgreSQL) -> None:
    """One that connects and never answers does not take the whole `timeout`, even as the last."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        text = dsn(primary.password, [port, primary.port])
        assert await host_of(text, timeout="4s", interval="4s") == f"127.0.0.1:{primary.port}"
        dead = free_port()
        a_check = check(dsn(primary.password, [dead, port]), timeout="1s", interval="1s")
        found = await attempt(a_check, timeout=1)
    assert isinstance(found, Failure)
    assert found.reason is Reason.REFUSED
    assert found.message == (
        f"127.0.0.1:{dead}: connection refused; 127.0.0.1:{port} does not answer the start of a session"
    )


async def test_a_server_that_reports_nothing_is_asked_what_it_is(primary: PostgreSQL) -> None:
    """PostgreSQL before 14, and poolers: they do not report `in_hot_standby`."""
    config = PostgresqlConfig.model_validate(
        {"kind": "postgresql", "dsn": dsn(primary.password, [primary.port], "target_session_attrs=primary")}
    )
    async with silenced(primary.port) as port:
        for wanted, good in (
            ("primary", True),
            ("standby", False),
            ("read-write", True),
            ("read-only", False),
        ):
            asked = config.model_copy(update={"port": port, "target_session_attrs": wanted})
            found = await attempt(PostgresqlCheck(asked, Network()), timeout=10)
            assert isinstance(found, Observation) == good, found


@asynccontextmanager
async def silenced(upstream: int) -> AsyncIterator[int]:
    """Pass everything on, but under other names what a server reports of itself since PostgreSQL 14."""
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                data = data.replace(b"in_hot_standby", b"xx_xxx_xxxxxxx")
                writer.write(data.replace(b"default_transaction_read_only", b"xxxxxxx_xxxxxxxxxxx_xxxx_xxxx"))
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", upstream)
        pumps = {
            asyncio.ensure_future(pump(reader, up_writer)),
            asyncio.ensure_future(pump(up_reader, writer)),
        }
        tasks.update(pumps)
        await asyncio.wait(pumps)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    if tasks:
        await asyncio.wait(tasks, timeout=5)


async def test_a_session_whose_server_changes_its_role_is_given_up(primary: PostgreSQL) -> None:
    """A standby that is promoted keeps its sessions, and is no longer what was asked for."""
    async with Standby(primary) as other:
        text = dsn(primary.password, [other.port, primary.port], "target_session_attrs=standby")
        async with held(check(text), timeout=10) as (session, first):
            assert first.details["host"] == f"127.0.0.1:{other.port}"
            await other.execute("SELECT pg_promote()")
            with pytest.raises(Failure) as caught:
                await asyncio.wait_for(session.probe(), 10)
        assert caught.value.reason is Reason.ROLE
        assert caught.value.message.startswith(f"127.0.0.1:{other.port}: the server is not a standby")


@on_uvloop
async def test_after_a_failover_the_session_is_with_the_promoted_server() -> None:
    """The loss of the primary is noticed when it happens; the next attempt after the promotion finds the new one."""
    async with PostgreSQL() as old, Standby(old) as new:
        text = dsn(old.password, [old.port, new.port], "target_session_attrs=read-write")
        config = (
            "services:\n  database: {kind: postgresql, interval: 30s, timeout: 5s, retry_delay: 200ms, "
            f"max_retry_delay: 500ms, canary: off, dsn: '{text}'}}\n"
        )
        async with watching(config) as watched:
            await watched.healthy("database")
            assert watched.record("database").details["host"] == f"127.0.0.1:{old.port}"
            await old.kill()
            await watched.until("database", Status.CONNECTING, within=1)
            await watched.until("database", Status.DISCONNECTED, Reason.ROLE, within=10)
            assert f"127.0.0.1:{old.port}: connection refused" in watched.record("database").trouble.message
            await new.execute("SELECT pg_promote()")
            await watched.healthy("database")
            assert watched.record("database").details["host"] == f"127.0.0.1:{new.port}"
            assert watched.record("database").sessions_lost == 1


@on_uvloop
async def test_the_session_returns_to_the_first_host_once_that_is_back() -> None:
    """The canary's connection replaces the session: that is not a loss."""
    settings = {"listen_addresses": "127.0.0.1,127.0.0.2"}
    async with (
        PostgreSQL(settings=settings, password="same") as first,
        PostgreSQL(settings=settings, password="same") as second,
    ):
        await first.kill()
        config = (
            "services:\n  database: {kind: postgresql, interval: 500ms, timeout: 500ms, canary: 500ms, user: postgres, "
            f"password: same, hosts: ['127.0.0.1:{first.port}', '127.0.0.2:{second.port}']}}\n"
        )
        async with watching(config) as watched:
            await watched.healthy("database")
            assert watched.record("database").details["host"] == f"127.0.0.2:{second.port}"
            await first.start()
            await watched.holds(
                lambda: watched.record("database").details.get("host") == f"127.0.0.1:{first.port}", within=10
            )
            assert watched.record("database").sessions_lost == 0
