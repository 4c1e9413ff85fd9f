"""Kind postgresql, over real PostgreSQL servers."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import asyncpg
import pytest
import trustme
from connection_exporter.core.health import Reason
from connection_exporter.demo.ports import free_port
from connection_exporter.demo.servers import PostgreSQL
from connection_exporter.kind import Failure, Observation
from connection_exporter.kinds import load_text
from connection_exporter.kinds.postgresql.check import PostgresqlCheck
from connection_exporter.kinds.postgresql.config import PostgresqlConfig
from connection_exporter.monitor.attempt import waited_for
from connection_exporter.net import Network
from connection_exporter.net.certificate import CERTIFICATE_EXPIRY
from support import streams
from support.certificates import presenting


@pytest.fixture
async def server() -> AsyncIterator[PostgreSQL]:
    async with PostgreSQL() as running:
        yield running


def check(server: PostgreSQL, **keys: object) -> PostgresqlCheck:
    """Make a check of the kind from config keys, as a config file would."""
    given = {"kind": "postgresql", "dsn": server.dsn(), **keys}
    config = PostgresqlConfig.model_validate(
        {key: value for key, value in given.items() if value is not None}
    )
    return PostgresqlCheck(config, Network())


async def probe(a_check: PostgresqlCheck) -> Observation:
    async with a_check.connect() as session:
        return await session.probe()


async def test_each_metric_shows_what_the_details_have(server: PostgreSQL) -> None:
    """Each family's source is a key of the details, but for that of a certificate where there is no TLS."""
    sources = {metric.source for metric in PostgresqlCheck.traits.metrics}
    details = (await probe(check(server))).details
    assert sources - details.keys() == {CERTIFICATE_EXPIRY}
    assert {"connect_seconds", "auth_seconds", "query_seconds"} <= sources


async def failure(a_check: PostgresqlCheck) -> Failure:
    with pytest.raises(Failure) as caught:
        await probe(a_check)
    return caught.value


async def end(server: PostgreSQL) -> None:
    """End every session of ours, as an administrator would."""
    connection = await asyncpg.connect(server.dsn())
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'connection-exporter'"
    )
    connection.terminate()


async def test_a_good_answer_brings_phases_version_role_and_slots(server: PostgreSQL) -> None:
    """The details contain everything that a primary reports about itself."""
    seen = await probe(check(server))
    assert seen.reason is None
    assert seen.details["role"] == "primary"
    assert seen.details["in_recovery"] is False
    assert seen.details["replication_lag_seconds"] is None
    assert cast("int", seen.details["connections"]) >= 1
    assert cast("int", seen.details["max_connections"]) > 1
    assert {"resolve_seconds", "connect_seconds", "auth_seconds", "query_seconds"} <= seen.details.keys()


async def test_depth_off_asks_for_nothing_but_the_query(server: PostgreSQL) -> None:
    """No role, no slots."""
    assert "role" not in (await probe(check(server, depth=False))).details


async def test_an_ended_backend_is_noticed_with_the_administrators_words(server: PostgreSQL) -> None:
    """57P01 is `shutdown`, and it comes while nobody asks."""
    async with check(server).connect() as session:
        await session.probe()
        await end(server)
        lost = await asyncio.wait_for(session.lost, 5)
    assert lost.reason is Reason.SHUTDOWN
    assert "57P01" in lost.message


async def test_a_killed_server_is_noticed_while_nobody_asks(server: PostgreSQL) -> None:
    """The kernel closes the connection of a dead process: a clean close, or a reset."""
    async with check(server).connect() as session:
        await session.probe()
        await server.kill()
        lost = await asyncio.wait_for(session.lost, 5)
    assert lost.reason in {Reason.IDLE_CLOSED, Reason.RESET, Reason.SHUTDOWN}


async def test_a_backend_that_ends_in_mid_query_says_why(server: PostgreSQL) -> None:
    """A probe under way raises what the server said, not what the driver makes of it."""
    async with check(server, query="SELECT pg_sleep(20)", timeout="30s").connect() as session:
        asking = asyncio.ensure_future(session.probe())
        await asyncio.sleep(0.1)
        await end(server)
        with pytest.raises(Failure) as caught:
            await asyncio.wait_for(asking, 5)
    assert caught.value.reason is Reason.SHUTDOWN


async def test_a_raising_query_is_a_bad_answer(server: PostgreSQL) -> None:
    """The server is there, and says what is wrong."""
    seen = await probe(check(server, query="SELECT 1/0"))
    assert (seen.reason, seen.message) == (Reason.QUERY, "division by zero (22012)")


async def test_a_query_that_never_ends_is_ended_by_the_server(server: PostgreSQL) -> None:
    """The statement timeout is a little below ours, so that the session survives and the server is not left with it."""
    async with check(server, query="SELECT pg_sleep(60)", timeout="1s").connect() as session:
        seen = await asyncio.wait_for(session.probe(), 5)
        assert seen.reason is Reason.QUERY
        assert "statement timeout" in seen.message
        assert not session.lost.done()


async def test_an_expected_value_is_compared_as_text(server: PostgreSQL) -> None:
    """Numbers, booleans and text alike."""
    assert (await probe(check(server, query="SELECT 41 + 1", expect={"value": 42}))).reason is None
    assert (await probe(check(server, query="SELECT true", expect={"value": True}))).reason is None
    seen = await probe(check(server, query="SELECT 'blue'", expect={"value": "green"}))
    assert (seen.reason, seen.message) == (Reason.EXPECT, "the query gave 'blue', not 'green'")
    seen = await probe(check(server, query="SELECT NULL", expect={"value": 1}))
    assert seen.message == "the query gave NULL, not '1'"
    seen = await probe(check(server, query="SELECT 1 WHERE false", expect={"value": 1}))
    assert seen.message == "the query gave no value, not '1'"


async def test_a_wrong_role_is_a_bad_answer(server: PostgreSQL) -> None:
    """A primary where a standby is wanted."""
    seen = await probe(check(server, expect={"role": "standby"}))
    assert (seen.reason, seen.message) == (Reason.ROLE, "the server is a primary, not a standby")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"password": "wrong"}, Reason.AUTH),
        ({"database": "nowhere"}, Reason.MISSING),
        ({"user": "nobody_there"}, Reason.AUTH),
    ],
)
async def test_a_rejected_login_is_reported_with_its_reason(
    server: PostgreSQL, keys: dict[str, object], reason: Reason
) -> None:
    """28P01, 3D000."""
    dsn = {"dsn": None, "host": "127.0.0.1", "port": server.port, "user": "postgres", "database": "postgres"}
    good = await asyncpg.connect(server.dsn())
    good.terminate()
    password = server.dsn().partition("://")[2].partition("@")[0].partition(":")[2]
    assert (await failure(check(server, **{**dsn, "password": password, **keys}))).reason is reason


async def test_a_role_without_login_and_a_rejecting_hba_are_auth(server: PostgreSQL) -> None:
    """28000, both."""
    await server.execute("CREATE ROLE idle NOLOGIN PASSWORD 'x'")
    reported = await failure(check(server, dsn=server.dsn(user="idle", password="x")))
    assert reported.reason is Reason.AUTH
    await server.set_hba(["host all all all reject"])
    assert (await failure(check(server))).reason is Reason.AUTH


async def test_a_full_server_is_slots_full_while_the_held_session_works(server: PostgreSQL) -> None:
    """53300 on a fresh connection; what was held before goes on."""
    await server.execute("CREATE ROLE plain LOGIN PASSWORD 'p'")
    plain = server.dsn(user="plain", password="p")
    async with AsyncExitStack() as stack:
        held = await stack.enter_async_context(check(server, dsn=plain).connect())
        reported: Failure | None = None
        for _ in range(200):
            try:
                await stack.enter_async_context(check(server, dsn=plain).connect())
            except Failure as error:
                reported = error
                break
        assert reported is not None
        assert reported.reason is Reason.SLOTS_FULL
        assert (await held.probe()).reason is None


async def test_a_user_without_rights_on_a_depth_function_still_gets_an_answer(server: PostgreSQL) -> None:
    """Depth that the server refuses is left out and reported, and is no reason to be unhealthy."""
    await server.execute("CREATE ROLE poor LOGIN PASSWORD 'p'")
    await server.execute("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_last_wal_receive_lsn() FROM PUBLIC")
    seen = await probe(check(server, dsn=server.dsn(user="poor", password="p")))
    assert seen.reason is None
    assert "permission denied" in cast("str", seen.details["depth_error"])


async def test_a_pooler_gets_nothing_that_a_transaction_pool_would_lose(server: PostgreSQL) -> None:
    """No SET outside a transaction, no prepared statement kept."""
    a_check = check(server, pooler=True, query="SHOW statement_timeout", expect={"value": "0"})
    assert (await probe(a_check)).reason is None
    assert (await probe(check(server, pooler=True))).reason is None


async def test_a_password_file_is_read_at_each_connect(server: PostgreSQL, tmp_path: Path) -> None:
    """So that a rotated password works without a restart."""
    await server.execute("CREATE ROLE rotating LOGIN PASSWORD 'old'")
    secret = tmp_path / "password"
    a_check = check(
        server,
        dsn=None,
        host="127.0.0.1",
        port=server.port,
        user="rotating",
        database="postgres",
        password_file=str(secret),
    )
    assert "password_file cannot be read" in (await failure(a_check)).message
    secret.write_text("old\n")
    assert (await probe(a_check)).reason is None
    await server.execute("ALTER ROLE rotating PASSWORD 'new'")
    assert (await failure(a_check)).reason is Reason.AUTH
    secret.write_text("new\n")
    assert (await probe(a_check)).reason is None


async def test_nobody_listening_is_refused() -> None:
    """The kernel's word, with the address."""
    config = load_text(
        f"services: {{a: {{kind: postgresql, host: 127.0.0.1, port: {free_port()}}}}}"
    ).services
    reported = await failure(PostgresqlCheck(cast("PostgresqlConfig", config["a"]), Network()))
    assert reported.reason is Reason.REFUSED
    assert reported.message.endswith("connection refused")


@pytest.mark.parametrize(
    ("words", "reasons"),
    [
        (b"", {Reason.EOF}),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", {Reason.PROTOCOL, Reason.EOF, Reason.RESET}),
        (b"\x00" * 4096, {Reason.PROTOCOL, Reason.EOF, Reason.RESET}),
        (b"E\x00\x00\x00\xffgarbage", {Reason.PROTOCOL, Reason.EOF, Reason.RESET}),
    ],
)
async def test_another_protocol_than_postgresql_is_recognized(words: bytes, reasons: set[Reason]) -> None:
    """Accepts and closes, or sends garbage: a declared failure, never a crash."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        writer.write(words)
        await writer.drain()

    async with streams.serving(serve) as port:
        for sslmode in ("disable", "prefer"):
            config = PostgresqlConfig.model_validate(
                {"kind": "postgresql", "host": "127.0.0.1", "port": port, "sslmode": sslmode}
            )
            async with asyncio.timeout(10):
                assert (await failure(PostgresqlCheck(config, Network()))).reason in reasons


async def test_no_answer_to_the_question_for_tls_is_no_refusal_of_it() -> None:
    """S and N are; what sends another byte, and then another, is no PostgreSQL."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(b"x")
        await reader.read()

    async with streams.serving(trickle) as port:
        config = PostgresqlConfig.model_validate({"kind": "postgresql", "host": "127.0.0.1", "port": port})
        async with asyncio.timeout(10):
            reported = await failure(PostgresqlCheck(config, Network()))
    assert reported.reason is Reason.PROTOCOL
    assert "b'x' answers no SSLRequest" in reported.message


async def test_a_silent_server_leaves_word_of_what_was_waited_for() -> None:
    """The cancelled attempt carries a failure that says where it stood."""

    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with streams.serving(stay_silent) as port:
        config = PostgresqlConfig.model_validate({"kind": "postgresql", "host": "127.0.0.1", "port": port})
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(3):
                await probe(PostgresqlCheck(config, Network()))
    cause = waited_for(caught.value)
    assert cause is not None
    assert "does not answer the start of a session" in cause.message


@asynccontextmanager
async def tls_in_front_of(server: PostgreSQL, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Answer SSLRequest, do TLS, and pass everything on: the wheel's PostgreSQL is built without TLS."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"S")
        await writer.start_tls(context)
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await streams.join(reader, writer, back_reader, back_writer)

    async with streams.serving(serve) as port:
        yield port


async def test_tls_is_checked_as_sslmode_says(
    server: PostgreSQL, authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    """verify-full takes a certificate for the name from the given authority, and no other."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "stranger.pem"))
    ours, strangers = {"ca_file": str(ca_file)}, {"ca_file": str(tmp_path / "stranger.pem")}
    context = presenting(authority.issue_cert("localhost"))
    async with tls_in_front_of(server, context) as port:
        dsn = server.dsn().replace(str(server.port), str(port))
        by_name = dsn.replace("127.0.0.1", "localhost")
        for mode in ("require", "verify-ca", "verify-full"):
            seen = await probe(check(server, dsn=by_name, sslmode=mode, tls=ours))
            assert seen.reason is None
            assert cast("float", seen.details["certificate_expiry_timestamp_seconds"]) > 1e9
            assert seen.details["tls_version"] == "TLSv1.3"
        assert (await probe(check(server, dsn=dsn, sslmode="prefer"))).reason is None
        assert (await probe(check(server, dsn=dsn, sslmode="require"))).reason is None
        assert (await failure(check(server, dsn=dsn, sslmode="verify-full", tls=ours))).reason is Reason.TLS
        unknown = check(server, dsn=by_name, sslmode="verify-ca", tls=strangers)
        assert (await failure(unknown)).reason is Reason.TLS
        named = check(server, dsn=dsn, sslmode="verify-full", tls={**ours, "server_name": "localhost"})
        assert (await probe(named)).reason is None


async def test_a_renewed_certificate_is_reported_after_the_next_canary(
    server: PostgreSQL, authority: trustme.CA, ca_file: Path
) -> None:
    """A session may be held for longer than its certificate is valid, and the renewed one is what counts."""
    renewed = datetime.now(UTC).replace(microsecond=0) + timedelta(days=90)
    context = presenting(authority.issue_cert("127.0.0.1"))
    async with tls_in_front_of(server, context) as port:
        dsn = server.dsn().replace(str(server.port), str(port))
        database = check(server, dsn=dsn, tls={"ca_file": str(ca_file)})
        async with database.connect() as session:
            await session.probe()
            authority.issue_cert("127.0.0.1", not_after=renewed).configure_cert(context)
            await probe(database)
            assert (await session.probe()).details[CERTIFICATE_EXPIRY] == renewed.timestamp()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("no more connections allowed (max_client_conn)", Reason.SLOTS_FULL),
        ("no such database: app", Reason.MISSING),
        ("no such user: bot", Reason.AUTH),
        ("server login has been failing, try again later (server_login_retry)", Reason.UNREACHABLE),
        ("query_wait_timeout", Reason.TIMEOUT),
        ("unsupported startup parameter: x", Reason.PROTOCOL),
    ],
)
async def test_a_pooler_is_taken_at_its_word(server: PostgreSQL, words: str, reason: Reason) -> None:
    """PgBouncer has one SQLSTATE for all it says, sends no field V, and closes the connection."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"N")
        await reader.read(1000)
        fields = b"SFATAL\0C08P01\0M" + words.encode() + b"\0\0"
        writer.write(b"E" + (4 + len(fields)).to_bytes(4) + fields)

    async with streams.serving(refuse) as port:
        reported = await failure(check(server, dsn=server.dsn().replace(str(server.port), str(port))))
    assert reported.reason is reason
    assert words in reported.message


async def test_a_server_without_tls_is_distinguished_from_a_broken_one(server: PostgreSQL) -> None:
    """sslmode require against a server that answers N."""
    assert (await failure(check(server, sslmode="require"))).reason is Reason.TLS


@pytest.mark.parametrize("query", [";", "-- ping"])
async def test_a_query_that_is_empty_is_answered_all_the_same(server: PostgreSQL, query: str) -> None:
    """Poolers and drivers ask so to see whether a server is there."""
    async with check(server, query=query).connect() as session:
        for _ in range(2):
            seen = await session.probe()
            assert seen.reason is None
            assert seen.details["role"] == "primary"


async def test_messages_may_come_in_pieces_of_any_size(server: PostgreSQL) -> None:
    """A first byte that comes alone, as some proxies and old TLS send it, is a part of what follows."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", server.port)

        async def ask() -> None:
            while data := await reader.read(65536):
                back_writer.write(data)
            back_writer.transport.abort()

        asking = asyncio.create_task(ask())
        while data := await back_reader.read(65536):
            writer.write(data[:1])
            await asyncio.sleep(0.02)
            writer.write(data[1:])
        await asking

    async with streams.serving(cut) as port:
        a_check = check(server, dsn=server.dsn().replace(str(server.port), str(port)))
        async with a_check.connect() as session:
            assert (await session.probe()).reason is None
            assert (await session.probe()).reason is None
