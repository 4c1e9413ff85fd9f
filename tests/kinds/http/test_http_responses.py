"""Every framing of a response, and the ways in which servers get it wrong."""

import asyncio
import tracemalloc

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from support.http_servers import Conversation, Talk, answers, ask, attempt, check, reply, serving


def raw(data: bytes) -> Talk:
    """Send these bytes and close."""

    async def talk(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(data)

    return talk


@pytest.mark.parametrize(
    ("data", "version", "length"),
    [
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", "1.0", 13, id="HTTP/1.0 until EOF"),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "1.0", 2, id="HTTP/1.0 with a length"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", "1.1", 13, id="until EOF"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3;x=y\r\nyes\r\n0\r\nT: 1\r\n\r\n",
            "1.1",
            5,
            id="chunked with a trailer",
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", "1.1", 0, id="204"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "1.1", 0, id="empty"),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "1.1",
            2,
            id="interim answers",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 Never asked\r\n\r\n",
            "1.1",
            2,
            id="followed by something",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\0\1\2", "1.1", 2, id="followed by garbage"
        ),
    ],
)
async def test_every_framing_is_read(data: bytes, version: str, length: int) -> None:
    """A response is complete where its framing says so; what follows it does not matter."""
    async with serving(raw(data)) as server, check(server.url()).connect() as session:
        for _ in range(2):
            seen = await session.probe()
            assert seen.reason is None
            assert (seen.details["http_version"], seen.details["body_bytes"]) == (version, length)


@pytest.mark.parametrize("split", [1, 2, 7])
async def test_a_response_can_arrive_in_any_pieces(split: int) -> None:
    """Single bytes included."""
    data = b"HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"

    async def pieces(conversation: Conversation) -> None:
        await conversation.request()
        for at in range(0, len(data), split):
            await conversation.send(data[at : at + split])
            await asyncio.sleep(0)

    async with serving(pieces) as server:
        assert (await ask(server.url(), expect={"body": "^ok$", "headers": {"x": "y"}})).reason is None


@pytest.mark.parametrize("header", ["Connection: close", "Connection: Close, foo"])
async def test_a_server_without_keep_alive_gets_a_new_connection_each_time(header: str) -> None:
    """Every probe is good, and counts as a canary."""

    async def keeps_none(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(reply("x", "200 OK", header))
        await conversation.until_closed()

    async with serving(keeps_none) as server, check(server.url()).connect() as session:
        seen = [await session.probe() for _ in range(3)]
        assert [(o.reason, o.fresh) for o in seen] == [(None, True)] * 3
        await server.all_closed()
        assert server.connections == 3


@pytest.mark.parametrize(
    ("data", "reason", "part"),
    [
        (b"", Reason.EOF, "closed the connection without a response"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", Reason.EOF, "in the middle of the response, after 27 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", Reason.EOF, "in the middle of the response"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            Reason.EOF,
            "in the middle of the response",
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Reason.EOF, "in the middle of the response"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Reason.PROTOCOL, "does not speak HTTP: it sent b'SSH-2.0-OpenSSH_9.6"),
        (b"\x15\x03\x03\0\2\2\x46", Reason.PROTOCOL, "it speaks TLS, so the url must begin with https://"),
        (b"HTTP/1.1 OK\r\n\r\n", Reason.PROTOCOL, "violates HTTP: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Reason.PROTOCOL, "violates HTTP: "),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            Reason.PROTOCOL,
            "violates HTTP: ",
        ),
        (
            b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\r\n\r\n3\nabc\n",
            Reason.PROTOCOL,
            "violates HTTP: a chunk size ends with a bare LF; the response is irregular: bare LF line ends",
        ),
    ],
)
async def test_an_invalid_response_is_a_failure(data: bytes, reason: Reason, part: str) -> None:
    """The message says what was received instead."""
    async with serving(raw(data)) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url())
        assert failed.value.reason is reason
        assert failed.value.message.startswith(f"127.0.0.1:{server.port}")
        assert part in failed.value.message


@pytest.mark.parametrize("after", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_a_reset_is_distinguished_from_a_clean_end(after: bytes) -> None:
    """With or without a part of the response."""

    async def resets(conversation: Conversation) -> None:
        await conversation.request()
        if after:
            await conversation.send(after)
            await asyncio.sleep(0.02)
        sock = conversation.writer.get_extra_info("socket")
        sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of 0: RST
        conversation.reset()

    async with serving(resets) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url())
        assert failed.value.reason is Reason.RESET


async def test_a_server_that_accepts_and_closes_fails_the_attempt() -> None:
    """With `eof` or `reset`, as the kernel reports it."""

    async def closes(conversation: Conversation) -> None:
        conversation.writer.close()

    async with serving(closes) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url())
        assert failed.value.reason in (Reason.EOF, Reason.RESET)


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", "a part of the headers arrived"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", "bytes of the body arrived"),
    ],
)
async def test_a_slow_trickle_does_not_extend_the_deadline(head: bytes, part: str) -> None:
    """The attempt ends in time, the message says how much arrived, and the connection is closed."""

    async def trickles(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(head)
        while True:
            await conversation.send(b"a")
            await asyncio.sleep(0.02)

    async with serving(trickles) as server:
        with pytest.raises(Failure) as failed:
            await attempt(check(server.url()), timeout=0.2)
        assert failed.value.reason is Reason.TIMEOUT
        assert part in failed.value.message
        await server.all_closed()


def endless(head: bytes, piece: bytes) -> Talk:
    """Send without end, as fast as the client reads."""

    async def talk(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(head)
        while True:
            await conversation.send(piece)

    return talk


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", b"x" * 65536, id="a gigabyte"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536, id="until an end that never comes"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1000\r\n" + b"x" * 4096 + b"\r\n",
            id="chunked without end",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 8192, id="tiny chunks"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"x" * 65536, id="a chunk's extension"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 8192, id="trailers"
        ),
    ],
)
async def test_a_body_without_end_is_bounded(head: bytes, piece: bytes) -> None:
    """The answer is bad, with `too_large`, in little memory; the connection is closed."""
    async with serving(endless(head, piece)) as server:
        api = check(server.url())
        tracemalloc.start()
        try:
            seen = await attempt(api, timeout=60)  # the tracing makes it slow
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert seen.reason is Reason.TOO_LARGE
        assert "larger than body_limit, 65536 bytes" in seen.message
        assert isinstance(read := seen.details["body_bytes"], int)
        assert read <= 65536
        assert peak < 8 * 2**20
        await server.all_closed()


@pytest.mark.parametrize("piece", [b"X-Y: " + b"z" * 1000 + b"\r\n", b"x" * 4096])
async def test_headers_without_end_are_bounded(piece: bytes) -> None:
    """The attempt fails with `too_large`."""
    async with serving(endless(b"HTTP/1.1 200 OK\r\nA: b", piece)) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url())
        assert failed.value.reason in (Reason.TOO_LARGE, Reason.PROTOCOL)
        await server.all_closed()


async def test_interim_responses_without_end_are_bounded() -> None:
    """They count as headers."""
    async with serving(endless(b"", b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" * 100)) as server:
        with pytest.raises(Failure) as failed:
            await ask(server.url())
        assert failed.value.reason is Reason.TOO_LARGE


async def test_a_body_that_is_declared_too_large_is_not_waited_for() -> None:
    """The declared length is enough."""

    async def promises(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        await conversation.until_closed()

    async with serving(promises) as server:
        assert (await ask(server.url())).reason is Reason.TOO_LARGE
        await server.all_closed()


async def test_headers_of_an_interim_response_are_ignored() -> None:
    """A 103 may have headers that the 200 does not."""
    data = b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with serving(raw(data)) as server:
        seen = await ask(server.url(), expect={"headers": {"X": "y"}})
    assert seen.message == "header X is missing"


async def test_a_body_up_to_the_limit_is_good_and_one_byte_more_is_not() -> None:
    """`body_limit` counts the bytes of the body."""
    async with serving(answers(reply("x" * 1024), reply("x" * 1025), reply("x" * 2048))) as server:
        api = check(server.url(), body_limit="1KiB")
        assert (await attempt(api)).reason is None
        assert (await attempt(api)).reason is Reason.TOO_LARGE
        assert (await ask(server.url(), body_limit="2KiB")).reason is None


async def test_an_unsolicited_switch_of_protocols_is_a_bad_answer() -> None:
    """101 is not an expected status."""
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    async with serving(raw(upgrade)) as server:
        seen = await ask(server.url())
    assert (seen.reason, seen.details["status_code"]) == (Reason.EXPECT, 101)


async def test_the_details_and_the_message_say_what_is_irregular() -> None:
    """The message only where the response is bad; a regular response has no such detail."""
    irregular = b"HTTP/1.1 200 OK\nX : y\nContent-Length: 2\n\nok"
    async with serving(answers(irregular)) as server:
        good = await ask(server.url(), expect={"headers": {"X": "^y$"}})
        assert (good.reason, good.message) == (None, "")
        assert good.details["irregular"] == ["bare LF line ends", "space before the colon"]
        bad = await ask(server.url(), expect={"status": 204})
        assert bad.message == (
            "status 200 OK, expected 204; the response is irregular: bare LF line ends, space before the colon"
        )
    async with serving(answers(reply("ok"))) as server:
        assert "irregular" not in (await ask(server.url())).details


async def test_bytes_after_a_response_end_the_kept_connection() -> None:
    """The next probe has a connection of its own."""
    async with serving(answers(reply("ok") + reply("ok"))) as server:
        async with check(server.url()).connect() as session:
            for _ in range(3):
                seen = await session.probe()
                assert (seen.reason, seen.details["reused_connection"]) == (None, False)
        assert server.connections == 3
