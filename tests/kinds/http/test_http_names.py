"""Kind http and names: what the server sees of a host that is not ASCII, and where a redirect to one leads."""

from pathlib import Path

import pytest
import trustme
from connection_exporter.core.health import Reason
from support.certificates import issue, presenting, server_context
from support.http_proxy import http_proxy
from support.http_servers import answers, ask, config, reply, serving

LOCALHOST = "ｌｏｃａｌｈｏｓｔ"
"""Browsers and curl make localhost of it, so that it resolves without a resolver of our own."""


async def test_a_request_has_the_ascii_form_in_its_host_header() -> None:
    """The label and messages have what the user wrote."""
    assert config(url="http://straße.test:81/").address == "straße.test:81"
    async with serving(answers(reply("x"))) as server:
        assert (await ask(server.url(host=LOCALHOST))).reason is None
    assert f"\r\nHost: localhost:{server.port}\r\n".encode() in server.requests[0]


async def test_tls_has_the_ascii_form_in_sni_and_in_the_check_of_the_certificate(
    authority: trustme.CA, ca_file: Path
) -> None:
    """A dot at the end of `server_name` is not sent either."""
    asked: list[str] = []
    context = presenting(authority.issue_cert("localhost"))
    context.sni_callback = lambda _sock, name, _context: asked.append(name)
    async with serving(answers(reply("x")), tls=context) as server:
        for host, tls in (
            (LOCALHOST, {"ca_file": str(ca_file)}),
            ("127.0.0.1", {"ca_file": str(ca_file), "server_name": f"{LOCALHOST}."}),
        ):
            assert (await ask(server.url(scheme="https", host=host), tls=tls)).reason is None
    assert asked == ["localhost", "localhost"]


@pytest.mark.parametrize(
    ("written", "sent", "checked"),
    [
        ("api.corp.test.", "api.corp.test.", "api.corp.test"),
        ("straße.test", "xn--strae-oqa.test", "xn--strae-oqa.test"),
        ("☕.test.", "xn--53h.test.", "xn--53h.test"),
    ],
)
async def test_each_place_gets_the_form_that_it_needs(
    tmp_path: Path, written: str, sent: str, checked: str
) -> None:
    """What looks a name up gets its dot at the end, and so does the header Host; SNI and certificates have none."""
    asked: list[str] = []
    own = issue(checked)  # trustme knows no emoji
    context = server_context(tmp_path, own)
    context.sni_callback = lambda _sock, name, _context: asked.append(name)
    async with http_proxy() as proxy, serving(answers(reply("x")), tls=context) as server:
        proxy.hosts[sent] = "127.0.0.1"
        tls = {"ca_file": str(own.write(tmp_path / "ca.pem"))}
        seen = await ask(server.url(scheme="https", host=written), tls=tls, proxy=proxy.url)
    assert seen.reason is None
    assert proxy.heads[0].startswith(f"CONNECT {sent}:{server.port} HTTP/1.1\r\n")
    assert asked == [checked]
    assert f"\r\nHost: {sent}:{server.port}\r\n".encode() in server.requests[0]


@pytest.mark.parametrize("escaped", [False, True])
async def test_a_redirect_may_lead_to_a_name_that_is_not_ascii(escaped: bool) -> None:
    """As raw UTF-8, or percent-encoded."""
    host = "".join(f"%{byte:02x}" for byte in LOCALHOST.encode()) if escaped else LOCALHOST
    async with serving(answers(reply("x"))) as other:
        redirect = reply("", "302 Found", f"Location: {other.url(host=host)}")
        async with serving(answers(redirect)) as server:
            seen = await ask(server.url(), follow_redirects=True)
    assert (seen.reason, seen.details["redirects"]) == (None, 1)
    assert f"\r\nHost: localhost:{other.port}\r\n".encode() in other.requests[0]


@pytest.mark.parametrize("host", ["a%2eb%2fc", "evil.test%00", "a＠b", "℀.test", "[::1"])
async def test_a_redirect_to_what_is_no_host_is_not_followed(host: str) -> None:
    """A mapped or escaped delimiter must not lead anywhere."""
    redirect = reply("", "302 Found", f"Location: http://{host}/")
    async with serving(answers(redirect)) as server:
        seen = await ask(server.url(), follow_redirects=True)
    assert seen.reason is Reason.REDIRECT
    assert "not a URL" in seen.message
