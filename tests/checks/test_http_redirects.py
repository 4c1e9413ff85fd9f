"""Redirects: not followed unless asked to, never without end, and never with credentials to another host."""

from collections.abc import Mapping

import pytest
from http_servers import Conversation, Talk, answers, ask, attempt, check, reply, serving

from exporter.check import Failure
from exporter.core.health import Reason


def routes(table: Mapping[str, bytes]) -> Talk:
    """Answer by path."""

    async def talk(conversation: Conversation) -> None:
        while True:
            path = (await conversation.request()).split(b" ")[1].decode()
            await conversation.send(table.get(path, reply("", "404 Not Found")))

    return talk


def to(location: str, status: str = "302 Found") -> bytes:
    return reply("", status, f"Location: {location}")


async def test_a_redirect_is_not_followed_unless_asked_to() -> None:
    """`redirect`, with where it leads but for its query, which may hold a token."""
    async with serving(routes({"/": to("/login?token=abc#top")})) as server:
        seen = await ask(server.url())
        assert seen.reason is Reason.REDIRECT
        place = server.url("/login")
        assert seen.message == f"status 302 Found, leading to {place}; follow_redirects is off"
        assert len(server.requests) == 1


async def test_a_redirect_that_is_expected_is_a_good_answer() -> None:
    """And not followed either."""
    async with serving(routes({"/": to("/login")})) as server:
        seen = await ask(server.url(), follow_redirects=True, expect={"status": [302]})
        assert (seen.reason, seen.details["status_code"], seen.details["redirects"]) == (None, 302, 0)


async def test_redirects_on_the_same_host_use_the_kept_connection() -> None:
    """The answer at the end is the one that counts."""
    table = {"/": to("a"), "/a": to("/b/?x=1"), "/b/?x=1": to("../c"), "/c": reply("here", "200 OK")}
    async with serving(routes(table)) as server:
        api = check(server.url(), follow_redirects=True, bearer_token="t0ken", expect={"body": "here"})
        async with api.connect() as session:
            for fresh in (True, False):
                seen = await session.probe()
                assert (seen.reason, seen.details["redirects"], seen.fresh) == (None, 3, fresh)
        assert server.connections == 1
        assert all(b"Authorization: Bearer t0ken" in request for request in server.requests)


async def test_a_loop_is_told() -> None:
    """`redirect`, as soon as it closes."""
    async with serving(routes({"/": to("/a"), "/a": to("/")})) as server:
        seen = await ask(server.url(), follow_redirects=True)
        assert seen.reason is Reason.REDIRECT
        assert seen.message.endswith(f"{server.url('/')}: a loop")
        assert len(server.requests) == 2


async def test_a_chain_ends_at_its_limit() -> None:
    """`max_redirects` are followed, and not one more."""
    table = {f"/{n}": to(f"/{n + 1}") for n in range(10)}
    async with serving(routes({**table, "/3": reply("x")})) as server:
        assert (await ask(server.url("/0"), follow_redirects=True, max_redirects=3)).reason is None
    async with serving(routes(table)) as server:
        seen = await ask(server.url("/0"), follow_redirects=True, max_redirects=3)
        assert seen.reason is Reason.REDIRECT
        assert "more than 3 redirects" in seen.message
        assert len(server.requests) == 4


async def test_another_host_gets_no_credentials_and_none_of_our_headers() -> None:
    """Nor does the host after it; a secret may be in any of them."""
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


async def test_credentials_do_not_return_by_way_of_another_host() -> None:
    """Once a chain has left, it is not trusted any more, not even back at home."""
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
async def test_method_and_body_follow_the_rules_of_the_status(
    status: str, method: str, arrives: bytes
) -> None:
    """RFC 9110, section 15.4."""
    keys = {} if method == "HEAD" else {"body": "hello"}
    async with serving(routes({"/": to("/b", status), "/b": reply("")})) as server:
        assert (await ask(server.url(), method=method, follow_redirects=True, **keys)).reason is None
        assert server.requests[1].startswith(arrives)
        assert server.requests[1].endswith(b"hello") is (b"POST" in arrives)


async def test_another_host_does_not_get_the_body() -> None:
    """A redirect that asks for it is refused."""
    async with serving(answers(reply("x"))) as other:
        async with serving(routes({"/": to(other.url("/"), "307 Temporary Redirect")})) as server:
            seen = await ask(server.url(), method="POST", body="hello", follow_redirects=True)
        assert seen.reason is Reason.REDIRECT
        assert "is not to get the body" in seen.message
        assert not other.requests


@pytest.mark.parametrize(
    "location", ["ftp://h/x", "javascript:alert(1)", "http://[::1", "http://", "//", "http://h:99999/"]
)
async def test_a_redirect_to_nowhere_is_a_bad_answer(location: str) -> None:
    """`redirect`, whatever was sent."""
    async with serving(routes({"/": to(location)})) as server:
        seen = await ask(server.url(), follow_redirects=True)
        assert seen.reason is Reason.REDIRECT
        assert len(server.requests) == 1


async def test_a_redirect_without_a_location_is_judged_by_its_status() -> None:
    """There is nowhere to go."""
    async with serving(answers(reply("", "302 Found"))) as server:
        seen = await ask(server.url(), follow_redirects=True)
    assert (seen.reason, seen.message) == (Reason.EXPECT, "status 302 Found, expected 2xx")


async def test_a_redirect_to_a_host_that_is_down_is_no_answer() -> None:
    """The message names the host that failed."""
    async with serving(answers(reply("x"))) as gone:
        pass
    async with serving(routes({"/": to(gone.url("/"))})) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url(), follow_redirects=True)
    assert failed.value.reason is Reason.REFUSED
    assert failed.value.message.startswith(f"127.0.0.1:{gone.port}: ")


async def test_connections_to_other_hosts_do_not_pile_up() -> None:
    """Each probe is led somewhere else; only what the last one used is kept."""
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


async def test_each_attempt_makes_the_journey_anew() -> None:
    """A redirect is not remembered."""
    async with serving(routes({"/": to("/a"), "/a": reply("x")})) as server:
        api = check(server.url(), follow_redirects=True)
        for _ in range(2):
            assert (await attempt(api)).details["redirects"] == 1
        assert len(server.requests) == 4
