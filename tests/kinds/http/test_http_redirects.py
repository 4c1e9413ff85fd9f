"""Redirects: followed only if configured, up to a limit, and never with credentials to another host."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.http.request import RedirectRefused
from connection_exporter.net.names import to_ascii
from support.http_servers import Conversation, Talk, answers, ask, attempt, check, reply, serving


def routes(table: Mapping[str, bytes]) -> Talk:
    """Send the response that belongs to the path."""

    async def talk(conversation: Conversation) -> None:
        while True:
            path = (await conversation.request()).split(b" ")[1].decode()
            await conversation.send(table.get(path, reply("", "404 Not Found")))

    return talk


def to(location: str, status: str = "302 Found") -> bytes:
    return reply("", status, f"Location: {location}")


async def test_a_redirect_is_not_followed_by_default() -> None:
    """The message contains the destination without its query, which may contain a token."""
    async with serving(routes({"/": to("/login?token=abc#top")})) as server:
        seen = await ask(server.url())
        assert seen.reason is Reason.REDIRECT
        place = server.url("/login")
        assert seen.message == f"status 302 Found, a redirect to {place}, but follow_redirects is off"
        assert len(server.requests) == 1


async def test_an_expected_redirect_is_a_good_answer() -> None:
    """It is not followed."""
    async with serving(routes({"/": to("/login")})) as server:
        seen = await ask(server.url(), follow_redirects=True, expect={"status": [302]})
        assert (seen.reason, seen.details["status_code"], seen.details["redirects"]) == (None, 302, 0)


async def test_redirects_on_the_same_host_use_the_kept_connection() -> None:
    """The last response counts."""
    table = {"/": to("a"), "/a": to("/b/?x=1"), "/b/?x=1": to("../c"), "/c": reply("here", "200 OK")}
    async with serving(routes(table)) as server:
        api = check(server.url(), follow_redirects=True, bearer_token="t0ken", expect={"body": "here"})
        async with api.connect() as session:
            for fresh in (True, False):
                seen = await session.probe()
                assert (seen.reason, seen.details["redirects"], seen.fresh) == (None, 3, fresh)
        assert server.connections == 1
        assert all(b"Authorization: Bearer t0ken" in request for request in server.requests)


async def test_a_loop_is_reported() -> None:
    """As soon as a request would be repeated."""
    async with serving(routes({"/": to("/a"), "/a": to("/")})) as server:
        seen = await ask(server.url(), follow_redirects=True)
        assert seen.reason is Reason.REDIRECT
        assert seen.message.endswith(f"{server.url('/')}: a loop")
        assert len(server.requests) == 2


async def test_a_chain_ends_at_its_limit() -> None:
    """Exactly `max_redirects` redirects are followed."""
    table = {f"/{n}": to(f"/{n + 1}") for n in range(10)}
    async with serving(routes({**table, "/3": reply("x")})) as server:
        assert (await ask(server.url("/0"), follow_redirects=True, max_redirects=3)).reason is None
    async with serving(routes(table)) as server:
        seen = await ask(server.url("/0"), follow_redirects=True, max_redirects=3)
        assert seen.reason is Reason.REDIRECT
        assert "more than 3 redirects" in seen.message
        assert len(server.requests) == 4


async def test_another_host_gets_no_credentials_and_none_of_our_headers() -> None:
    """Nor does the next host: any header may contain a secret."""
    async with (
        serving(routes({"/ok": reply("x")})) as last,
        serving(routes({"/there": to(last.url("/ok"))})) as other,
        serving(routes({"/": to(other.url("/there"))})) as first,
    ):
        seen = await ask(
            first.url(), follow_redirects=True, user="u", password="secret", headers={"X-Api-Key": "key"}
        )
        assert (seen.reason, seen.details["redirects"]) == (None, 2)
        assert b"Authorization: Basic" in first.requests[0]
        assert b"X-Api-Key: key" in first.requests[0]
        assert len(other.requests) == len(last.requests) == 1
        for request in (*other.requests, *last.requests):
            assert b"uthorization" not in request
            assert b"X-Api-Key" not in request
            assert b"User-Agent: connection-exporter/" in request


async def test_credentials_are_not_sent_after_a_detour_through_another_host() -> None:
    """After another host, the chain is not trusted, even if it returns to the configured one."""
    table: dict[str, bytes] = {}
    at_home: dict[str, bytes] = {"/mine": reply("x")}
    async with serving(routes(table)) as other, serving(routes(at_home)) as home:
        at_home["/"] = to(other.url("/"))
        table["/"] = to(home.url("/mine"))
        seen = await ask(home.url(), follow_redirects=True, bearer_token="t0ken")
        assert (seen.reason, seen.details["redirects"]) == (None, 2)
        assert b"t0ken" in home.requests[0]
        assert b"t0ken" not in home.requests[1]


@pytest.mark.parametrize(
    ("status", "method", "arrives"),
    [
        ("301 Moved Permanently", "POST", b"GET /b "),
        ("302 Found", "POST", b"GET /b "),
        ("303 See Other", "PUT", b"GET /b "),
        ("307 Temporary Redirect", "POST", b"POST /b "),
        ("308 Permanent Redirect", "POST", b"POST /b "),
        ("302 Found", "HEAD", b"HEAD /b "),
    ],
)
async def test_method_and_body_depend_on_the_status(status: str, method: str, arrives: bytes) -> None:
    """RFC 9110, section 15.4."""
    keys = {} if method == "HEAD" else {"body": "hello"}
    async with serving(routes({"/": to("/b", status), "/b": reply("")})) as server:
        assert (await ask(server.url(), method=method, follow_redirects=True, **keys)).reason is None
        assert server.requests[1].startswith(arrives)
        assert server.requests[1].endswith(b"hello") is (b"POST" in arrives)


async def test_another_host_does_not_get_the_body() -> None:
    """A redirect that would send it is refused."""
    async with serving(answers(reply("x"))) as other:
        async with serving(routes({"/": to(other.url("/"), "307 Temporary Redirect")})) as server:
            seen = await ask(server.url(), method="POST", body="hello", follow_redirects=True)
        assert seen.reason is Reason.REDIRECT
        assert "must not get the body" in seen.message
        assert not other.requests


@pytest.mark.parametrize(
    "location", ["ftp://h/x", "javascript:alert(1)", "http://[::1", "http://", "//", "http://h:99999/"]
)
async def test_a_redirect_to_an_unusable_location_is_a_bad_answer(location: str) -> None:
    """The reason is `redirect`."""
    async with serving(routes({"/": to(location)})) as server:
        seen = await ask(server.url(), follow_redirects=True)
        assert seen.reason is Reason.REDIRECT
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (b"/stra\xc3\x9fe", b"/stra%C3%9Fe"),
        (b"/stra\xdfe?q=\xdf", b"/stra%DFe?q=%DF"),
        (b"/a%2fb%2F%7e~", b"/a%2fb%2F%7e~"),
        (b"/a b?c d", b"/a%20b?c%20d"),
        (b"/a#top", b"/a"),
        (b"/a?b#top?c", b"/a?b"),
        (b"/a?", b"/a?"),
        (b"/a??b=?", b"/a??b=?"),
        (b"?x=1", b"/dir/start?x=1"),
        (b"?", b"/dir/start?"),
        (b"next", b"/dir/next"),
        (b"./next", b"/dir/next"),
        (b"../next", b"/next"),
        (b"../../../next", b"/next"),
        (b"/a/./b/../c/", b"/a/c/"),
        (b"a/..", b"/dir/"),
        (b"//HOST/a", b"/a"),
        (b"HTTP://HOST/a?b", b"/a?b"),
        (b"http://HOST", b"/"),
        (b"http://HOST?x", b"/?x"),
        (b"  /a  ", b"/a"),
    ],
)
async def test_the_bytes_of_a_location_are_kept(location: bytes, path: bytes) -> None:
    """References are resolved as in RFC 3986; percent escapes stay, and other bytes are escaped one by one."""

    async def redirects(conversation: Conversation) -> None:
        while True:
            here = f"127.0.0.1:{conversation.server.port}".encode()
            first = (await conversation.request()).startswith(b"GET /dir/start?old ")
            head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location.replace(b"HOST", here)
            await conversation.send(head + b"\r\n\r\n" if first else reply("x"))

    async with serving(redirects) as server:
        assert (await ask(server.url("/dir/start?old"), follow_redirects=True)).reason is None
        assert server.requests[1].split(b" ")[1] == path


async def test_the_first_of_several_locations_is_followed() -> None:
    """As by curl and Go."""
    table = {"/": reply("", "302 Found", "Location: /a", "Location: /b"), "/a": reply("x")}
    async with serving(routes(table)) as server:
        assert (await ask(server.url(), follow_redirects=True)).reason is None


async def test_a_redirect_without_a_location_is_judged_by_its_status() -> None:
    """There is no destination."""
    async with serving(answers(reply("", "302 Found"))) as server:
        seen = await ask(server.url(), follow_redirects=True)
    assert (seen.reason, seen.message) == (Reason.EXPECT, "status 302 Found, expected 2xx")


async def test_a_redirect_to_a_host_that_is_down_fails_the_attempt() -> None:
    """The message names the host that failed."""
    async with serving(answers(reply("x"))) as gone:
        pass
    async with serving(routes({"/": to(gone.url("/"))})) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url(), follow_redirects=True)
    assert failed.value.reason is Reason.REFUSED
    assert failed.value.message.startswith(f"127.0.0.1:{gone.port}: ")


async def test_connections_to_other_hosts_do_not_accumulate() -> None:
    """Each probe is redirected to another host; only the connections of the last probe are kept."""
    async with serving(answers(reply("x"))) as one, serving(answers(reply("x"))) as two:
        start = answers(to(one.url("/")), to(two.url("/")), to(two.url("/")))
        async with serving(start) as server:
            async with check(server.url(), follow_redirects=True).connect() as session:
                for _ in range(3):
                    assert (await session.probe()).reason is None
                await one.all_closed()
                assert (one.connections, two.connections, server.connections) == (1, 1, 1)
            await two.all_closed()
            await server.all_closed()


async def test_redirects_are_not_remembered() -> None:
    """Each attempt starts at the configured URL."""
    async with serving(routes({"/": to("/a"), "/a": reply("x")})) as server:
        api = check(server.url(), follow_redirects=True)
        for _ in range(2):
            assert (await attempt(api)).details["redirects"] == 1
        assert len(server.requests) == 4


async def test_a_redirect_does_not_lead_to_a_unix_socket(tmp_path: Path) -> None:
    """In the config, a host may be a socket. A server must not choose one: behind it may be Docker."""
    path = tmp_path / "docker.sock"
    async with serving(answers(reply("containers")), path=path) as docker:
        for host in (str(path), str(path).upper()):
            async with serving(routes({"/": to(f"http://{quote(host, safe='')}/info")})) as server:
                seen = await ask(server.url(), follow_redirects=True)
            assert seen.reason is Reason.REDIRECT
            assert seen.message == "status 302 Found, a redirect to a Unix socket, which no server may choose"
        assert docker.connections == 0


def test_redirects_to_ever_new_sockets_fill_no_memory() -> None:
    """The ASCII forms of hosts are kept, but not of those that are refused: each may have 8 KB."""
    requests = check("http://api.test/").requests
    kept = to_ascii.cache_info().currsize
    for number in range(5):
        with pytest.raises(RedirectRefused, match="Unix socket"):
            requests.redirected(requests.first, status=302, location=f"http://%2Frun%2F{number}/")
    assert to_ascii.cache_info().currsize == kept


async def test_a_service_behind_a_unix_socket_may_redirect_to_itself(tmp_path: Path) -> None:
    """It calls itself localhost, as the Host header does."""
    path = tmp_path / "api.sock"
    table = {"/": to("http://localhost/a"), "/a": to("b"), "/b": reply("here")}
    async with serving(routes(table), path=path) as server:
        api = check(host=str(path), follow_redirects=True, expect={"body": "here"})
        seen = await attempt(api)
        assert (seen.reason, seen.details["redirects"], len(server.requests)) == (None, 2, 3)
