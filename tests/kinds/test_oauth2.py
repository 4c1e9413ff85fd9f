"""Access tokens of real token endpoints: how they are asked for, kept and renewed, and what hostile endpoints cost."""

import asyncio
import json
from pathlib import Path

import pytest
import trustme
from connection_exporter.config.oauth2 import OAuth2Config
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.oauth2 import TokenSource
from connection_exporter.monitor.attempt import waited_for
from connection_exporter.net import Network, Proxy
from support.attempts import outcome
from support.certificates import presenting
from support.hostile import assert_iterations_are_short, flooding
from support.http_proxy import http_proxy
from support.http_servers import Conversation, answers, reply, serving
from support.token_server import SteppedClock, TokenServer, token_server


def source(
    config: dict[str, object], clock: SteppedClock | None = None, proxy: Proxy | None = None
) -> TokenSource:
    return TokenSource(OAuth2Config.model_validate(config), Network(), proxy, clock)


async def refusal(config: dict[str, object], *, seconds: float = 5) -> Failure:
    """Return why there is no token, as an attempt would report it."""
    failure = await outcome(source(config).authorization(), timeout=seconds)
    assert isinstance(failure, Failure), "there is a token"
    return failure


async def test_a_token_is_kept_until_shortly_before_it_expires() -> None:
    """Renewed a minute before, and shared by all who ask meanwhile."""
    clock = SteppedClock()
    async with token_server() as tokens:
        mine = source(
            tokens.config(scopes=["read", "write"], endpoint_params={"audience": "https://a b"}), clock
        )
        first = await asyncio.gather(*(mine.authorization() for _ in range(5)))
        assert set(first) == {"Bearer t0ken-number-1-of-the-test"}
        clock.now += 3539
        assert await mine.authorization() == first[0]
        clock.now += 2
        assert await mine.authorization() == "Bearer t0ken-number-2-of-the-test"
        assert tokens.forms[0] == {
            "grant_type": ["client_credentials"],
            "scope": ["read write"],
            "audience": ["https://a b"],
        }


@pytest.mark.parametrize(
    ("expires_in", "kept_for"),
    [
        (10, 8.9),
        ("300", 269),
        (1.5, 1.3),
        (None, 1e9),
        (0, 1e9),
        (-5, 1e9),
        ("soon", 1e9),
        ([], 1e9),
        (1e308, 3e8),
    ],
)
async def test_any_lifetime_is_understood(expires_in: object, kept_for: float) -> None:
    """A short one is renewed after nine tenths of it; without one, a token is kept until it is refused."""
    clock = SteppedClock()
    async with token_server(expires_in=expires_in) as tokens:
        mine = source(tokens.config(), clock)
        await mine.authorization()
        clock.now += kept_for
        await mine.authorization()
        assert tokens.issued == 1
        clock.now += 0.2 * kept_for
        await mine.authorization()
        assert tokens.issued == (1 if kept_for == 1e9 else 2)


async def test_a_changed_secret_asks_for_a_new_token(tmp_path: Path) -> None:
    """So a wrong one shows at once, and not when the token expires."""
    file = tmp_path / "secret"
    file.write_text("sesame-open-42\n")
    async with token_server() as tokens:
        mine = source(tokens.config(client_secret=None, client_secret_file=file))
        await mine.authorization()
        file.write_text("wrong\n")
        with pytest.raises(Failure) as raised:
            await mine.authorization()
        assert raised.value.reason is Reason.AUTH
        file.write_text("sesame-open-42\n")
        assert await mine.authorization()


async def test_a_refused_token_is_replaced_unless_it_was_new() -> None:
    """A new token that is refused would only be followed by one like it."""
    async with token_server() as tokens:
        mine = source(tokens.config())
        first = await mine.authorization()
        assert not mine.refused(first)
        second = await mine.authorization()
        await mine.authorization()
        assert mine.refused(second)
        third = await mine.authorization()
        assert len({first, second, third}) == 3
        assert mine.refused(second)  # in an attempt that began before: the third one stays
        assert await mine.authorization() == third


@pytest.mark.parametrize("accepts", ["header", "body"])
async def test_the_secret_is_sent_where_the_endpoint_accepts_it(accepts: str) -> None:
    """In the header first. What works once is what is done from then on."""
    secret = "100% s3cret:+&/"
    async with token_server(accepts=(accepts,), secret=secret, client_id="me:@home") as tokens:
        mine = source(tokens.config())
        mine.refused(await mine.authorization())
        await mine.authorization()
        requests = len(tokens.forms)
    assert (tokens.issued, requests) == (2, 2 if accepts == "header" else 3)


@pytest.mark.parametrize(
    ("token_type", "begins"),
    [("bearer", "Bearer "), ("BEARER", "Bearer "), (None, "Bearer "), ("MAC", "MAC ")],
)
async def test_the_type_of_a_token_is_its_scheme(token_type: object, begins: str) -> None:
    """Servers write `bearer` in every case, or leave it out."""
    async with token_server(token_type=token_type) as tokens:
        assert (await source(tokens.config()).authorization()).startswith(begins)


async def test_tls_has_options_of_its_own_and_a_proxy_is_used(authority: trustme.CA, ca_file: Path) -> None:
    """Through a tunnel for https, and with the whole URL for http."""
    tls = presenting(authority.issue_cert("localhost"))
    tokens = TokenServer()

    async def login() -> str:
        return "Basic bWU6d29yZA=="

    async with (
        http_proxy("me:word") as proxy,
        serving(tokens.talk, tls=tls) as secure,
        serving(tokens.talk) as plain,
    ):
        way = Proxy("127.0.0.1", proxy.port, login)
        url = secure.url("/token?a=b", scheme="https", host="localhost")
        given = tokens.config(token_url=url, tls={"ca_file": str(ca_file)})
        assert await source(given, proxy=way).authorization()
        assert await source(given).authorization()
        assert await source(tokens.config(token_url=plain.url("/token")), proxy=way).authorization()
        assert secure.requests[0].startswith(b"POST /token?a=b HTTP/1.1\r\n")
        assert [head.split("\r\n")[0] for head in proxy.heads] == [
            f"CONNECT localhost:{secure.port} HTTP/1.1",
            f"POST {plain.url('/token')} HTTP/1.1",
        ]
        failure = await refusal(tokens.config(token_url=url))
    assert failure.reason is Reason.TLS
    assert failure.message.startswith(
        f"token endpoint localhost:{secure.port}: the certificate is not accepted"
    )


@pytest.mark.parametrize(
    ("response", "reason", "message"),
    [
        (reply('{"error": "invalid_client"}', "400 Bad Request"), Reason.AUTH, "status 400, invalid_client"),
        (
            reply('{"error": "invalid_client", "error_description": "unknown"}', "401 Unauthorized"),
            Reason.AUTH,
            "status 401, invalid_client: unknown",
        ),
        (reply("<html>", "403 Forbidden"), Reason.AUTH, "status 403"),
        (reply('{"error": "bad_verification_code"}'), Reason.AUTH, "status 200, bad_verification_code"),
        (reply("", "404 Not Found"), Reason.PROTOCOL, "status 404, and no access_token"),
        (reply("", "500 Oops"), Reason.PROTOCOL, "status 500, and no access_token"),
        (reply("", "302 Found", "Location: /login"), Reason.PROTOCOL, "status 302, and no access_token"),
        (reply("ok"), Reason.PROTOCOL, "status 200, and no access_token"),
        (reply("[" * 60_000), Reason.PROTOCOL, "status 200, and no access_token"),
        (reply('["access_token"]'), Reason.PROTOCOL, "and no access_token"),
        (reply('{"access_token": ' + "9" * 5000 + "}"), Reason.PROTOCOL, "no access_token"),
        (reply('{"access_token": 5}'), Reason.PROTOCOL, "access_token is not a token"),
        (reply('{"access_token": "a\\r\\nX: b"}'), Reason.PROTOCOL, "access_token is not a token"),
        (reply('{"access_token": "' + "x" * 20_000 + '"}'), Reason.PROTOCOL, "access_token is not a token"),
        (reply('{"access_token": "x", "token_type": "a b"}'), Reason.PROTOCOL, "token_type is not"),
        (reply(b"\xff\xfe"), Reason.PROTOCOL, "and no access_token"),
        (reply("x" * 70_000), Reason.TOO_LARGE, "longer than 64 KiB"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Reason.PROTOCOL, "does not speak HTTP"),
        (b"", Reason.EOF, "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{", Reason.EOF, "in the middle of the response"),
    ],
)
async def test_a_response_without_a_token_is_a_failure_that_names_the_endpoint(
    response: bytes, reason: Reason, message: str
) -> None:
    """`auth` where the endpoint refuses our credentials, and otherwise what went wrong."""

    async def respond(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(response)

    async with serving(respond) as server:
        failure = await refusal(TokenServer(server=server).config())
    assert failure.reason is reason
    assert failure.message.startswith(f"token endpoint 127.0.0.1:{server.port}")
    assert message in failure.message


async def test_a_response_in_unusual_framing_is_understood() -> None:
    """Interim responses, chunks, and the end of the connection as the end of the body."""
    body = b'{"access_token": "x"}'
    for response in (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        + b"0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n" + body,
        b"HTTP/1.1 200 OK\nX : y\n z\nContent-Length: %d\n\n" % len(body) + body,
    ):

        async def respond(conversation: Conversation, response: bytes = response) -> None:
            await conversation.request()
            await conversation.send(response)

        async with serving(respond) as server:
            assert await source(TokenServer(server=server).config()).authorization() == "Bearer x"


async def test_an_endpoint_that_cannot_be_reached_or_is_silent_is_named() -> None:
    """For the one that asks, and for those who wait for it."""

    async def be_silent(conversation: Conversation) -> None:
        await conversation.until_closed()

    async with serving(be_silent) as server:
        given = TokenServer(server=server).config()
        silent = await refusal(given, seconds=0.5)
        mine = source(given)
        first = asyncio.create_task(mine.authorization())
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError) as raised:
            async with asyncio.timeout(0.2):
                await mine.authorization()
        waiting = waited_for(raised.value)
        first.cancel()
        await asyncio.wait({first})
    assert waiting is not None
    for failure, what in ((silent, "does not respond to the request"), (waiting, "does not answer in time")):
        assert failure.reason is Reason.TIMEOUT
        assert failure.message == f"token endpoint 127.0.0.1:{server.port} {what}"
    refused = await refusal(given)
    assert (refused.reason, refused.message) == (
        Reason.REFUSED,
        f"token endpoint 127.0.0.1:{server.port}: connection refused",
    )
    unknown = await refusal({**given, "token_url": "https://login.invalid/"})
    assert unknown.reason is Reason.DNS
    assert unknown.message.startswith("token endpoint login.invalid does not resolve")


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"a:\r\n" * 60_000),
        (b"", b"HTTP/1.1 100 \r\n\r\n" * 15_000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 40_000),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 2**20),
    ],
)
async def test_a_flood_costs_no_iteration_more_than_10_ms(head: bytes, piece: bytes) -> None:
    """And ends at the limit."""
    with flooding(head, piece) as port:
        given = TokenServer().config(token_url=f"http://127.0.0.1:{port}/")
        await refusal(given)  # the first one also loads modules

        async def attack() -> None:
            assert (await refusal(given)).reason is Reason.TOO_LARGE

        await assert_iterations_are_short(attack)


@pytest.mark.parametrize(
    "document",
    [
        '{"access_token": "x", "a": [' + "0," * 32_000 + "0]}",
        json.dumps({"access_token": "x", "a": {str(i): i for i in range(4500)}}),
    ],
)
async def test_costly_json_costs_no_iteration_more_than_10_ms(document: str) -> None:
    """Up to the limit, it is parsed at once."""
    async with serving(answers(reply(document[:65_000]))) as server:
        given = TokenServer(server=server).config()

        async def attack() -> None:
            await asyncio.gather(source(given).authorization(), return_exceptions=True)

        await attack()
        await assert_iterations_are_short(attack)
