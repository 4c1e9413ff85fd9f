"""Kind tcp on real servers (Redis, SMTP) and on small ones that follow a script."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink
from connection_exporter.core.health import Reason, Status
from connection_exporter.core.retry import Fault, Policy
from connection_exporter.demo.servers import Redis, free_port
from connection_exporter.kind import Failure, Observation, Service, Session
from support.attempts import attempt, held
from support.streams import serving
from support.tcp_servers import answers, check_of, says
from support.watched import on_uvloop, watching

PING = {"send": "PING\r\n", "expect": r"^\+PONG"}


@pytest.fixture(scope="module")
def mail() -> Iterator[int]:
    """A real mail server."""
    server = Controller(Sink(), hostname="127.0.0.1", port=free_port(), server_hostname="mail.example.com")
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


async def answered(port: int, **given: object) -> Observation:
    seen = await attempt(check_of(port, **given))
    assert isinstance(seen, Observation), seen
    return seen


async def failed(port: int, **given: object) -> Failure:
    seen = await attempt(check_of(port, **given))
    assert isinstance(seen, Failure), seen
    return seen


async def test_a_dialogue_at_each_probe() -> None:
    """With a real Redis: a password first, then PING; the answer and its duration are details."""
    async with Redis(password="a password") as redis:
        login = {"send": "AUTH {}\r\n".format('"a password"'), "expect": r"^\+OK"}
        async with held(check_of(redis.port, on_connect=[login], on_probe=[PING])) as (session, first):
            again = await session.probe()
        refused = await answered(redis.port, on_probe=PING)
        wrong = await failed(redis.port, on_connect={**login, "send": "AUTH wrong\r\n", "within": "300ms"})
    for seen in (first, again):
        assert (seen.reason, seen.details["answer"]) == (None, "+PONG")
        assert all(
            isinstance(seen.details[key], float)
            for key in ("dialogue_seconds", "greeting_seconds", "round_trip_seconds", "connect_seconds")
        )
    assert refused.reason is Reason.EXPECT
    assert "the last line is '-NOAUTH Authentication required.'" in refused.message
    assert (wrong.reason, "WRONGPASS" in wrong.message) == (Reason.EXPECT, True)


async def test_a_banner_is_a_detail(mail: int) -> None:
    """Whether a dialogue expects it or not; what comes after something was sent is none."""
    greeted = await answered(mail, on_connect={"expect": "^220 "})
    assert str(greeted.details["banner"]).startswith("220 mail.example.com")
    async with held(check_of(mail)) as (session, _):
        await asyncio.sleep(0.2)
        assert str((await session.probe()).details["banner"]).startswith("220 mail.example.com")


async def test_several_steps_follow_one_another(mail: int) -> None:
    """Lines that do not match are skipped, and answers that arrive together are told apart."""
    steps = [
        {"expect": "^220 "},
        {"send": "EHLO me.example.com\r\n", "expect": "^250 "},
        {"send": "NOOP\r\nNOOP\r\n", "expect": "^250 "},
        {"expect": "^250 "},
        {"send": "VRFY me@example.com\r\n", "expect": "^252 "},
    ]
    seen = await answered(mail, on_connect=steps)
    assert seen.reason is None


@on_uvloop
async def test_the_end_of_the_connection_is_noticed_at_once() -> None:
    """No probe is due for a minute when the server is killed."""
    async with Redis() as redis:
        config = f"services:\n  it: {{kind: tcp, address: '127.0.0.1:{redis.port}', interval: 1m, retry_delay: 1s}}\n"
        async with watching(config) as it:
            await it.healthy("it")
            await redis.kill()
            await it.until("it", Status.CONNECTING, Reason.IDLE_CLOSED, within=1)


@on_uvloop
async def test_a_server_that_is_frozen_is_noticed_by_a_dialogue_alone() -> None:
    """The kernel answers for it, so a connection without a dialogue still stands."""
    async with Redis() as redis:
        config = (
            "defaults: {interval: 300ms, timeout: 300ms, retries: 1, canary: off}\nservices:\n"
            f"  asked: {{kind: tcp, address: '127.0.0.1:{redis.port}', "
            'on_probe: {send: "PING\\r\\n", expect: "PONG"}}\n'
            f"  held: {{kind: tcp, address: '127.0.0.1:{redis.port}'}}\n"
        )
        async with watching(config, read=False) as it:
            await it.healthy()
            await redis.pause()
            try:
                await it.until("asked", Status.DISCONNECTED, Reason.TIMEOUT, within=2)
                assert it.record("held").status is Status.HEALTHY
            finally:
                await redis.resume()
            await it.healthy("asked")


async def test_nothing_at_all_is_no_answer_and_something_else_is_a_bad_one() -> None:
    """The first ends the session, the second does not."""
    async with serving(says(b"hello\r\n")) as port:
        step = {"send": "PING\r\n", "expect": "PONG", "within": "200ms"}
        async with held(check_of(port)) as _:
            silent = await failed(port, on_connect={"expect": "hello"}, on_probe=step)
        other = await answered(port, on_probe=step)
    assert (silent.reason, "sends nothing within 200ms" in silent.message) == (Reason.TIMEOUT, True)
    assert (other.reason, "the last line is 'hello'" in other.message) == (Reason.EXPECT, True)


async def test_the_deadline_of_the_attempt_says_what_was_awaited() -> None:
    """Each step has time of its own, all together have `timeout`."""
    async with serving(says()) as port:
        seen = await attempt(check_of(port, on_connect={"expect": "^220", "within": "5s"}), timeout=0.2)
    assert isinstance(seen, Failure)
    assert (seen.reason, "a line that matches '^220'" in seen.message) == (Reason.TIMEOUT, True)


async def test_a_server_that_closes_says_why_in_its_last_line() -> None:
    """As mail servers do before they hang up; the line is in the message."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        await reader.readline()
        writer.write(b"421 too many connections\r\n")

    async with serving(hang_up) as port:
        steps = [{"expect": "^220"}, {"send": "NOOP\r\n", "expect": "^250"}]
        seen = await failed(port, on_connect=steps)
    assert (seen.reason, "421 too many connections" in seen.message) == (Reason.EOF, True)


async def test_bytes_are_sent_and_expected_in_hexadecimal() -> None:
    """For protocols without lines, however the answer is cut into packets."""

    async def binary(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(4) == b"\x00\xff\r\n"
        for byte in b"\x01\x02\xfe\xff\x00\x2a rest":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)
        await reader.read()

    async with serving(binary) as port:
        seen = await answered(port, on_connect={"send_hex": "00 ff 0d 0a", "expect_hex": "feff002a"})
    assert seen.reason is None


async def test_a_prompt_needs_no_end_of_line() -> None:
    """The last line is searched before it is complete."""
    async with serving(says(b"login: ")) as port:
        assert (await answered(port, on_connect={"expect": "^login: $"})).reason is None


async def test_what_came_before_a_dialogue_is_no_answer_to_it() -> None:
    """A late answer to the last probe would otherwise answer this one."""

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(b"OK\r\nOK\r\n" if line == b"first\r\n" else b"")

    async with serving(late) as port:
        check = check_of(
            port,
            on_connect={"send": "first\r\n", "expect": "OK"},
            on_probe={"send": "second\r\n", "expect": "OK", "within": "200ms"},
        )
        seen = await attempt(check)
    assert isinstance(seen, Failure)
    assert seen.reason is Reason.TIMEOUT


async def test_a_file_is_sent_as_a_line(tmp_path: Path) -> None:
    """Its own line break does not matter."""
    file = tmp_path / "login"
    file.write_text("AUTH word\n")
    async with serving(answers({b"AUTH word": b"+OK\r\n"})) as port:
        seen = await answered(port, on_connect={"send_file": str(file), "expect": "OK"})
        file.unlink()
        unreadable = await failed(port, on_connect={"send_file": str(file), "expect": "OK"})
    assert seen.reason is None
    assert (unreadable.reason, "send_file cannot be read" in unreadable.message) == (Reason.AUTH, True)


async def test_a_server_that_does_not_read_is_noticed() -> None:
    """What is sent without expecting an answer must not pile up."""

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(60)

    async with serving(deaf) as port:
        check = check_of(port, on_probe={"send": "x" * 1_000_000})
        async with check.connect() as session:
            with pytest.raises(Failure, match="does not read what is sent"):
                await repeatedly(session)


async def test_a_unix_socket(tmp_path: Path) -> None:
    """Without a round trip."""
    path = tmp_path / "it.sock"
    async with serving(says(b"hello\n"), path=str(path)):
        seen = await attempt(check_of(host=str(path), on_connect={"expect": "hello"}))
    assert isinstance(seen, Observation)
    assert (seen.reason, seen.details["round_trip_seconds"]) == (None, None)


async def test_nobody_listens() -> None:
    """The kernel says so."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        assert (await failed(reserved.getsockname()[1])).reason is Reason.REFUSED


async def repeatedly(session: Session) -> None:
    """Probe until that fails, and 50 times at most."""
    for _ in range(50):
        await session.probe()


def test_only_a_dialogue_bounds_the_time_until_a_frozen_server_is_noticed() -> None:
    """No bound is better than one that does not hold."""
    for on_probe, bound in (([], None), ([{"send": "x"}], None), ([PING], 35.0)):
        bounds = Service("it", "tcp", check_of(on_probe=on_probe), Policy()).detection_bounds
        assert bounds.get(Fault.FROZEN) == bound
        assert (bounds[Fault.CLOSED], bounds[Fault.VANISHED]) == (0.05, 11)
