"""Kind http over real sockets: the kept connection, the requests, and what is reported."""

import asyncio
import base64
from pathlib import Path

import pytest
from connection_exporter import __version__
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from support.http_servers import Conversation, answers, ask, attempt, check, reply, serving


async def test_a_good_response_is_reported_with_its_phases() -> None:
    """Every phase is measured; over plain HTTP there is neither a TLS phase nor a certificate."""
    async with serving(answers(reply("hello"))) as server:
        seen = await ask(server.url())
    assert (seen.reason, seen.message, seen.fresh) == (None, "", True)
    details = dict(seen.details)
    for phase in ("resolve", "connect", "processing", "transfer"):
        seconds = details.pop(f"{phase}_seconds")
        assert isinstance(seconds, float)
        assert 0 <= seconds < 5
    assert details == {
        "status_code": 200,
        "http_version": "1.1",
        "body_bytes": 5,
        "redirects": 0,
        "reused_connection": False,
    }


async def test_phases_distinguish_slow_processing_from_slow_transfer() -> None:
    """The time until the first byte is processing; the time from there to the last byte is transfer."""

    async def slow(conversation: Conversation) -> None:
        await conversation.request()
        await asyncio.sleep(0.15)
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh")
        await asyncio.sleep(0.05)
        await conversation.send(b"i")

    async with serving(slow) as server:
        details = (await ask(server.url())).details
    assert isinstance(processing := details["processing_seconds"], float)
    assert isinstance(transfer := details["transfer_seconds"], float)
    assert processing >= 0.14
    assert 0.04 <= transfer < processing


async def test_one_connection_serves_many_probes() -> None:
    """The connection is kept; only the first probe counts as a canary."""
    async with serving(answers(reply("x"))) as server, check(server.url()).connect() as session:
        seen = [await session.probe() for _ in range(5)]
        assert server.connections == 1
    assert [observation.fresh for observation in seen] == [True, False, False, False, False]
    assert [observation.details["reused_connection"] for observation in seen] == [
        False,
        True,
        True,
        True,
        True,
    ]


async def test_a_kept_connection_that_the_server_closes_while_idle_is_not_a_loss() -> None:
    """The next probe makes a new connection, says so, and is good; `lost` is never completed."""

    async def once(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(reply("x"))

    async with serving(once) as server, check(server.url()).connect() as session:
        assert (await session.probe()).fresh
        await server.all_closed()
        await asyncio.sleep(0.01)
        assert not session.lost.done()
        again = await session.probe()
        assert (again.reason, again.fresh) == (None, True)
        assert server.connections == 2


@pytest.mark.parametrize("end", ["closed", "reset"])
async def test_a_request_that_fails_on_a_reused_connection_is_repeated_once(end: str) -> None:
    """The server closes when the request arrives: only the repetition, over a new connection, counts."""

    async def dies_on_the_second(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(reply("x"))
        await conversation.request()
        if conversation.number > 1:
            await conversation.send(reply("y"))
        elif end == "reset":
            conversation.reset()

    async with serving(dies_on_the_second) as server, check(server.url()).connect() as session:
        await session.probe()
        again = await session.probe()
        assert (again.reason, again.fresh) == (None, True)
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_request_is_not_repeated_twice() -> None:
    """A server that closes on the second request, and also on a new connection, has not responded."""

    async def answers_only_once(conversation: Conversation) -> None:
        await conversation.request()
        if conversation.number == 1:
            await conversation.send(reply("x"))
            await conversation.request()

    async with serving(answers_only_once) as server, check(server.url()).connect() as session:
        await session.probe()
        with pytest.raises(Failure) as failed:
            await session.probe()
        assert failed.value.reason is Reason.EOF
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_response_that_ends_half_way_on_a_reused_connection_is_not_repeated() -> None:
    """A response counts from its first byte."""

    async def half(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(reply("x"))
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    async with serving(half) as server, check(server.url()).connect() as session:
        await session.probe()
        with pytest.raises(Failure) as failed:
            await session.probe()
        assert failed.value.reason is Reason.EOF
        assert "middle of the response" in failed.value.message
        assert server.connections == 1


async def test_a_request_on_a_new_connection_is_not_repeated() -> None:
    """If the server closes without a response, the attempt fails."""

    async def closes(conversation: Conversation) -> None:
        await conversation.request()

    async with serving(closes) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url())
        assert failed.value.reason is Reason.EOF
        assert "closed the connection without a response" in failed.value.message
        assert server.connections == 1


async def test_an_unsolicited_response_ends_the_kept_connection() -> None:
    """An early 408 on an idle connection is not taken for the response to the next request."""

    async def talks_in_between(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(reply("x"))
        if conversation.number == 1:
            await asyncio.sleep(0.02)
            await conversation.send(reply("too slow", "408 Request Timeout"))
        await conversation.until_closed()

    async with serving(talks_in_between) as server, check(server.url()).connect() as session:
        await session.probe()
        await server.all_closed()
        assert (await session.probe()).details["status_code"] == 200
        assert server.connections == 2


async def test_a_canary_uses_a_second_connection() -> None:
    """One check can have two connections at a time, and closing one does not affect the other."""
    async with serving(answers(reply("x"))) as server:
        api = check(server.url())
        async with api.connect() as session:
            await session.probe()
            assert (await attempt(api)).fresh
            assert not (await session.probe()).fresh
            assert server.connections == 2
        await server.all_closed()


async def test_a_session_knows_its_peer() -> None:
    """Peer and addresses belong to the configured name."""
    async with (
        serving(answers(reply("x"))) as server,
        check(server.url(host="localhost")).connect() as session,
    ):
        assert session.peer == "127.0.0.1"
        assert "127.0.0.1" in session.addresses


async def test_a_request_contains_what_is_configured_and_our_user_agent() -> None:
    """Method, path with query, headers and body arrive; compression is declined."""
    async with serving(answers(reply("x"))) as server:
        await ask(
            server.url("/a b?q=1&r=ü"),
            method="POST",
            body='{"ping": 1}',
            headers={"X-Key": "k", "Accept": "a/b"},
        )
        request = server.requests[0]
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /a%20b?q=1&r=%C3%BC HTTP/1.1"
    headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines[1:])}
    assert headers == {
        b"host": f"127.0.0.1:{server.port}".encode(),
        b"user-agent": f"connection-exporter/{__version__}".encode(),
        b"accept": b"a/b",
        b"accept-encoding": b"identity",
        b"x-key": b"k",
        b"content-length": b"11",
    }
    assert body == b'{"ping": 1}'


@pytest.mark.parametrize("header", ["Content-Length: 5000", "Transfer-Encoding: chunked", "X-None: 1"])
async def test_a_response_to_head_has_no_body_whatever_its_headers_say(header: str) -> None:
    """The connection is kept."""
    head = reply("", "200 OK", header, length=False)
    async with (
        serving(answers(head)) as server,
        check(server.url(), method="HEAD").connect() as session,
    ):
        for _ in range(3):
            assert (await session.probe()).reason is None
        assert server.connections == 1


async def test_a_body_in_a_response_to_head_ends_the_connection() -> None:
    """The rest of the body would be taken for the next response."""
    async with (
        serving(answers(reply("a body", "200 OK"))) as server,
        check(server.url(), method="HEAD").connect() as session,
    ):
        for _ in range(3):
            assert (await session.probe()).reason is None
        assert server.connections == 3


async def test_basic_credentials_come_from_keys_or_from_the_url() -> None:
    """A password can contain any character."""
    wanted = b"Authorization: Basic " + base64.b64encode("bot:pä:ss".encode())
    async with serving(answers(reply("x"))) as server:
        await ask(server.url(), user="bot", password="pä:ss")
        await ask(f"http://bot:p%C3%A4%3Ass@127.0.0.1:{server.port}/")
        assert all(wanted in request.split(b"\r\n") for request in server.requests)


async def test_a_rotated_token_file_is_used_by_the_next_request(tmp_path: Path) -> None:
    """The connection is kept. A missing or unusable file is `auth`, and the message does not show its content."""
    token = tmp_path / "token"
    token.write_text("first\n")
    async with (
        serving(answers(reply("x"))) as server,
        check(server.url(), bearer_token_file=str(token)).connect() as session,
    ):
        await session.probe()
        fresh = tmp_path / "fresh"
        fresh.write_text("second\n")
        fresh.replace(token)
        await session.probe()
        sent = [line for r in server.requests for line in r.split(b"\r\n") if line.startswith(b"Auth")]
        assert sent == [b"Authorization: Bearer first", b"Authorization: Bearer second"]
        assert server.connections == 1
        token.unlink()
        with pytest.raises(Failure) as failed:
            await session.probe()
        assert failed.value.reason is Reason.AUTH
        token.write_text("a\r\nX-Evil: b")
        with pytest.raises(Failure) as failed:
            await session.probe()
        assert failed.value.reason is Reason.AUTH
        assert "Evil" not in failed.value.message


async def test_a_unix_socket_works_like_a_host(tmp_path: Path) -> None:
    """`host` can be the path of the socket."""
    path = tmp_path / "api.sock"
    async with serving(answers(reply("x")), path=path) as server:
        api = check(host=str(path), path="/info")
        assert api.address == str(path)
        seen = await attempt(api)
        assert seen.reason is None
        assert server.requests[0].startswith(b"GET /info HTTP/1.1\r\nHost: localhost\r\n")


async def test_no_request_is_sent_if_the_token_cannot_be_read(tmp_path: Path) -> None:
    """The attempt fails with `auth`."""
    async with serving(answers(reply("x"))) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url(), bearer_token_file=str(tmp_path / "none"))
        assert failed.value.reason is Reason.AUTH
        assert (server.connections, server.requests) == (1, [])


async def test_a_port_where_nobody_listens_is_refused() -> None:
    """The message contains the address, and not the path."""
    async with serving(answers(reply("x"))) as server:
        port = server.port
    with pytest.raises(Failure) as failed:
        await ask(f"http://127.0.0.1:{port}/secret-path?key=1")
    assert failed.value.reason is Reason.REFUSED
    assert failed.value.message == f"127.0.0.1:{port}: connection refused"


async def test_a_name_that_does_not_resolve_is_dns() -> None:
    """The attempt fails before it connects."""
    with pytest.raises(Failure) as failed:
        await ask("http://nowhere.invalid/")
    assert failed.value.reason is Reason.DNS


async def test_a_timeout_leaves_no_connection_open() -> None:
    """The monitor cancels the request, and the server sees the connection close."""

    async def silent(conversation: Conversation) -> None:
        await conversation.until_closed()

    async with serving(silent) as server:
        with pytest.raises(Failure) as failed:
            await attempt(check(server.url()), timeout=0.1)
        assert failed.value.reason is Reason.TIMEOUT
        assert "does not respond to the request" in failed.value.message
        await server.all_closed()
        assert server.connections == 1


async def test_a_late_response_is_not_taken_for_the_next_one() -> None:
    """A cancelled probe closes its connection."""

    async def late(conversation: Conversation) -> None:
        await conversation.request()
        if conversation.number == 1:
            await asyncio.sleep(0.1)
        await conversation.send(reply("x", "500 Late" if conversation.number == 1 else "200 OK"))
        await conversation.until_closed()

    async with serving(late) as server, check(server.url()).connect() as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await session.probe()
        again = await session.probe()
        assert (again.details["status_code"], again.fresh) == (200, True)
