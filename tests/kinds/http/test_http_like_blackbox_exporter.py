"""What blackbox_exporter's prober for HTTP is tested with: the same servers give the same verdict here.

The cases are those of its behavior that the two have in common, with the module's keys translated as in the docs.
"""

import gzip
import zlib
from importlib import import_module
from typing import Any

import pytest
from connection_exporter.core.health import Reason
from support.http_servers import Conversation, Talk, answers, ask, reply, serving

brotli: Any = import_module("brotli")

BAD_NEWS = "Bad news: could not connect to database server"
DOWNLOAD = "Download the latest version here"


async def reason_for(response: bytes, **keys: object) -> Reason | None:
    async with serving(answers(response)) as server:
        return (await ask(server.url(), **keys)).reason


@pytest.mark.parametrize(
    ("status", "valid", "good"),
    [
        *[
            (200, [], True),
            (201, [], True),
            (299, [], True),
            (300, [], False),
            (404, [], False),
            (500, [], False),
        ],
        *[(200, [200], True), (201, [200], False), (404, [404], True), (200, [404], False)],
        *[(200, [200, 404], True), (404, [200, 404], True), (201, [200, 404], False)],
        *[(302, [302], True), (999, [999], True), (401, [401], True)],
    ],
)
async def test_valid_status_codes(status: int, valid: list[int], good: bool) -> None:
    """Without any, 2xx is good."""
    expect = {"status": valid} if valid else {}
    assert (await reason_for(reply("", f"{status} X"), expect=expect) is None) is good


@pytest.mark.parametrize(
    ("body", "patterns", "good"),
    [
        (BAD_NEWS, ["could not connect to database"], False),
        (DOWNLOAD, ["could not connect to database"], True),
        ("internal error", ["could not connect to database", "internal error"], False),
        ("hello world", ["could not connect to database", "internal error"], True),
        ("", ["."], True),
        ("x" * 60_000 + "\nfailed\n", ["(?m)^failed$"], False),
    ],
)
async def test_fail_if_body_matches_regexp(body: str, patterns: list[str], good: bool) -> None:
    """`not_body`."""
    assert (await reason_for(reply(body), expect={"not_body": patterns}) is None) is good


@pytest.mark.parametrize(
    ("body", "patterns", "good"),
    [
        (BAD_NEWS, [DOWNLOAD], False),
        (DOWNLOAD, [DOWNLOAD], True),
        ("internal error", ["Download the latest version", "Copyright 2015"], False),
        ("Download the latest version here", ["Download the latest version", "Copyright 2015"], False),
        (
            "Download the latest version here. Copyright 2015",
            ["Download the latest version", "Copyright 2015"],
            True,
        ),
    ],
)
async def test_fail_if_body_not_matches_regexp(body: str, patterns: list[str], good: bool) -> None:
    """`body`, all of whose patterns must match."""
    assert (await reason_for(reply(body), expect={"body": patterns}) is None) is good


@pytest.mark.parametrize(
    ("headers", "condition", "good"),
    [
        (["Content-Type: text/javascript"], {"Content-Type": {"not": "text/javascript"}}, False),
        (["Content-Type: application/octet-stream"], {"Content-Type": {"not": "text/javascript"}}, True),
        ([], {"Content-Type": {"not": "text/javascript"}}, True),
        ([], {"Content-Type": {"matches": ".", "not": "text/javascript"}}, False),
        (
            ["Set-Cookie: a=1", "Set-Cookie: zz; Domain=.example.com"],
            {"Set-Cookie": {"not": ".*Domain=\\.example\\.com.*"}},
            False,
        ),
        (
            ["Set-Cookie: a=1", "Set-Cookie: b=2"],
            {"Set-Cookie": {"not": ".*Domain=\\.example\\.com.*"}},
            True,
        ),
        (["Content-Type: text/javascript"], {"Content-Type": "text/javascript"}, True),
        (["Content-Type: application/octet-stream"], {"Content-Type": "text/javascript"}, False),
        ([], {"Content-Type": "text/javascript"}, False),
        ([], {"Content-Type": {"not": "x"}}, True),
        (
            ["Set-Cookie: zz4; Domain=.example.com", "Set-Cookie: zz5"],
            {"Set-Cookie": "zz4; Domain=.example.com"},
            True,
        ),
        (["Set-Cookie: zz4", "Set-Cookie: zz5"], {"Set-Cookie": "^zz5$"}, True),
        (["content-TYPE: text/javascript"], {"Content-Type": "^text/javascript$"}, True),
    ],
)
async def test_fail_if_header_matches(headers: list[str], condition: dict[str, object], good: bool) -> None:
    """And `fail_if_header_not_matches`: a pattern, and `not`."""
    assert (await reason_for(reply("", "200 OK", *headers), expect={"headers": condition}) is None) is good


@pytest.mark.parametrize(
    ("json", "good"),
    [
        ({"foo.bar": "baz"}, True),
        ({"foo.bar": {"!=": "baz"}}, False),
        ({"foo.list": {"length": 3}, "foo.list[0]": 1}, True),
        ({"foo.missing": "x"}, False),
        ({"foo.missing": {"exists": False}}, True),
    ],
)
async def test_fail_if_body_json_matches_cel(json: dict[str, object], good: bool) -> None:
    """`json`: the comparisons that people write in CEL."""
    body = '{"foo": {"bar": "baz", "list": [1, 2, 3]}}'
    assert (await reason_for(reply(body), expect={"json": json}) is None) is good
    assert await reason_for(reply("not json"), expect={"json": json}) is Reason.EXPECT


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(BAD_NEWS.encode())),
        ("deflate", zlib.compress(BAD_NEWS.encode(), wbits=-15)),
        ("br", brotli.compress(BAD_NEWS.encode())),
        ("identity", BAD_NEWS.encode()),
    ],
)
async def test_compression(coding: str, body: bytes) -> None:
    """No option is needed: patterns apply to the decompressed body, however it is framed."""
    pieces = b"".join(b"%x\r\n%b\r\n" % (1, bytes([byte])) for byte in body) + b"0\r\n\r\n"
    chunked = (
        f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        + pieces
    )
    for response in (reply(body, "200 OK", f"Content-Encoding: {coding}"), chunked):
        assert await reason_for(response, expect={"body": "^Bad news"}) is None
        assert await reason_for(response, expect={"not_body": "database"}) is Reason.EXPECT


@pytest.mark.parametrize(
    ("size", "limit", "reason"),
    [
        (1_000, "1000B", None),
        (1_001, "1000B", Reason.TOO_LARGE),
        (0, "1000B", None),
        (70_000, "64KiB", Reason.TOO_LARGE),
    ],
)
@pytest.mark.parametrize("framing", ["length", "chunked", "until EOF", "gzip"])
async def test_body_size_limit(size: int, limit: str, reason: Reason | None, framing: str) -> None:
    """It applies to the decompressed body."""
    body = b"x" * size
    response = {
        "length": reply(body),
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + (b"%x\r\n%b\r\n" % (size, body) if size else b"")
        + b"0\r\n\r\n",
        "until EOF": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body,
        "gzip": reply(gzip.compress(body), "200 OK", "Content-Encoding: gzip"),
    }[framing]

    async def once(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(response)

    async with serving(once) as server:
        seen = await ask(server.url(), body_limit=limit, expect={"body": "^x*$"})
    assert seen.reason is reason


def redirecting(count: int, status: str = "302 Found") -> Talk:
    """Redirect ``count`` times, and then answer."""

    async def talk(conversation: Conversation) -> None:
        while True:
            number = int((await conversation.request()).split(b" ")[1].lstrip(b"/") or b"0")
            location = f"Location: /{number + 1}"
            await conversation.send(reply("", status, location) if number < count else reply("end"))

    return talk


@pytest.mark.parametrize(
    ("count", "keys", "good"),
    [
        (1, {"follow_redirects": True}, True),
        (1, {}, False),
        (1, {"expect": {"status": 302}}, True),
        (10, {"follow_redirects": True, "max_redirects": 10}, True),
        (11, {"follow_redirects": True, "max_redirects": 10}, False),
    ],
)
async def test_redirects(count: int, keys: dict[str, object], good: bool) -> None:
    """Followed only if configured, and up to a limit."""
    async with serving(redirecting(count)) as server:
        assert ((await ask(server.url(), **keys)).reason is None) is good


async def test_the_cookie_of_a_redirect_is_required_by_its_target() -> None:
    """As by blackbox_exporter's cookie jar."""

    async def login(conversation: Conversation) -> None:
        while True:
            request = await conversation.request()
            cookie = b"Cookie: session=abc" in request
            first = reply("", "302 Found", "Location: /there", "Set-Cookie: session=abc; Path=/")
            await conversation.send(
                first if request.startswith(b"GET / ") else reply("", "200 OK" if cookie else "401 X")
            )

    async with serving(login) as server:
        assert (await ask(server.url(), follow_redirects=True)).reason is None


async def test_method_body_and_headers() -> None:
    """Of the request, Host and a user agent of one's own included."""
    async with serving(answers(reply("x"))) as server:
        keys = {"method": "POST", "body": "Test Body", "user": "u", "password": "p"}
        headers = {
            "Host": "my-secret-vhost.com",
            "User-Agent": "unsuspicious user",
            "Accept-Language": "en-US",
        }
        assert (await ask(server.url(), headers=headers, **keys)).reason is None
        (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert (lines[0], body) == (b"POST / HTTP/1.1", b"Test Body")
    for line in (
        b"Host: my-secret-vhost.com",
        b"User-Agent: unsuspicious user",
        b"Accept-Language: en-US",
        b"Authorization: Basic dTpw",
    ):
        assert lines.count(line) == 1


@pytest.mark.parametrize(
    ("response", "version"),
    [(b"HTTP/1.0 200 OK\r\n\r\n", "1.0"), (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "1.1")],
)
async def test_valid_http_versions(response: bytes, version: str) -> None:
    """The version is a detail."""

    async def once(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(response)

    async with serving(once) as server:
        assert (await ask(server.url())).details["http_version"] == version
