"""Kind postgresql against servers that flood, lie and never end. The event loop must not notice."""

import asyncio
import struct
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from typing import Final

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Observation
from connection_exporter.kinds.postgresql.authentication import ITERATIONS
from connection_exporter.kinds.postgresql.check import PostgresqlCheck
from connection_exporter.kinds.postgresql.config import PostgresqlConfig
from connection_exporter.net import Network
from support.hostile import assert_iterations_are_short
from support.postgresql_servers import (
    DEPTH,
    MIB,
    OK,
    READY,
    SELECTED,
    SET,
    WELCOME,
    HostileServer,
    Script,
    endless,
    error,
    message,
    parameter,
    request,
    row,
)

MEMORY: Final = 24 * MIB
"""Bytes by which resident memory may grow. The servers try to send up to 64 MiB."""

HUGE: Final = 8 * MIB
PREPARED: Final = (SET,), (message("1") + READY,)
MANY_COLUMNS: Final = struct.pack("!H", 65535) + b"\0" * (MIB - 1024)


def check(server: HostileServer, **keys: object) -> PostgresqlCheck:
    config = {
        "kind": "postgresql",
        "host": "127.0.0.1",
        "port": server.port,
        "user": "me",
        "password": "secret",
    }
    given = {key: value for key, value in {**config, **keys}.items() if value is not None}
    return PostgresqlCheck(PostgresqlConfig.model_validate(given), Network())


async def outcome(server: HostileServer, *, floods: bool = False, **keys: object) -> Failure | Observation:
    """Connect and probe; if both succeed and the server ``floods``, wait for the end of the session."""
    try:
        async with asyncio.timeout(30), check(server, **keys).connect() as session:
            seen = await session.probe()
            return await session.lost if floods else seen
    except Failure as failure:
        return failure


async def bounded(script: Script | Callable[[], HostileServer], **keys: object) -> Failure:
    """Return how the session with a server ended, and assert what it cost."""

    async def attack() -> Failure | Observation:
        with script() if callable(script) else HostileServer(replace(script)) as server:
            return await outcome(server, floods=True, **keys)

    ended = await assert_iterations_are_short(attack, memory=MEMORY)
    assert isinstance(ended, Failure), ended
    assert ended.reason in {Reason.PROTOCOL, Reason.TOO_LARGE}, ended
    return ended


LOGINS: Final[dict[str, Iterable[bytes]]] = {
    "cleartext requests": endless(request(3)),
    "MD5 requests": endless(request(5, b"salt")),
    "SASL requests": endless(request(10, b"SCRAM-SHA-256\0\0")),
    "SASL continuations": endless(request(11, b"r=x,s=eA==,i=1")),
    "AuthenticationOk": endless(OK),
    "unknown requests": endless(request(99)),
    "requests without a code": endless(message("R")),
    "parameters": endless(parameter(b"name", b"value")),
    "long parameters": endless(parameter(b"name", b"v" * 100_000)),
    "parameters after AuthenticationOk": [OK, *[parameter(b"server_version", b"16") * 10_000] * 10],
    "notices": endless(message("N", b"MHello\0\0")),
    "keys": endless(message("K", bytes(8))),
    "empty messages": endless(message("N")),
    "a huge error": [error(b"x" * HUGE)],
    "an error without an end": [message("E", length=2**31 - 1), *[b"x" * MIB] * 64],
    "a message of negative length": [message("R", length=2**32 - 1)],
    "messages of length 0": endless(message("N", length=0)),
    "messages of length 3": endless(message("S", length=3)),
    "rows": endless(row(b"1")),
    "HTTP": endless(b"HTTP/1.1 200 OK\r\n\r\n"),
    "zeros": endless(bytes(1000)),
    "a login without authentication": [READY],
    "two logins": [WELCOME + WELCOME],
    "a request after AuthenticationOk": [OK + request(3)],
}


@pytest.mark.parametrize("login", LOGINS.values(), ids=LOGINS)
async def test_a_login_without_end_is_ended(login: Iterable[bytes]) -> None:
    """Whatever a server sends instead of a login, the attempt fails soon, and nothing of it is kept."""
    await bounded(Script(login=login))


ANSWERS: Final[dict[str, Iterable[bytes]]] = {
    "rows": endless(row(b"1")),
    "empty rows": endless(message("D")),
    "rows of a MiB": endless(row(b"x" * (MIB - 100))),
    "rows with 65535 columns": endless(message("D", MANY_COLUMNS)),
    "descriptions with 65535 columns": endless(message("T", MANY_COLUMNS)),
    "a description without names": endless(message("T", struct.pack("!H", 65535) + b"x" * 1000)),
    "a huge row": [row(b"x" * HUGE)],
    "a row without an end": [message("D", length=2**31 - 1), *[b"x" * MIB] * 64],
    "COPY data": [message("H", b"\0\0\0"), *([message("d", b"x" * 10) * 20_000] * 100)],
    "COPY data of a MiB": endless(message("d", b"x" * (MIB - 100))),
    "empty messages": endless(message("I")),
    "completions": endless(message("C", b"SELECT 1\0")),
    "parameters": endless(parameter(b"server_version", b"x" * 1000)),
    "notices": endless(message("N", b"MHello\0\0")),
    "notifications": endless(message("A", bytes(4) + b"channel\0payload\0")),
    "errors": endless(error(b"division by zero")),
    "empty errors": endless(message("E")),
    "errors with many fields": endless(message("E", b"Mx\0" * 300_000)),
    "a huge error": [error(b"x" * HUGE) + READY],
    "ReadyForQuery": endless(READY),
    "authentication requests": endless(request(3)),
    "garbage": endless(b"\xff\xfe garbage"),
    "messages of length 0": endless(message("D", length=0)),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_without_end_is_ended(answer: Iterable[bytes]) -> None:
    """The answer to the query is limited in bytes and messages."""
    await bounded(Script(answers=[answer]), pooler=True)


DEPTHS: Final[dict[str, Iterable[bytes]]] = {
    "rows": endless(row(b"1")),
    "rows with 65535 columns": endless(message("D", MANY_COLUMNS)),
    "errors": endless(error(b"division by zero")),
    "a huge error": [error(b"x" * HUGE) + READY],
    "ReadyForQuery": endless(READY),
    "no row": [message("2") + message("C", b"SELECT 0\0") + READY],
    "too few columns": [row(b"f", b"0") + READY],
    "a role that is none": [row(b"maybe", None, b"1", b"1") + READY],
    "a number that is none": [row(b"f", None, b"many", b"1") + READY],
    "a very long number": [row(b"f", None, b"9" * 100_000, b"x") + READY],
    "a value that is too long": [message("D", struct.pack("!Hi", 4, 1000) + b"f") + READY],
    "a value without a length": [message("D", struct.pack("!H", 4)) + READY],
}


@pytest.mark.parametrize("answer", DEPTHS.values(), ids=DEPTHS)
async def test_a_hostile_answer_to_the_query_for_depth_is_ended(answer: Iterable[bytes]) -> None:
    """The query for depth has the same limits, and its values are checked."""
    await bounded(lambda: HostileServer(Script(answers=[*PREPARED, chain([SELECTED], answer)])))


UNASKED: Final[dict[str, bytes]] = {
    "notices": message("N", b"MHello\0\0"),
    "notifications": message("A", bytes(4) + b"channel\0payload\0"),
    "parameters": parameter(b"name", b"value"),
    "errors": error(b"nobody asked"),
    "ReadyForQuery": READY,
    "rows": row(b"1"),
    "empty messages": message("I"),
    "messages of length 0": message("N", length=0),
}


@pytest.mark.parametrize("part", UNASKED.values(), ids=UNASKED)
async def test_a_flood_while_nothing_is_asked_ends_the_session(part: bytes) -> None:
    """Between two probes, a server may send notices and changed parameters, in limited number."""
    await bounded(Script(answers=[[SELECTED]], unasked=endless(part)), pooler=True)


async def test_a_few_notices_and_parameters_while_nothing_is_asked_are_no_fault() -> None:
    """A reload of the server's configuration sends changed parameters to every client."""
    few = [message("N", b"MHello\0\0") * 20 + parameter(b"TimeZone", b"UTC") * 20, SELECTED]
    with HostileServer(Script(answers=[[SELECTED, few[0]], [SELECTED]])) as server:
        async with check(server, pooler=True).connect() as session:
            assert (await session.probe()).reason is None
            await asyncio.sleep(0.05)
            assert (await session.probe()).reason is None
            assert not session.lost.done()


@pytest.mark.parametrize(
    ("server_first", "words"),
    [
        (b"r=%s,s=c2FsdA==,i=2147483647", "2147483647 SCRAM iterations"),
        (b"r=%s,s=c2FsdA==,i=1000001", f"limit: {ITERATIONS}"),
        (b"r=%s,s=c2FsdA==,i=0", "iteration count"),
        (b"r=%s,s=c2FsdA==,i=-1", "iteration count"),
        (b"r=%s,s=c2FsdA==,i=" + b"9" * 5000, "iteration count"),
        (b"r=%s,s=c2FsdA==", "iteration count"),
        (b"r=other,s=c2FsdA==,i=4096", "nonce"),
        (b"", "nonce"),
        (b"r=%s,s=\xff,i=4096", "not ASCII"),
        (b"r=%s,s=***,i=4096", "not base64"),
        (b"," * 60_000, "nonce"),
    ],
)
async def test_a_hostile_scram_challenge_costs_nothing(server_first: bytes, words: str) -> None:
    """The iteration count is limited before a single iteration is made."""
    ended = await bounded(lambda: _ScramServer(server_first))
    assert words in ended.message


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (request(12, b"v=AAAA"), "signature is wrong"),
        (request(12), "signature is wrong"),
        (request(12, b"e=other-error"), "signature is wrong"),
        (WELCOME, "code 0 during SCRAM"),
        (request(3), "code 3 during SCRAM"),
    ],
)
async def test_a_server_that_does_not_know_the_password_is_not_trusted(end: bytes, words: str) -> None:
    """SCRAM is mutual: the exchange ends with the server's proof (RFC 5802, section 3)."""
    ended = await bounded(lambda: _ScramServer(b"r=%s,s=c2FsdA==,i=4096", end))
    assert words in ended.message


class _ScramServer(HostileServer):
    """Answers the client's first SCRAM message with ``server_first``, in which %s is the nonce."""

    def __init__(self, server_first: bytes, end: bytes = b"") -> None:
        super().__init__(Script())
        self._server_first = server_first
        self._end = end

    def _serve(self, connection: object) -> None:
        import socket  # noqa: PLC0415 - for the type

        assert isinstance(connection, socket.socket)
        connection.settimeout(5)
        with connection:
            try:
                self._read(connection)
                connection.sendall(b"N")
                self._read(connection)
                connection.sendall(request(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"))
                nonce = self._read(connection).partition(b"r=")[2]
                connection.sendall(request(11, self._server_first.replace(b"%s", nonce + b"ours")))
                self._read(connection)
                connection.sendall(self._end)
                while self._read(connection):
                    pass
            except OSError:
                return


@pytest.mark.parametrize("code", [3, 5])
async def test_a_request_for_a_password_or_for_md5_is_answered(code: int) -> None:
    """As in libpq, any method is accepted; sslmode is what protects the password."""
    login = [request(code, b"salt"), WELCOME]
    with HostileServer(Script(login=login, answers=[[SELECTED]])) as server:
        seen = await outcome(server, pooler=True)
    assert isinstance(seen, Observation), seen


@pytest.mark.parametrize("code", [3, 5, 10])
async def test_a_password_that_is_asked_for_and_not_configured_is_auth(code: int) -> None:
    with HostileServer(Script(login=[request(code, b"SCRAM-SHA-256\0\0"), WELCOME])) as server:
        ended = await outcome(server, password=None)
    assert isinstance(ended, Failure)
    assert ended.reason is Reason.AUTH
    assert "none is configured" in ended.message


@pytest.mark.parametrize("code", [2, 7, 9])
async def test_a_method_that_is_not_supported_is_auth(code: int) -> None:
    with HostileServer(Script(login=[request(code)])) as server:
        ended = await outcome(server)
    assert isinstance(ended, Failure)
    assert ended.reason is Reason.AUTH


@pytest.mark.parametrize("tls", [b"S" + b"x" * 100, b"NN", b"x", b"E" + b"secret" * 1000, b"\0"])
async def test_a_wrong_answer_to_the_request_for_tls_is_ended(tls: bytes) -> None:
    """Bytes after S are not encrypted (CVE-2021-23222), and an error before TLS is not shown (CVE-2024-10977)."""
    for sslmode in ("prefer", "require"):
        ended = await bounded(lambda: HostileServer(Script(), tls=tls), sslmode=sslmode)
        assert ended.reason is Reason.PROTOCOL
        assert "secret" not in ended.message


@pytest.mark.parametrize(
    ("sent", "reason", "text"),
    [
        (b"could not fork new process for connection: Cannot allocate memory\n\0", Reason.SLOTS_FULL, None),
        (b"RROR\r\n", Reason.PROTOCOL, "RROR"),
    ],
    ids=["PostgreSQL without memory", "memcached"],
)
async def test_an_error_in_the_format_of_version_2_is_read(
    sent: bytes, reason: Reason, text: str | None
) -> None:
    """PostgreSQL uses it when it can start no process for a connection. Before TLS, its text is not shown."""
    with HostileServer(Script(login=[b"E" + sent])) as server:
        ended = await outcome(server, sslmode="disable")
    assert isinstance(ended, Failure)
    assert ended.reason is reason
    assert ended.message == f"127.0.0.1:{server.port}: {text or sent[:-2].decode()}"
    with HostileServer(Script(), tls=b"E" + sent) as server:
        ended = await outcome(server)
    assert isinstance(ended, Failure)
    assert ended.reason is Reason.PROTOCOL
    assert ended.message == f"127.0.0.1:{server.port} answers SSLRequest with an error: see its log"


async def test_a_server_that_agrees_to_tls_and_closes_is_not_trusted_without() -> None:
    """With sslmode require, a failed handshake ends the attempt."""
    with HostileServer(Script(), tls=b"S") as server:
        ended = await outcome(server, sslmode="require")
    assert isinstance(ended, Failure)
    assert ended.reason in {Reason.EOF, Reason.RESET, Reason.TLS}


async def test_a_server_without_a_version_is_healthy() -> None:
    """server_version is a parameter like others: a proxy might not pass it on."""
    with HostileServer(Script(login=[OK + READY], answers=[*PREPARED, [SELECTED + DEPTH]])) as server:
        seen = await outcome(server)
    assert isinstance(seen, Observation), seen
    assert seen.reason is None
    assert seen.details["server_version"] is None


async def test_an_answer_byte_by_byte_is_an_answer() -> None:
    """A message may come in pieces of any size."""
    answers = [[bytes([byte]) for byte in part] for part in (SET, message("1") + READY, SELECTED + DEPTH)]
    with HostileServer(Script(login=[bytes([byte]) for byte in WELCOME], answers=answers)) as server:
        seen = await assert_iterations_are_short(lambda: outcome(server))
    assert isinstance(seen, Observation), seen
    assert seen.reason is None


@pytest.mark.parametrize("limit", [b"1e400", b"1e99", b"2147483648"])
async def test_odd_numbers_of_depth_are_left_out(limit: bytes) -> None:
    """JSON knows no infinity, details have 64 bits, and some relatives of PostgreSQL have no limit of connections."""
    odd = row(b"t", b"Infinity", b"-1", limit) + READY
    with HostileServer(Script(answers=[*PREPARED, [SELECTED + odd]])) as server:
        seen = await outcome(server)
    assert isinstance(seen, Observation), seen
    assert [seen.details[key] for key in ("replication_lag_seconds", "connections", "max_connections")] == [
        None
    ] * 3


async def test_a_long_answer_within_the_limits_is_an_answer() -> None:
    """The limits are far above what a probe needs: 20,000 rows are read, counted and dropped."""
    answer = [*[row(b"x" * 100) * 1000] * 20, message("C", b"SELECT 20000\0") + READY]
    with HostileServer(Script(answers=[answer])) as server:
        seen = await assert_iterations_are_short(lambda: outcome(server, pooler=True))
    assert isinstance(seen, Observation), seen


async def test_floods_from_many_servers_at_once_do_not_add_up() -> None:
    """All services share one turn of the event loop."""

    async def attack() -> list[Failure]:
        network = Network()
        with ExitStack() as stack:
            servers = [
                stack.enter_context(HostileServer(Script(answers=[endless(row(b"1"))]))) for _ in range(5)
            ]
            return await asyncio.gather(*(_through(network, server) for server in servers))

    ended = await assert_iterations_are_short(attack)
    assert {failure.reason for failure in ended} == {Reason.TOO_LARGE}


async def _through(network: Network, server: HostileServer) -> Failure:
    a_check = check(server, pooler=True)
    a_check = PostgresqlCheck(a_check._config, network)
    with pytest.raises(Failure) as caught:
        async with a_check.connect() as session:
            await session.probe()
    return caught.value
