"""Kind tcp over TLS, from the first byte or after a beginning in plain text."""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink
from connection_exporter.core.health import Reason
from connection_exporter.demo.servers import free_port
from connection_exporter.kind import Failure, Observation
from connection_exporter.net.certificate import CERTIFICATE_EXPIRY
from support.attempts import attempt
from support.certificates import presenting
from support.streams import Handler, serving
from support.tcp_servers import check_of, says


@pytest.fixture(scope="module")
def trusted(ca_file: Path) -> dict[str, str]:
    return {"ca_file": str(ca_file)}


@pytest.fixture(scope="module")
def context(authority: trustme.CA) -> ssl.SSLContext:
    return presenting(authority.issue_cert("127.0.0.1"))


@pytest.fixture
def mail(context: ssl.SSLContext) -> Iterator[int]:
    """A real mail server that demands STARTTLS."""
    server = Controller(
        Sink(), hostname="127.0.0.1", port=free_port(), tls_context=context, require_starttls=True
    )
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


def upgrading(context: ssl.SSLContext, *lines: tuple[bytes, bytes], after: bytes = b"") -> Handler:
    """Say the second half of each pair in answer to the first, then set up TLS and say ``after``."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for asked, said in lines:
            assert await reader.readexactly(len(asked)) == asked
            writer.write(said)
        await writer.start_tls(context)
        writer.write(after)
        while await reader.read(65536):
            pass

    return talk


async def test_tls_from_the_first_byte(context: ssl.SSLContext, trusted: dict[str, str]) -> None:
    """The certificate's expiry is a detail."""
    async with serving(says(b"* OK ready\r\n"), tls=context) as port:
        seen = await attempt(check_of(port, tls=trusted, on_connect={"expect": r"^\* OK"}))
        distrusted = await attempt(check_of(port, tls={}))
    assert isinstance(seen, Observation)
    assert isinstance(seen.details[CERTIFICATE_EXPIRY], float)
    assert (seen.details["banner"], seen.reason) == ("* OK ready", None)
    assert isinstance(distrusted, Failure)
    assert distrusted.reason is Reason.TLS


async def test_starttls_with_a_real_mail_server(mail: int, trusted: dict[str, str]) -> None:
    """The dialogue of `on_connect` is encrypted: the server refuses it otherwise."""
    steps = [{"send": "EHLO me.example.com\r\n", "expect": "^250 "}, {"send": "NOOP\r\n", "expect": "^250"}]
    seen = await attempt(check_of(mail, starttls="smtp", tls=trusted, on_connect=steps))
    assert isinstance(seen, Observation), seen
    assert seen.reason is None
    assert str(seen.details["banner"]).startswith("220 ")
    assert isinstance(seen.details[CERTIFICATE_EXPIRY], float)


@pytest.mark.parametrize(
    ("protocol", "lines"),
    [
        ("imap", ((b"", b"* OK [CAPABILITY IMAP4rev1] hi\r\n"), (b"a STARTTLS\r\n", b"a OK go\r\n"))),
        ("pop3", ((b"", b"+OK hi\r\n"), (b"STLS\r\n", b"+OK go\r\n"))),
        ("postgresql", ((bytes.fromhex("0000000804d2162f"), b"S"),)),
        (
            "smtp",
            (
                (b"", b"220-hi\r\n220 there\r\n"),
                (b"EHLO [127.0.0.1]\r\n", b"250-me\r\n250 STARTTLS\r\n"),
                (b"STARTTLS\r\n", b"220 go\r\n"),
            ),
        ),
    ],
)
async def test_each_protocol_asks_for_tls_in_its_own_words(
    context: ssl.SSLContext, trusted: dict[str, str], protocol: str, lines: tuple[tuple[bytes, bytes], ...]
) -> None:
    """And goes on encrypted."""
    async with serving(upgrading(context, *lines, after=b"secured\r\n")) as port:
        check = check_of(port, starttls=protocol, tls=trusted, on_connect={"expect": "^secured"})
        seen = await attempt(check)
    assert isinstance(seen, Observation), seen
    assert seen.reason is None


@pytest.mark.parametrize(
    ("said", "reason", "text"),
    [
        (b"554 go away\r\n", Reason.TLS, "answers a connection with '554 go away'"),
        (b"220 hi\r\n250 me\r\n502 what?\r\n", Reason.TLS, "the request for TLS with '502 what?'"),
        (
            b"220 hi\r\n250 me\r\n220 go\r\n250 injected\r\n",
            Reason.PROTOCOL,
            "sends more before the TLS handshake",
        ),
        (b"220 hi\r\n250 me\r\n220 go\r\n", Reason.TIMEOUT, "TLS handshake"),
        (b"\x00\x01\x02", Reason.EXPECT, "has not arrived"),
        (b"", Reason.TIMEOUT, "sends nothing"),
    ],
)
async def test_a_server_without_tls_is_told_apart(said: bytes, reason: Reason, text: str) -> None:
    """And so is one that puts plain text before the handshake (CVE-2011-0411)."""
    async with serving(says(said)) as port:
        seen = await attempt(check_of(port, starttls="smtp"), timeout=0.5)
    assert isinstance(seen, Failure)
    assert (seen.reason, text in seen.message) == (reason, True), seen


async def test_a_session_is_resumed_for_half_the_time_between_two_canaries(
    context: ssl.SSLContext, trusted: dict[str, str]
) -> None:
    """So that each canary verifies the certificate, however often they run."""
    resumed: list[bool] = []

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        resumed.append(writer.get_extra_info("ssl_object").session_reused)
        writer.write(b"hello\n")
        await writer.drain()
        writer.close()

    async with serving(greet, tls=context) as port:
        for canary in ("5m", "100ms"):
            check = check_of(
                port,
                tls=trusted,
                canary=canary,
                interval="100ms",
                timeout="100ms",
                on_connect=[{"expect": "hello", "within": "10s"}],
            )
            for _ in range(2):
                async with check.connect() as session:
                    await asyncio.wait_for(asyncio.shield(session.lost), 10)
                await asyncio.sleep(0.1)
    assert resumed == [False, True, False, False]
