"""Kind websocket with real WebSocket servers: details, dialogues, streams, TLS."""

import asyncio
import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.websocket.check import WebsocketCheck
from connection_exporter.net import Network
from connection_exporter.net.certificate import CERTIFICATE_EXPIRY
from support import streams
from support.attempts import attempt, held
from support.certificates import presenting
from support.websocket_servers import check_of, config_of, serving
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request
from websockets.typing import Subprotocol


async def test_a_ping_that_is_answered_is_good() -> None:
    """The details contain the round trip, the handshake and the phases before it."""
    async with serving() as port, held(check_of(port)) as (session, first):
        assert first.reason is None
        for phase in ("resolve", "connect", "handshake", "ping"):
            assert isinstance(first.details[f"{phase}_seconds"], float)
        assert first.details["last_message_timestamp_seconds"] is None
        assert first.details["compression"] is False
        assert session.peer == "127.0.0.1"
        assert session.addresses == {"127.0.0.1"}
        assert (await session.probe()).reason is None


async def test_every_metric_has_its_source() -> None:
    """Gauges and histograms show a detail; counters add up counts."""

    async def _stream(connection: ServerConnection) -> None:
        await connection.send("text")
        await connection.wait_closed()

    async with serving(_stream) as port, held(check_of(port)) as (_, first):
        sources = {metric.source for metric in WebsocketCheck.traits.metrics}
        shown = first.details.keys() | first.counts.keys()
        assert sources - shown == {"certificate_expiry_timestamp_seconds"}


async def test_messages_are_counted_where_they_arrive() -> None:
    """Text, binary, fragmented and one-megabyte messages each count once. Pings do not count."""

    async def _stream(connection: ServerConnection) -> None:
        await connection.send("text")
        await connection.send(b"\x00\xff")
        await connection.send(["in ", "three ", "parts"])
        await connection.send("x" * 2**20)
        await connection.ping()
        await connection.wait_closed()

    before = time.time()
    async with serving(_stream) as port, check_of(port).connect() as session:
        total = 0.0
        async with asyncio.timeout(5):
            while total < 4:
                answer = await session.probe()
                total += answer.counts.get("messages", 0)
        assert total == 4
        assert before <= float(str(answer.details["last_message_timestamp_seconds"])) <= time.time()
        assert not (await session.probe()).counts


async def test_compression_is_off_by_default() -> None:
    """permessage-deflate costs memory for each session."""

    async def _stream(connection: ServerConnection) -> None:
        await connection.send("x" * 100_000)
        await connection.wait_closed()

    async with serving(_stream) as port:
        async with held(check_of(port)) as (_, first):
            assert first.details["compression"] is False
        async with held(check_of(port, compression=True)) as (session, first):
            assert first.details["compression"] is True
            second = await session.probe()
            assert [*first.counts.values(), *second.counts.values()] == [1]


async def test_a_server_must_choose_a_subprotocol() -> None:
    """A server that chooses none of those offered cannot be monitored."""
    async with serving(subprotocols=[Subprotocol("json")]) as port:
        async with held(check_of(port, subprotocols=["msgpack", "json"])) as (_, first):
            assert first.details["subprotocol"] == "json"
        assert (await attempt(check_of(port, subprotocols=["msgpack"]))).reason is Reason.PROTOCOL
    async with serving() as port:
        failure = await attempt(check_of(port, subprotocols=["msgpack"]))
        assert failure.reason is Reason.PROTOCOL
        assert "msgpack" in failure.message


async def test_a_session_ends_with_a_close_frame() -> None:
    """The server receives close code 1000, and the exporter does not wait for its response."""
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def _notes(connection: ServerConnection) -> None:
        await connection.wait_closed()
        codes.put_nowait(connection.close_code)

    async with serving(_notes) as port:
        async with held(check_of(port)):
            pass
        assert await asyncio.wait_for(codes.get(), 5) == 1000


async def test_a_check_can_have_two_sessions_at_once() -> None:
    """A canary is a second connection of the same check."""
    async with serving() as port:
        check = check_of(port)
        async with held(check) as (session, _):
            async with held(check) as (_, canary):
                assert canary.reason is None
            assert (await session.probe()).reason is None
            assert not session.lost.done()


async def test_the_upgrade_request_has_headers_and_credentials(tmp_path: Path) -> None:
    """Headers, origin, basic and bearer credentials. Files are read for each connection."""
    requests: list[Request] = []

    def _note(connection: ServerConnection, request: Request) -> None:
        requests.append(request)

    (tmp_path / "secret").write_text("first\n")
    secret = str(tmp_path / "secret")
    async with serving(process_request=_note) as port:
        await attempt(check_of(port, headers={"X-Key": "k"}, origin="https://a.example", path="/ws/a@b?c=d"))
        assert requests[-1].headers["X-Key"] == "k"
        assert requests[-1].headers["Origin"] == "https://a.example"
        assert requests[-1].headers["User-Agent"].startswith("connection-exporter/")
        assert requests[-1].path == "/ws/a@b?c=d"
        bearer = check_of(port, bearer_token_file=secret)
        await attempt(bearer)
        assert requests[-1].headers["Authorization"] == "Bearer first"
        (tmp_path / "secret").write_text("second\n")
        await attempt(bearer)
        assert requests[-1].headers["Authorization"] == "Bearer second"
        await attempt(check_of(port, user="me", password_file=secret))
        assert requests[-1].headers["Authorization"] == f"Basic {b64encode(b'me:second').decode()}"
        key = check_of(port, headers={"X-Key": {"file": secret}}, user_file=secret)
        await attempt(key)
        assert requests[-1].headers["X-Key"] == "second"
        assert requests[-1].headers["Authorization"] == f"Basic {b64encode(b'second:').decode()}"
        (tmp_path / "secret").write_text("two\nlines")
        assert (await attempt(bearer)).reason is Reason.AUTH
        assert (await attempt(key)).reason is Reason.AUTH
        (tmp_path / "secret").unlink()
        failure = await attempt(bearer)
        assert failure.reason is Reason.AUTH
        assert "bearer_token_file cannot be read" in failure.message


async def test_host_may_be_replaced(authority: trustme.CA, ca_file: Path) -> None:
    """As with curl: TLS still asks for the name in the URL, and checks it."""
    requests: list[Request] = []

    def _note(connection: ServerConnection, request: Request) -> None:
        requests.append(request)

    tls = presenting(authority.issue_cert("localhost"))
    asked: list[str] = []
    tls.sni_callback = lambda _sock, name, _context: asked.append(name)
    async with serving(process_request=_note, tls=tls) as port:
        url = f"wss://localhost:{port}/"
        answer = await attempt(
            WebsocketCheck(
                config_of(url=url, tls={"ca_file": str(ca_file)}, headers={"host": "b.test"}), Network()
            )
        )
    assert answer.reason is None
    assert requests[0].headers.get_all("Host") == ["b.test"]
    assert asked == ["localhost"]


async def test_any_character_may_be_in_a_path_a_header_and_a_credential() -> None:
    """A path is percent-encoded as in browsers; header values are sent as UTF-8."""
    requests: list[str] = []

    async def note(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        requests.append((await reader.readuntil(b"\r\n\r\n")).decode())

    async with streams.serving(note) as port:
        path = "/kurse/ü?q=€&r=%41"
        await attempt(check_of(port, path=path, headers={"X-Key": "clé €"}, bearer_token="t€st"))
    assert requests[0].startswith("GET /kurse/%C3%BC?q=%E2%82%AC&r=%41 HTTP/1.1\r\n")
    assert "\r\nX-Key: clé €\r\n" in requests[0]
    assert "\r\nAuthorization: Bearer t€st\r\n" in requests[0]


async def test_pings_that_we_ask_for_are_no_flood() -> None:
    """Forced checks and benchmarks may probe as often as they like."""
    async with serving() as port, held(check_of(port)) as (session, _):
        for _ in range(1_500):
            await session.probe()
        assert not session.lost.done()


async def _asks_for_login(connection: ServerConnection) -> None:
    await connection.send("welcome")
    if await connection.recv() != "login secret":
        await connection.close(1008, "who are you")
        return
    await connection.send("noise")
    await connection.send("logged in")
    async for message in connection:
        if message == "time?":
            await connection.send("noise")
            await connection.send("time 42")


LOGIN = [{"expect": "^welcome$"}, {"send": "login secret"}, {"expect": "^logged in$"}]


async def test_dialogues_run_at_the_start_and_at_each_probe() -> None:
    """Other messages are skipped. Answers do not count as messages of the stream."""
    async with serving(_asks_for_login) as port:
        check = check_of(port, on_connect=LOGIN, on_probe={"send": "time?", "expect": r"^time \d+$"})
        async with held(check) as (session, first):
            assert first.reason is None
            assert isinstance(first.details["dialogue_seconds"], float)
            assert isinstance(first.details["greeting_seconds"], float)
            second = await session.probe()
            assert second.reason is None
            assert second.counts["messages"] == 1  # the noise


async def test_a_failed_login_is_a_failed_attempt(tmp_path: Path) -> None:
    """The server closes with 1008, or does not send the expected message. No failure contains what was sent."""
    (tmp_path / "login").write_text("login wrong\n")
    wrong = [{"send_file": str(tmp_path / "login"), "expect": "^logged in$", "within": "200ms"}]
    async with serving(_asks_for_login) as port:
        failure = await attempt(check_of(port, on_connect=wrong))
        assert isinstance(failure, Failure)
        assert failure.reason is Reason.CLOSED
        (tmp_path / "login").unlink()
        assert (await attempt(check_of(port, on_connect=wrong))).reason is Reason.AUTH
    async with serving() as port:
        failure = await attempt(
            check_of(port, on_connect=[{"send": "secret", "expect": "no", "within": "50ms"}])
        )
        assert isinstance(failure, Failure)
        assert failure.reason is Reason.EXPECT
        assert "secret" not in failure.message
        assert "within 50ms (1 others arrived)" in failure.message


async def test_a_missing_message_in_on_probe_is_a_bad_answer() -> None:
    """The server answers pings, so the session stays, and the next probe can be good."""
    answers = True

    async def _talks(connection: ServerConnection) -> None:
        async for message in connection:
            if answers:
                await connection.send(message)

    async with serving(_talks) as port:
        check = check_of(port, on_probe=[{"send": "hello", "expect": "hello", "within": "50ms"}])
        async with held(check) as (session, first):
            assert first.reason is None
            answers = False
            late = await session.probe()
            assert late.reason is Reason.EXPECT
            assert "'hello' within 50ms" in late.message
            answers = True
            assert (await session.probe()).reason is None


async def test_a_dialogue_that_is_cancelled_says_which_message_is_missing() -> None:
    """The deadline of the attempt may be earlier than that of a step."""
    async with serving() as port:
        check = check_of(port, on_probe={"send": "a", "expect": "b", "within": "30s"}, timeout="30s")
        failure = await attempt(check, timeout=0.2)
        assert failure.reason is Reason.EXPECT
        assert "'b'" in failure.message


async def test_a_stream_that_stops_is_a_gap() -> None:
    """The server answers pings, but sends no message for longer than max_gap."""
    flow = asyncio.Event()
    flow.set()

    async def _streams(connection: ServerConnection) -> None:
        while True:
            await flow.wait()
            await connection.send("tick")
            await asyncio.sleep(0.02)

    async with serving(_streams) as port, held(check_of(port, max_gap="300ms")) as (session, first):
        assert first.reason is None
        flow.clear()
        await asyncio.sleep(0.4)
        dry = await session.probe()
        assert dry.reason is Reason.GAP
        assert "max_gap 300ms" in dry.message
        flow.set()
        await asyncio.sleep(0.05)
        assert (await session.probe()).reason is None


async def test_answers_of_a_dialogue_do_not_hide_a_gap() -> None:
    """An answer that the exporter asked for does not show that the stream is alive."""
    async with serving() as port:
        check = check_of(port, max_gap="100ms", on_probe={"send": "hello", "expect": "hello"})
        async with held(check) as (session, _):
            await asyncio.sleep(0.15)
            assert (await session.probe()).reason is Reason.GAP


async def test_the_certificate_is_checked(authority: trustme.CA, ca_file: Path) -> None:
    """It must match the host or `server_name`, and the details contain its expiry."""
    context = presenting(authority.issue_cert("stream.example"))
    async with serving(tls=context) as port:
        named = check_of(port, tls={"ca_file": str(ca_file), "server_name": "stream.example"})
        async with held(named) as (_, first):
            assert first.reason is None
            assert float(str(first.details["certificate_expiry_timestamp_seconds"])) > time.time()
            assert first.details["tls_version"] == "TLSv1.3"
        wrong_name = check_of(port, tls={"ca_file": str(ca_file), "server_name": "other.example"})
        assert (await attempt(wrong_name)).reason is Reason.TLS
        assert (await attempt(check_of(port, tls={}))).reason is Reason.TLS
    async with serving() as port:
        plain = await attempt(check_of(port, tls={"verify": False}))
        assert plain.reason is Reason.EOF
        assert "TLS handshake" in plain.message


async def test_a_canary_updates_the_expiry_of_a_renewed_certificate(
    authority: trustme.CA, ca_file: Path
) -> None:
    """A session may last longer than its certificate, and a new connection sees the renewed one."""
    renewed = datetime.now(UTC).replace(microsecond=0) + timedelta(days=90)
    context = presenting(authority.issue_cert("127.0.0.1"))
    async with serving(tls=context) as port:
        stream = check_of(port, tls={"ca_file": str(ca_file)})
        async with held(stream) as (session, _):
            authority.issue_cert("127.0.0.1", not_after=renewed).configure_cert(context)
            await attempt(stream)
            assert (await session.probe()).details[CERTIFICATE_EXPIRY] == renewed.timestamp()
