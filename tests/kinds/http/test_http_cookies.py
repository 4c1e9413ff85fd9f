"""Cookies are kept along one chain of redirects, and for no other request."""

import time

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kinds.http.cookies import COUNT_LIMIT, SIZE_LIMIT, Cookies
from support.http_servers import Conversation, Server, Talk, ask, check, reply, serving


def redirect(location: str, *cookies: str) -> bytes:
    return reply("", "302 Found", f"Location: {location}", *(f"Set-Cookie: {cookie}" for cookie in cookies))


def routes(table: dict[str, bytes]) -> Talk:
    async def talk(conversation: Conversation) -> None:
        while True:
            path = (await conversation.request()).split(b" ")[1].decode()
            await conversation.send(table[path])

    return talk


def cookies_of(server: Server) -> list[str]:
    """Return the Cookie header of each request."""
    heads = [request.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n") for request in server.requests]
    return ["|".join(line for line in head if line.lower().startswith("cookie:")) for head in heads]


async def test_a_cookie_is_sent_along_the_chain() -> None:
    """As to a login page; the next probe begins without it."""
    table = {"/": redirect("/in", "sid=1; Path=/; HttpOnly", "lang=de"), "/in": reply("welcome", "200 OK")}
    async with serving(routes(table)) as server:
        api = check(server.url(), follow_redirects=True, expect={"body": "welcome"})
        async with api.connect() as session:
            for _ in range(2):
                assert (await session.probe()).reason is None
        assert cookies_of(server) == ["", "Cookie: sid=1; lang=de"] * 2


async def test_a_redirect_to_the_same_url_with_a_new_cookie_is_no_loop() -> None:
    """Some servers find out in this way whether a client keeps cookies."""

    async def wants_a_cookie(conversation: Conversation) -> None:
        while True:
            has_it = b"Cookie: seen=1" in await conversation.request()
            await conversation.send(reply("in", "200 OK") if has_it else redirect("/", "seen=1"))

    async with serving(wants_a_cookie) as server:
        seen = await ask(server.url(), follow_redirects=True, expect={"body": "^in$"})
        assert (seen.reason, seen.details["redirects"]) == (None, 1)


async def test_the_same_cookie_again_is_a_loop() -> None:
    """And a cookie that changes each time ends at `max_redirects`."""
    async with serving(routes({"/": redirect("/", "a=1")})) as server:
        seen = await ask(server.url(), follow_redirects=True)
        assert (seen.reason, seen.message.endswith(": a loop")) == (Reason.REDIRECT, True)
        assert len(server.requests) == 2

    async def counts(conversation: Conversation) -> None:
        for number in range(100):
            await conversation.request()
            await conversation.send(redirect("/", f"a={number}"))

    async with serving(counts) as server:
        seen = await ask(server.url(), follow_redirects=True, max_redirects=3)
        assert "more than 3 redirects" in seen.message


async def test_configured_cookies_and_those_of_the_chain_are_one_header() -> None:
    """RFC 6265, section 5.4."""
    table = {"/": redirect("/in", "sid=1"), "/in": reply("x")}
    async with serving(routes(table)) as server:
        assert (await ask(server.url(), follow_redirects=True, headers={"Cookie": "mine=1"})).reason is None
        assert cookies_of(server) == ["Cookie: mine=1", "Cookie: mine=1; sid=1"]


async def test_another_host_gets_no_cookie() -> None:
    """Neither ours nor the first host's, whatever the Domain attribute says."""
    home: dict[str, bytes] = {}
    async with serving(routes({"/": reply("x")})) as other, serving(routes(home)) as first:
        there = other.url("/", host="localhost")
        home["/"] = redirect(there, "sid=1; Path=/", "wide=1; Domain=localhost", "wider=1; Domain=0.0.1")
        seen = await ask(first.url(), follow_redirects=True, headers={"Cookie": "mine=1"})
        assert (seen.reason, seen.details["redirects"]) == (None, 1)
        assert cookies_of(other) == [""]


@pytest.mark.parametrize(
    ("cookie", "first", "second", "sent"),
    [
        ("a=1", "https://example.com/x/y", "https://example.com/x/z", b"a=1"),
        ("a=1", "https://example.com/x/y", "https://example.com/other", b""),
        ("a=1; Path=/", "https://example.com/x/y", "https://example.com/other", b"a=1"),
        ("a=1; Secure; Path=/", "https://example.com/", "http://example.com/", b""),
        ("a=1; Path=/", "https://example.com/", "http://example.com/", b"a=1"),
        ("a=1; Path=/", "https://example.com/", "https://www.example.com/", b""),
        ("a=1; Domain=example.com; Path=/", "https://www.example.com/", "https://api.example.com/", b"a=1"),
        ("a=1; Domain=api.example.com; Path=/", "https://example.com/", "https://api.example.com/", b""),
        ("a=1; Domain=com; Path=/", "https://example.com/", "https://other.com/", b""),
        ("a=1; Domain=co.uk; Path=/", "https://example.co.uk/", "https://other.co.uk/", b""),
        ("a=1; Path=/", "http://127.0.0.1:81/", "http://127.0.0.1:82/", b"a=1"),
        ("a=1; Path=/", "http://[::1]:81/", "http://[::1]:81/x", b"a=1"),
        ("a=1; Max-Age=0", "http://example.com/", "http://example.com/", b""),
        ("a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "http://example.com/", "http://example.com/", b""),
        ("a=\xe9", "http://example.com/", "http://example.com/", b"a=\xe9"),
    ],
)
def test_domain_path_and_security_limit_a_cookie(cookie: str, first: str, second: str, sent: bytes) -> None:
    """RFC 6265; a top-level domain is no domain for cookies."""
    cookies = Cookies()
    cookies.take(first, [cookie.encode("latin-1")])
    assert cookies.value_for(second) == sent


def test_what_exceeds_the_limits_is_ignored() -> None:
    """In number and in size, for all responses of the chain together."""
    many = Cookies()
    for start in (0, 40):
        many.take("http://example.com/", [b"c%d=1" % number for number in range(start, start + 40)])
    assert len(many.value_for("http://example.com/").split(b"; ")) == COUNT_LIMIT
    large = Cookies()
    large.take("http://example.com/", [b"a=1", b"b=" + b"x" * SIZE_LIMIT, b"c=1"])
    assert large.value_for("http://example.com/") == b"a=1"


@pytest.mark.parametrize(
    "cookie",
    [
        "a=b; " + "c=d; " * 700,
        "a=b;" + ";" * 3900,
        "a=b; expires=" + "1 " * 2000,
        "a=b; path=" + "%" * 4000,
        "=;" * 2000,
    ],
)
def test_the_worst_cookies_take_less_than_10_ms(cookie: str) -> None:
    """Of CPU, at the first, second or third attempt: the machine may be busy."""
    spent = []
    for _ in range(3):
        cookies = Cookies()
        start = time.thread_time()
        cookies.take("http://example.com/", [cookie.encode()] * COUNT_LIMIT)
        cookies.value_for("http://example.com/")
        spent.append(time.thread_time() - start)
    assert min(spent) < 0.01
