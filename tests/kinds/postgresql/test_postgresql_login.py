"""Kind postgresql: what it reads of its own account, how it authenticates, and what a bug of its own becomes."""

import base64
import hashlib
import os
import pwd
from pathlib import Path

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Observation
from connection_exporter.kinds.postgresql.authentication import _SALTED, SALTED_LIMIT, Scram, md5_answer
from connection_exporter.kinds.postgresql.check import PostgresqlCheck
from connection_exporter.kinds.postgresql.config import PostgresqlConfig
from connection_exporter.kinds.postgresql.errors import read_error
from connection_exporter.kinds.postgresql.hosts import Connector
from connection_exporter.kinds.postgresql.question import Question
from connection_exporter.net import Network
from support.postgresql_servers import SELECTED, WELCOME, HostileServer, Script, message, request


def check(server: HostileServer, **keys: object) -> PostgresqlCheck:
    return PostgresqlCheck(config(server, **keys), Network())


def config(server: HostileServer, **keys: object) -> PostgresqlConfig:
    given = {"kind": "postgresql", "host": "127.0.0.1", "port": server.port, "pooler": True, **keys}
    return PostgresqlConfig.model_validate(given)


def test_the_account_name_comes_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in libpq, which does not read $USER: after `sudo`, it may be another account's."""
    for user in (None, "somebody_else"):
        monkeypatch.delenv("USER", raising=False)
        monkeypatch.delenv("LOGNAME", raising=False)
        if user is not None:
            monkeypatch.setenv("USER", user)
        assert PostgresqlConfig(kind="postgresql").login_user == pwd.getpwuid(os.geteuid()).pw_name


async def test_files_and_variables_of_our_account_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password, certificates and a service file in HOME, broken ones too, make no difference."""
    folder = tmp_path / ".postgresql"
    folder.mkdir()
    for name in ("root.crt", "root.crl", "postgresql.crt", "postgresql.key"):
        (folder / name).write_text("not a certificate")
        (folder / name).chmod(0)
    passfile = tmp_path / ".pgpass"
    passfile.write_text("*:*:*:*:secret_of_our_account\n")
    passfile.chmod(0o600)
    environment = {
        "PGPASSWORD": "secret_of_our_account",
        "PGPASSFILE": str(passfile),
        "PGSSLMODE": "verify-full",
    }
    environment |= {
        "PGHOST": "nowhere.invalid",
        "PGPORT": "1",
        "PGUSER": "x",
        "PGDATABASE": "x",
        "PGSERVICE": "x",
    }
    for name, value in {**environment, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with HostileServer(Script(answers=[[SELECTED]])) as server:
        async with check(server).connect() as session:
            assert (await session.probe()).reason is None
    with HostileServer(Script(login=[request(3), WELCOME])) as server, pytest.raises(Failure) as caught:
        async with check(server).connect():
            pass
    assert caught.value.reason is Reason.AUTH
    assert "none is configured" in caught.value.message


class BrokenQuestion(Question):
    """A question with a bug."""

    def take(self, kind: int, body: bytes) -> None:
        raise ZeroDivisionError


async def test_a_bug_of_ours_is_not_blamed_on_the_server() -> None:
    """An exception in our own parser reaches the caller as it is, and so becomes `internal`."""
    with HostileServer(Script(answers=[[SELECTED], [SELECTED]])) as server:
        wire = (await Connector(config(server), Network()).connect())[0].wire
        with pytest.raises(ZeroDivisionError):
            await wire.ask(BrokenQuestion(b"any request", "it"))
        assert (await wire.lost).reason is Reason.INTERNAL


async def test_an_error_that_ends_in_silence_is_not_waited_for() -> None:
    """After a fatal error the session is over, whether or not the server closes the connection."""
    fatal = message("E", b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0")
    with HostileServer(Script(answers=[[fatal]])) as server:
        async with check(server).connect() as session:
            with pytest.raises(Failure) as caught:
                await session.probe()
    assert caught.value.reason is Reason.SHUTDOWN


async def test_an_error_that_is_not_fatal_is_an_answer() -> None:
    """Whatever its SQLSTATE: a query that fails to reach another server (dblink) has been answered by this one."""
    answer = message("E", b"SERROR\0VERROR\0C08001\0Mcould not establish connection\0\0") + message("Z", b"I")
    with HostileServer(Script(answers=[[answer]])) as server:
        async with check(server).connect() as session:
            seen = await session.probe()
    assert isinstance(seen, Observation)
    assert (seen.reason, seen.message) == (Reason.QUERY, "could not establish connection (08001)")


def test_md5_is_computed_as_postgresql_does() -> None:
    """PostgreSQL docs, 53.2.1."""
    inner = hashlib.md5(b"secretme").hexdigest().encode()
    expected = b"md5" + hashlib.md5(inner + b"salt").hexdigest().encode() + b"\0"
    assert md5_answer("me", "secret", b"salt") == expected


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("secret", "secret"),
        ("pa\u00a0ss", "pa ss"),
        ("pa\u00adss", "pass"),
        ("\u2168", "IX"),
        ("p\u0308a", "p\u0308a"),
        ("bad\u0007\u00e4", "bad\u0007\u00e4"),
        ("\u0627\u0031", "\u0627\u0031"),
    ],
)
def test_a_password_is_prepared_as_libpq_does(password: str, prepared: str) -> None:
    """SASLprep (RFC 4013); a password that it forbids is used as it is."""
    scram = Scram(b"SCRAM-SHA-256\0\0", password)
    nonce = scram.first().partition(b"r=")[2].decode()
    server_first = f"r={nonce}x,s={base64.b64encode(b'salt').decode()},i=10"
    scram.challenge(server_first.encode())
    proof = scram.final()
    scram._password = prepared.encode()
    assert scram.final() == proof


def test_a_password_is_salted_once() -> None:
    """Of all services with the same role: only another salt, number of iterations or password takes time again."""

    def is_quick(password: str = "secret", salt: bytes = b"grain", iterations: int = 4096) -> bool:
        scram = Scram(b"SCRAM-SHA-256\0\0", password)
        nonce = scram.first().partition(b"r=")[2].decode()
        scram.challenge(f"r={nonce}x,s={base64.b64encode(salt).decode()},i={iterations}".encode())
        was_quick = scram.is_quick
        scram.final()
        assert scram.is_quick
        return was_quick

    assert [is_quick(), is_quick()] == [False, True]
    assert not is_quick(password="another")
    assert not is_quick(salt=b"another")
    assert not is_quick(iterations=4097)
    for number in range(SALTED_LIMIT):
        is_quick(salt=str(number).encode(), iterations=1)
    assert not is_quick()


def test_long_salts_of_a_hostile_server_are_not_kept() -> None:
    """Each of them may have as many bytes as a login."""
    before = len(_SALTED)
    for number in range(3):
        scram = Scram(b"SCRAM-SHA-256\0\0", "secret")
        nonce = scram.first().partition(b"r=")[2].decode()
        salt = base64.b64encode(bytes([number]) * 40_000).decode()
        scram.challenge(f"r={nonce}x,s={salt},i=1".encode())
        scram.final()
        assert not scram.is_quick
    assert len(_SALTED) == before


def test_an_error_is_read_whatever_its_fields() -> None:
    """Fields may be missing, repeated, translated or too many."""
    assert str(read_error(b"")) == "an error without a text"
    assert read_error(b"SFATAL\0C08P01\0Mno such user\0\0").reason is Reason.AUTH
    assert not read_error(b"SFATAL\0VERROR\0C42601\0Mx\0\0").fatal
    assert len(read_error(b"M" + b"\xff" * 5000 + b"\0").text) == 1000
    assert read_error(b"Dx\0" * 100 + b"Mlate\0\0").text == "an error without a text"
