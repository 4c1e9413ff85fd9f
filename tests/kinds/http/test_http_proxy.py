"""Kind http through a proxy: a tunnel for https, whole URLs for http, and who gets which credentials."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from support.certificates import presenting
from support.http_proxy import http_proxy
from support.http_servers import Conversation, answers, ask, check, reply, serving


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    return presenting(authority.issue_cert("localhost"))


async def test_https_runs_through_one_tunnel_that_is_kept(tls: ssl.SSLContext, ca_file: Path) -> None:
    """The proxy sees the host and port only; the service sees no login of the proxy."""
    async with http_proxy("me:word") as proxy, serving(answers(reply("x")), tls=tls) as server:
        checked = check(
            server.url("/secret", scheme="https", host="localhost"),
            tls={"ca_file": str(ca_file)},
            bearer_token="sesame",
            proxy={"url": proxy.url, "user": "me", "password": "word"},
        )
        async with checked.connect() as session:
            seen = [await session.probe() for _ in range(3)]
        assert [observation.reason for observation in seen] == [None] * 3
        assert [observation.fresh for observation in seen] == [True, False, False]
        assert seen[0].details["proxy"] == proxy.address
        assert seen[0].details["tls_seconds"]
        (head,) = proxy.heads
        assert (server.connections, len(server.requests)) == (1, 3)
    assert head.startswith(f"CONNECT localhost:{server.port} HTTP/1.1\r\n")
    assert "secret" not in head
    assert "sesame" not in head
    assert b"Authorization: Bearer sesame\r\n" in server.requests[0]
    assert b"Proxy-Authorization" not in server.requests[0]


async def test_http_sends_the_whole_url_to_the_proxy() -> None:
    """Over one kept connection, with the login of the proxy and that of the service."""
    async with http_proxy("me:word") as proxy, serving(answers(reply("x"))) as server:
        checked = check(
            server.url("/a?b=c"),
            method="POST",
            body="hello",
            user="you",
            password="other",
            proxy=f"http://me:word@{proxy.address}",
        )
        async with checked.connect() as session:
            seen = [await session.probe() for _ in range(2)]
        assert [observation.reason for observation in seen] == [None, None]
        assert [observation.details["reused_connection"] for observation in seen] == [False, True]
        assert proxy.heads[0].startswith(f"POST {server.url('/a?b=c')} HTTP/1.1\r\nHost: 127.0.0.1:")
        assert server.requests[0].startswith(b"POST /a?b=c HTTP/1.1\r\n")
        assert server.requests[0].endswith(b"\r\n\r\nhello")
        assert b"Authorization: Basic eW91Om90aGVy\r\n" in server.requests[0]


@pytest.mark.parametrize("location", ["{plain}/there", "{secure}/there"])
async def test_a_redirect_leads_through_the_proxy_too(
    location: str, tls: ssl.SSLContext, ca_file: Path
) -> None:
    """To another host as well, and without our credentials."""
    async with (
        http_proxy("me:word") as proxy,
        serving(answers(reply("x"))) as plain,
        serving(answers(reply("x")), tls=tls) as secure,
    ):
        places = {
            "plain": plain.url("", host="localhost"),
            "secure": secure.url("", scheme="https", host="localhost"),
        }
        leads = answers(reply("", "302 Found", f"Location: {location.format(**places)}"))
        async with serving(leads, tls=tls) as first:
            seen = await ask(
                first.url(scheme="https", host="localhost"),
                tls={"ca_file": str(ca_file)},
                follow_redirects=True,
                headers={"X-Key": "sesame"},
                proxy=f"http://me:word@{proxy.address}",
            )
        assert (seen.reason, seen.details["redirects"]) == (None, 1)
        assert b"sesame" not in (plain.requests + secure.requests)[0]
        assert len(proxy.heads) == 2


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_missing_login_is_reported_as_the_proxys(scheme: str) -> None:
    """With the same reason for both forms."""
    async with http_proxy("me:word") as proxy, serving(answers(reply("x"))) as server:
        try:
            seen = await ask(server.url(scheme=scheme), proxy=proxy.url)
            reason, message = seen.reason, seen.message
        except Failure as failure:
            reason, message = failure.reason, failure.message
        assert server.requests == []
    assert reason is Reason.AUTH
    assert message.startswith(f"proxy {proxy.address} ")
    assert "407 Proxy Authentication Required" in message


async def test_a_407_of_the_service_behind_a_tunnel_is_not_the_proxys(
    tls: ssl.SSLContext, ca_file: Path
) -> None:
    """It is an answer of the service."""
    refuses = answers(reply("", "407 Proxy Authentication Required"))
    async with http_proxy() as proxy, serving(refuses, tls=tls) as server:
        url = server.url(scheme="https", host="localhost")
        seen = await ask(url, tls={"ca_file": str(ca_file)}, proxy=proxy.url)
    assert seen.reason is Reason.AUTH
    assert not seen.message.startswith("proxy")


async def test_proxies_in_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A monitor probes what its config says."""
    async with http_proxy() as proxy, serving(answers(reply("x"))) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert (await ask(server.url())).reason is None
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert proxy.heads == []
        assert (await ask(server.url(), proxy=proxy.url)).reason is None
        assert len(proxy.heads) == 1


async def test_a_proxy_may_have_tls_of_its_own(authority: trustme.CA, ca_file: Path) -> None:
    """For a tunnel, with TLS inside of TLS, and for a whole URL; only the certificate of the service is reported."""
    body = b"x" * 60_000
    soon, other = datetime.now(UTC) + timedelta(days=3), trustme.CA()
    inside = presenting(authority.issue_cert("localhost", not_after=soon))
    outside = presenting(other.issue_cert("127.0.0.1"))
    with other.cert_pem.tempfile() as proxy_ca:
        async with (
            http_proxy("me:word", tls=outside) as proxy,
            serving(answers(reply(body)), tls=inside) as secure,
            serving(answers(reply(body))) as plain,
        ):
            way = {"url": f"https://me:word@{proxy.address}", "tls": {"ca_file": proxy_ca}}
            checked = check(
                secure.url(scheme="https", host="localhost"), tls={"ca_file": str(ca_file)}, proxy=way
            )
            async with checked.connect() as session:
                seen = [await session.probe() for _ in range(3)]
            assert [observation.reason for observation in seen] == [None] * 3
            assert seen[0].details["certificate_expiry_days"] in (2.9, 3.0)
            assert (proxy.heads[0].split()[0], len(proxy.heads), secure.connections) == ("CONNECT", 1, 1)
            seen.append(await ask(plain.url(), proxy=way))
            assert seen[-1].reason is None
            assert "certificate_expiry_days" not in seen[-1].details
            assert [observation.details["body_bytes"] for observation in seen] == [60_000] * 4
            with pytest.raises(Failure) as raised:
                await ask(plain.url(), proxy=f"https://{proxy.address}")
    assert raised.value.reason is Reason.TLS
    assert raised.value.message.startswith(f"proxy {proxy.address}: the certificate is not accepted")


async def test_a_message_about_the_connection_names_service_and_proxy() -> None:
    """Either of them may have closed it."""

    async def close(conversation: Conversation) -> None:
        await conversation.reader.read(1)

    async with http_proxy() as proxy, serving(close) as server:
        with pytest.raises(Failure) as raised:
            await ask(server.url(scheme="https"), proxy=proxy.url)
    assert raised.value.message.startswith(f"127.0.0.1:{server.port} (through proxy {proxy.address})")
