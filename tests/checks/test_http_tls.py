"""Kind http over TLS: what certificates may be, when they expire, and what goes wrong in the handshake."""

import asyncio
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from http_servers import Conversation, answers, ask, attempt, check, reply, serving

from exporter.check import Failure
from exporter.core.health import Reason
from exporter.net.certificate import CERTIFICATE_EXPIRY, CERTIFICATE_EXPIRY_METRIC, _not_after


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def in_days(days: float) -> datetime:
    return (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)


def server_context(leaf: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


async def test_expiry_is_told_as_a_time_and_in_days(authority: trustme.CA, ca_file: Path) -> None:
    """Of the server's own certificate, with the time of the handshake; the metric's source is among the details."""
    expiry = in_days(20)
    tls = server_context(authority.issue_cert("127.0.0.1", not_after=expiry))
    async with serving(answers(reply("x")), tls=tls) as server:
        seen = await ask(server.url(scheme="https"), tls={"ca_file": str(ca_file)})
    assert seen.reason is None
    assert seen.details[CERTIFICATE_EXPIRY] == expiry.timestamp()
    assert CERTIFICATE_EXPIRY_METRIC.source == CERTIFICATE_EXPIRY
    assert seen.details["certificate_expiry_days"] in (19.9, 20.0)
    assert isinstance(handshake := seen.details["tls_seconds"], float)
    assert 0 < handshake < 5


async def test_expiry_is_told_without_verification_too(authority: trustme.CA) -> None:
    """`verify: false` accepts an expired certificate, and says when it expired."""
    expiry = in_days(-3)
    tls = server_context(authority.issue_cert("127.0.0.1", not_before=in_days(-9), not_after=expiry))
    async with serving(answers(reply("x")), tls=tls) as server:
        seen = await ask(server.url(scheme="https"), tls={"verify": False})
    assert seen.reason is None
    assert seen.details[CERTIFICATE_EXPIRY] == expiry.timestamp()
    assert isinstance(days := seen.details["certificate_expiry_days"], float)
    assert -3.1 <= days <= -3.0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_unknown_authority(authority: trustme.CA, host: str) -> None:
    """`tls`, in OpenSSL's words."""
    tls = server_context(authority.issue_cert(host))
    async with serving(answers(reply("x")), tls=tls) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url(scheme="https", host=host))
    assert failed.value.reason is Reason.TLS
    assert "certificate is not accepted" in failed.value.message


async def test_expired_certificate(authority: trustme.CA, ca_file: Path) -> None:
    """`tls`."""
    tls = server_context(authority.issue_cert("127.0.0.1", not_before=in_days(-9), not_after=in_days(-1)))
    async with serving(answers(reply("x")), tls=tls) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url(scheme="https"), tls={"ca_file": str(ca_file)})
    assert failed.value.reason is Reason.TLS
    assert "certificate has expired" in failed.value.message


async def test_wrong_host_and_the_name_that_mends_it(authority: trustme.CA, ca_file: Path) -> None:
    """`tls`; with `server_name` the certificate of another name is right."""
    tls = server_context(authority.issue_cert("api.example.com"))
    async with serving(answers(reply("x")), tls=tls) as server:
        url = server.url(scheme="https")
        with pytest.raises(Failure) as failed:
            await ask(url, tls={"ca_file": str(ca_file)})
        assert failed.value.reason is Reason.TLS
        assert "127.0.0.1" in failed.value.message
        mended = await ask(url, tls={"ca_file": str(ca_file), "server_name": "api.example.com"})
        assert mended.reason is None


async def test_client_certificate(authority: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    """Wanted by the server: `tls` or a closed connection without, good with it."""
    tls = server_context(authority.issue_cert("127.0.0.1"))
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    client = tmp_path / "client.pem"
    authority.issue_cert("exporter@example.com").private_key_and_cert_chain_pem.write_to_path(client)
    async with serving(answers(reply("x")), tls=tls) as server:
        url = server.url(scheme="https")
        with pytest.raises(Failure) as failed:
            await ask(url, tls={"ca_file": str(ca_file)})
        assert failed.value.reason in (Reason.TLS, Reason.EOF, Reason.RESET)
        seen = await ask(url, tls={"ca_file": str(ca_file), "cert_file": str(client)})
        assert seen.reason is None


async def test_ca_file_that_is_missing(tmp_path: Path) -> None:
    """`tls`, and nothing is connected."""
    async with serving(answers(reply("x"))) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url(scheme="https"), tls={"ca_file": str(tmp_path / "none.pem")})
        assert failed.value.reason is Reason.TLS
        assert server.connections == 0


async def test_https_to_a_server_that_speaks_plainly() -> None:
    """`tls`."""

    async def plain(conversation: Conversation) -> None:
        await conversation.reader.read(1)
        await conversation.send(reply("", "400 Bad Request"))
        await conversation.until_closed()

    async with serving(plain) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url(scheme="https"))
        assert failed.value.reason is Reason.TLS
        await server.all_closed()


async def test_a_handshake_without_end_leaves_nothing_open() -> None:
    """`timeout`, which names the handshake; the connection is closed."""

    async def silent(conversation: Conversation) -> None:
        await conversation.until_closed()

    async with serving(silent) as server:
        api = check(server.url(scheme="https"))
        with pytest.raises(Failure) as failed:
            await attempt(api, timeout=0.3)
        assert failed.value.reason is Reason.TIMEOUT
        assert "in the TLS handshake" in failed.value.message
        await server.all_closed()


async def test_a_close_in_the_handshake_is_no_reset() -> None:
    """`eof`: asyncio calls both ConnectionResetError."""

    async def closes(conversation: Conversation) -> None:
        await conversation.reader.read(65536)

    async with serving(closes) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url(scheme="https"))
    assert failed.value.reason is Reason.EOF
    assert "in the TLS handshake" in failed.value.message


async def test_connection_is_kept_over_tls_and_closed_without_waiting(
    authority: trustme.CA, ca_file: Path
) -> None:
    """One handshake for many probes; leaving does not wait for the other end to say goodbye."""
    tls = server_context(authority.issue_cert("127.0.0.1"))

    async def never_says_goodbye(conversation: Conversation) -> None:
        for _ in range(3):
            await conversation.request()
            await conversation.send(reply("x"))
        await conversation.until_closed()

    async with serving(never_says_goodbye, tls=tls) as server:
        api = check(server.url(scheme="https"), tls={"ca_file": str(ca_file)})
        async with api.connect() as session:
            seen = [await session.probe() for _ in range(3)]
            left = time.perf_counter()
        assert time.perf_counter() - left < 0.2
        assert len({observation.details["tls_seconds"] for observation in seen}) == 1
        await server.all_closed()
        assert server.connections == 1


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_a_body_may_end_with_the_connection_over_tls_too(
    authority: trustme.CA, ca_file: Path, end: str
) -> None:
    """With or without TLS's own goodbye."""
    tls = server_context(authority.issue_cert("127.0.0.1"))

    async def until_eof(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.0 200 OK\r\n\r\nbody")
        await asyncio.sleep(0.02)
        if end == "abort":
            conversation.reset()

    async with serving(until_eof, tls=tls) as server:
        seen = await ask(server.url(scheme="https"), tls={"ca_file": str(ca_file)}, expect={"body": "^body$"})
    assert seen.reason is None


async def test_a_renewed_certificate_is_told_as_soon_as_a_canary_sees_it(
    authority: trustme.CA, ca_file: Path
) -> None:
    """The kept connection is older than the renewal; what it would tell is not true any more."""
    tls = server_context(authority.issue_cert("127.0.0.1", not_after=in_days(2)))
    async with serving(answers(reply("x")), tls=tls) as server:
        api = check(server.url(scheme="https"), tls={"ca_file": str(ca_file)})
        async with api.connect() as session:
            await session.probe()
            renewed = in_days(90)
            authority.issue_cert("127.0.0.1", not_after=renewed).configure_cert(tls)
            await attempt(api)
            assert (await session.probe()).details[CERTIFICATE_EXPIRY] == renewed.timestamp()
            assert server.connections == 2


async def test_of_all_certificates_on_the_way_the_first_to_expire_is_told(
    authority: trustme.CA, ca_file: Path
) -> None:
    """A redirect led to another host, whose certificate ends sooner."""
    soon = in_days(5)
    late_tls = server_context(authority.issue_cert("127.0.0.1", not_after=in_days(50)))
    soon_tls = server_context(authority.issue_cert("127.0.0.1", not_after=soon))
    async with serving(answers(reply("x")), tls=soon_tls) as other:
        redirect = reply("", "302 Found", f"Location: {other.url(scheme='https')}")
        async with serving(answers(redirect), tls=late_tls) as server:
            tls = {"ca_file": str(ca_file)}
            seen = await ask(server.url(scheme="https"), tls=tls, follow_redirects=True)
    assert seen.reason is None
    assert seen.details[CERTIFICATE_EXPIRY] == soon.timestamp()


@pytest.mark.parametrize("mangle", [lambda der: der[:40], lambda der: b"", lambda der: b"\x30\x84\xff" + der])
def test_what_is_no_certificate_is_refused(authority: trustme.CA, mangle: Callable[[bytes], bytes]) -> None:
    """With an error that the caller knows."""
    der = ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode())
    assert _not_after(der) > time.time()
    with pytest.raises((ValueError, IndexError)):
        _not_after(mangle(der))
