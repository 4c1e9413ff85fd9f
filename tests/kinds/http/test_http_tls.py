"""Kind http over TLS: which certificates are accepted, when they expire, and how a handshake fails."""

import asyncio
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net.certificate import CERTIFICATE_EXPIRY, CERTIFICATE_EXPIRY_METRIC
from support.certificates import presenting
from support.http_servers import Conversation, answers, ask, attempt, check, reply, serving


def in_days(days: float) -> datetime:
    return (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)


async def test_expiry_is_reported_as_a_time_and_in_days(authority: trustme.CA, ca_file: Path) -> None:
    """The expiry of the server's own certificate, and the duration of the handshake, are details."""
    expiry = in_days(20)
    tls = presenting(authority.issue_cert("127.0.0.1", not_after=expiry))
    async with serving(answers(reply("x")), tls=tls) as server:
        seen = await ask(server.url(scheme="https"), tls={"ca_file": str(ca_file)})
    assert seen.reason is None
    assert seen.details[CERTIFICATE_EXPIRY] == expiry.timestamp()
    assert CERTIFICATE_EXPIRY_METRIC.source == CERTIFICATE_EXPIRY
    assert seen.details["certificate_expiry_days"] in (19.9, 20.0)
    assert isinstance(handshake := seen.details["tls_seconds"], float)
    assert 0 < handshake < 5
    assert seen.details["tls_version"] == "TLSv1.3"
    assert str(seen.details["tls_cipher"]).startswith("TLS_AES_")
    assert "OU=Testing cert" in str(seen.details["certificate_subject"])


async def test_expiry_is_reported_without_verification(authority: trustme.CA) -> None:
    """`verify: false` accepts an expired certificate and reports when it expired."""
    expiry = in_days(-3)
    tls = presenting(authority.issue_cert("127.0.0.1", not_before=in_days(-9), not_after=expiry))
    async with serving(answers(reply("x")), tls=tls) as server:
        seen = await ask(server.url(scheme="https"), tls={"verify": False})
    assert seen.reason is None
    assert seen.details[CERTIFICATE_EXPIRY] == expiry.timestamp()
    assert isinstance(days := seen.details["certificate_expiry_days"], float)
    assert -3.1 <= days <= -3.0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_unknown_authority_is_tls(authority: trustme.CA, host: str) -> None:
    """The message contains OpenSSL's explanation."""
    tls = presenting(authority.issue_cert(host))
    async with serving(answers(reply("x")), tls=tls) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url(scheme="https", host=host))
    assert failed.value.reason is Reason.TLS
    assert "certificate is not accepted" in failed.value.message


async def test_an_expired_certificate_is_tls(authority: trustme.CA, ca_file: Path) -> None:
    """The attempt fails."""
    tls = presenting(authority.issue_cert("127.0.0.1", not_before=in_days(-9), not_after=in_days(-1)))
    async with serving(answers(reply("x")), tls=tls) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url(scheme="https"), tls={"ca_file": str(ca_file)})
    assert failed.value.reason is Reason.TLS
    assert "certificate has expired" in failed.value.message


async def test_server_name_replaces_the_host_in_verification(authority: trustme.CA, ca_file: Path) -> None:
    """A certificate for another name is `tls`, unless `server_name` is that name."""
    tls = presenting(authority.issue_cert("api.example.com"))
    async with serving(answers(reply("x")), tls=tls) as server:
        url = server.url(scheme="https")
        with pytest.raises(Failure) as failed:
            await ask(url, tls={"ca_file": str(ca_file)})
        assert failed.value.reason is Reason.TLS
        assert "127.0.0.1" in failed.value.message
        trusted = await ask(url, tls={"ca_file": str(ca_file), "server_name": "api.example.com"})
        assert trusted.reason is None


async def test_a_client_certificate_is_sent(authority: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    """Without it, the server refuses the connection."""
    tls = presenting(authority.issue_cert("127.0.0.1"))
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


async def test_a_missing_ca_file_is_tls(tmp_path: Path) -> None:
    """No connection is made."""
    async with serving(answers(reply("x"))) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url(scheme="https"), tls={"ca_file": str(tmp_path / "none.pem")})
        assert failed.value.reason is Reason.TLS
        assert server.connections == 0


async def test_https_to_a_server_without_tls_is_tls() -> None:
    """The attempt fails."""

    async def plain(conversation: Conversation) -> None:
        await conversation.reader.read(1)
        await conversation.send(reply("", "400 Bad Request"))
        await conversation.until_closed()

    async with serving(plain) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url(scheme="https"))
        assert failed.value.reason is Reason.TLS
        await server.all_closed()


async def test_a_handshake_without_end_is_a_timeout() -> None:
    """The message names the handshake, and the connection is closed."""

    async def silent(conversation: Conversation) -> None:
        await conversation.until_closed()

    async with serving(silent) as server:
        api = check(server.url(scheme="https"))
        with pytest.raises(Failure) as failed:
            await attempt(api, timeout=2.0)  # to read all CAs takes a part of it
        assert failed.value.reason is Reason.TIMEOUT
        assert "in the TLS handshake" in failed.value.message
        await server.all_closed()


async def test_a_close_in_the_handshake_is_eof() -> None:
    """Although asyncio raises ConnectionResetError for it."""

    async def closes(conversation: Conversation) -> None:
        await conversation.reader.read(65536)

    async with serving(closes) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url(scheme="https"))
    assert failed.value.reason is Reason.EOF
    assert "in the TLS handshake" in failed.value.message


async def test_a_connection_is_kept_over_tls_and_closed_without_waiting(
    authority: trustme.CA, ca_file: Path
) -> None:
    """One handshake serves many probes, and closing does not wait for the other end."""
    tls = presenting(authority.issue_cert("127.0.0.1"))

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
        assert time.perf_counter() - left < 10, "it waited for the end of TLS, which takes 30 s"
        assert len({observation.details["tls_seconds"] for observation in seen}) == 1
        await server.all_closed()
        assert server.connections == 1


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_a_body_can_end_with_the_connection_over_tls(
    authority: trustme.CA, ca_file: Path, end: str
) -> None:
    """With or without TLS's close_notify."""
    tls = presenting(authority.issue_cert("127.0.0.1"))

    async def until_eof(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.0 200 OK\r\n\r\nbody")
        await asyncio.sleep(0.02)
        if end == "abort":
            conversation.reset()

    async with serving(until_eof, tls=tls) as server:
        seen = await ask(server.url(scheme="https"), tls={"ca_file": str(ca_file)}, expect={"body": "^body$"})
    assert seen.reason is None


async def test_a_renewed_certificate_is_reported_after_the_next_canary(
    authority: trustme.CA, ca_file: Path
) -> None:
    """The kept connection is older than the renewal and knows only the old certificate."""
    tls = presenting(authority.issue_cert("127.0.0.1", not_after=in_days(2)))
    async with serving(answers(reply("x")), tls=tls) as server:
        api = check(server.url(scheme="https"), tls={"ca_file": str(ca_file)})
        async with api.connect() as session:
            await session.probe()
            renewed = in_days(90)
            authority.issue_cert("127.0.0.1", not_after=renewed).configure_cert(tls)
            await attempt(api)
            assert (await session.probe()).details[CERTIFICATE_EXPIRY] == renewed.timestamp()
            assert server.connections == 2


async def test_the_earliest_expiry_of_all_certificates_in_a_chain_of_redirects_is_reported(
    authority: trustme.CA, ca_file: Path
) -> None:
    """A redirect leads to a host whose certificate expires earlier."""
    soon = in_days(5)
    late_tls = presenting(authority.issue_cert("127.0.0.1", not_after=in_days(50)))
    soon_tls = presenting(authority.issue_cert("127.0.0.1", not_after=soon))
    async with serving(answers(reply("x")), tls=soon_tls) as other:
        redirect = reply("", "302 Found", f"Location: {other.url(scheme='https')}")
        async with serving(answers(redirect), tls=late_tls) as server:
            tls = {"ca_file": str(ca_file)}
            seen = await ask(server.url(scheme="https"), tls=tls, follow_redirects=True)
    assert seen.reason is None
    assert seen.details[CERTIFICATE_EXPIRY] == soon.timestamp()


async def test_a_host_header_changes_neither_sni_nor_the_name_that_is_checked(
    authority: trustme.CA, ca_file: Path
) -> None:
    """As with curl; `tls.server_name` changes both."""
    asked: list[str] = []
    tls = presenting(authority.issue_cert("localhost"))
    tls.sni_callback = lambda _sock, name, _context: asked.append(name)
    async with serving(answers(reply("x")), tls=tls) as server:
        url = server.url(scheme="https", host="localhost")
        seen = await ask(url, tls={"ca_file": str(ca_file)}, headers={"host": "b.test"})
        assert b"\r\nHost: b.test\r\n" in server.requests[0]
        url = server.url(scheme="https")
        options = {"ca_file": str(ca_file), "server_name": "localhost"}
        other = await ask(url, tls=options, headers={"Host": "b.test"})
    assert (seen.reason, other.reason) == (None, None)
    assert asked == ["localhost", "localhost"]
