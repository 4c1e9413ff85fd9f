"""What `sslmode`, `require_auth` and `passfile` do, as in libpq."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
from connection_exporter.config.redact import Redactor
from connection_exporter.core.health import Reason
from connection_exporter.demo.ports import free_port
from connection_exporter.demo.servers import PostgreSQL
from connection_exporter.kind import Failure, Observation
from connection_exporter.kinds.postgresql.check import PostgresqlCheck
from connection_exporter.kinds.postgresql.config import PostgresqlConfig
from connection_exporter.kinds.postgresql.methods import METHODS, parse_methods
from connection_exporter.kinds.postgresql.passfile import password_in
from connection_exporter.net import Network
from support import streams
from support.attempts import attempt
from support.certificates import presenting
from support.postgresql_servers import OK, READY, SELECTED, WELCOME, HostileServer, Script, error, request
from support.started import started

NOT_ALLOWED = error(b"no pg_hba.conf entry for host", severity=b"FATAL", state=b"28000")
WRONG = error(b"password authentication failed", severity=b"FATAL", state=b"28P01")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with started(PostgreSQL()) as server:
        yield server


def config(**keys: object) -> PostgresqlConfig:
    return PostgresqlConfig.model_validate({"kind": "postgresql", **keys})


async def found(given: PostgresqlConfig) -> Observation | Failure:
    return await attempt(PostgresqlCheck(given, Network()), timeout=10)


class Front:
    """Stands before a server that was built without TLS, and may refuse logins with TLS, or those without."""

    def __init__(self, upstream: int, authority: trustme.CA) -> None:
        self.refusal: dict[bool, bytes] = {}
        """What a login gets instead of the server's answer: with TLS (True), and without."""
        self.logins: list[bool] = []
        self.port = 0
        self._upstream = upstream
        self._context = presenting(authority.issue_cert("localhost"))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(8)
        secure = first[4:] == (80877103).to_bytes(4)
        if secure:
            writer.write(b"S")
            await writer.start_tls(self._context)
            first = await reader.readexactly(8)
        self.logins.append(secure)
        if secure in self.refusal:
            writer.write(self.refusal[secure])
            await writer.drain()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        up_writer.write(first)
        await streams.join(reader, writer, up_reader, up_writer)


@asynccontextmanager
async def in_front_of(server: PostgreSQL, authority: trustme.CA) -> AsyncIterator[Front]:
    front = Front(server.port, authority)
    async with streams.serving(front.serve) as front.port:
        yield front


def login(front: Front, server: PostgreSQL, mode: str, **tls: object) -> PostgresqlConfig:
    keys: dict[str, object] = {"host": "localhost", "user": "postgres", "password": server.password, **tls}
    return config(port=front.port, database="postgres", sslmode=mode, **keys)


async def test_allow_asks_for_tls_only_where_a_login_without_it_is_not_allowed(
    server: PostgreSQL, authority: trustme.CA
) -> None:
    """A wrong password is not tried again: it counts towards a lock of the account."""
    async with in_front_of(server, authority) as front:
        seen = await found(login(front, server, "allow"))
        assert isinstance(seen, Observation)
        assert "tls_seconds" not in seen.details
        front.refusal = {False: NOT_ALLOWED}
        seen = await found(login(front, server, "allow"))
        assert isinstance(seen, Observation), seen
        assert "tls_seconds" in seen.details
        front.refusal, front.logins = {False: WRONG}, []
        seen = await found(login(front, server, "allow"))
        assert isinstance(seen, Failure)
        assert (seen.reason, front.logins) == (Reason.AUTH, [False])


@pytest.mark.parametrize("mode", ["allow", "prefer"])
async def test_what_is_wrong_with_and_without_tls_is_reported_together(
    server: PostgreSQL, authority: trustme.CA, mode: str, tmp_path: Path
) -> None:
    """The certificate is the reason, where the server wants TLS."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "stranger.pem"))
    tls = {"ca_file": str(tmp_path / "stranger.pem")}
    async with in_front_of(server, authority) as front:
        front.refusal = {False: NOT_ALLOWED}
        seen = await found(login(front, server, mode, tls=tls))
    assert isinstance(seen, Failure)
    assert seen.reason is Reason.TLS
    assert "the certificate is not accepted" in seen.message
    assert "no pg_hba.conf entry" in seen.message


async def test_prefer_verifies_a_root_certificate_and_does_without_tls_if_it_is_not_accepted(
    server: PostgreSQL, authority: trustme.CA, tmp_path: Path
) -> None:
    """As psql does; `require` with the same file fails."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "stranger.pem"))
    async with in_front_of(server, authority) as front:
        for name, secure in (("ca.pem", True), ("stranger.pem", False)):
            tls = {"ca_file": str(tmp_path / name)}
            seen = await found(login(front, server, "prefer", tls=tls))
            assert isinstance(seen, Observation)
            assert ("tls_seconds" in seen.details) == secure
            required = await found(login(front, server, "require", tls=tls))
            assert isinstance(required, Observation if secure else Failure)


@pytest.mark.parametrize(
    ("methods", "logins", "accepted"),
    [
        ("scram-sha-256", [request(3), WELCOME], False),
        ("!password", [request(3), WELCOME], False),
        ("!password,!none", [request(5, b"salt"), WELCOME], True),
        ("password,md5", [request(3), WELCOME], True),
        ("scram-sha-256", [WELCOME], False),
        ("none", [OK + READY], True),
        ("!md5", [request(5, b"salt"), WELCOME], False),
    ],
)
async def test_only_the_methods_of_require_auth_are_used(
    methods: str, logins: list[bytes], *, accepted: bool
) -> None:
    """A server that asks for another one gets no password."""
    with HostileServer(Script(login=logins, answers=[[SELECTED]])) as hostile:
        seen = await found(
            config(
                host="127.0.0.1",
                port=hostile.port,
                user="me",
                password="s3cret",
                require_auth=methods,
                sslmode="disable",
                pooler=True,
            )
        )
    assert isinstance(seen, Observation) == accepted, seen
    if isinstance(seen, Failure):
        assert seen.reason is Reason.AUTH
        assert "which require_auth excludes" in seen.message


def test_require_auth_is_read_as_libpq_reads_it() -> None:
    """A list, or a list of what is excluded."""
    assert parse_methods(None) == METHODS
    assert parse_methods("md5, none") == {"md5", "none"}
    assert parse_methods("!md5,!none") == METHODS - {"md5", "none"}
    for wrong in ("md5,!none", "scram", "!", ","):
        with pytest.raises(ValueError, match="scram-sha-256"):
            parse_methods(wrong)


PASSFILE = r"""
# host:port:database:user:password
db:5432:app:other:not this one
d\:b:*:*:me:with\:colon and \\
db:5432:app:me:first
db:*:*:*:second:with colon
*:*:*:*:any
"""


@pytest.mark.parametrize(
    ("fields", "password"),
    [
        (("db", "5432", "app", "me"), "first"),
        (("db", "5433", "app", "me"), "second:with colon"),
        (("d:b", "1", "x", "me"), "with:colon and \\"),
        (("elsewhere", "1", "x", "y"), "any"),
    ],
)
def test_a_passfile_is_read_as_libpq_reads_it(fields: tuple[str, ...], password: str) -> None:
    """The first line that matches; `*` matches anything, a backslash escapes."""
    assert password_in(PASSFILE, fields) == password
    assert password_in("db:5432:app:me", fields) == ""


async def test_the_password_comes_from_the_passfile_that_is_named(server: PostgreSQL, tmp_path: Path) -> None:
    """Read at each connect; only the password in it is a secret; one that is missing is `auth`."""
    passfile = tmp_path / "pgpass"
    given = config(dsn=f"host=127.0.0.1 port={server.port} user=postgres passfile={passfile}")
    seen = await found(given)
    assert isinstance(seen, Failure)
    assert (seen.reason, "passfile cannot be read" in seen.message) == (Reason.AUTH, True)
    passfile.write_text(f"other:*:*:*:wrong\n127.0.0.1:{server.port}:postgres:postgres:{server.password}\n")
    assert isinstance(await found(given), Observation)
    assert given.passfile is not None
    assert given.passfile.values == (server.password,)
    assert (
        Redactor(given)(f"127.0.0.1:{server.port} {server.password}") == f"127.0.0.1:{server.port} [redacted]"
    )
    passfile.write_text("127.0.0.1:1:*:*:wrong\n")
    seen = await found(given)
    assert isinstance(seen, Failure)
    assert "none is configured" in seen.message


async def test_a_unix_socket_is_written_as_in_psql_and_has_no_tls(tmp_path: Path) -> None:
    """In a URL and as pairs, also beside a host that refuses; whatever `sslmode` says, as in libpq."""
    async with PostgreSQL(settings={"unix_socket_directories": "."}) as local:
        folder, port = local.data, local.port
        login = f"user=postgres password={local.password}"
        (tmp_path / "pgpass").write_text(f"localhost:{port}:*:postgres:{local.password}\n")
        for dsn in (
            f"postgresql:///postgres?host={folder}&port={port}&user=postgres&password={local.password}",
            f"postgresql://postgres:{local.password}@{quote(str(folder), safe='')}:{port}/postgres",
            f"host={folder} port={port} {login} sslmode=verify-full",
            f"host=127.0.0.1,{folder} port={free_port()},{port} {login}",
            f"host={folder} port={port} user=postgres passfile={tmp_path / 'pgpass'}",
        ):
            seen = await found(config(dsn=dsn))
            assert isinstance(seen, Observation), seen
            assert seen.details["host"] == f"{folder}/.s.PGSQL.{port}"
            assert "tls_seconds" not in seen.details
