"""Delivery: logins, TLS, and Alertmanagers that answer badly, slowly or without end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import bcrypt
import pytest
import trustme
import yaml
from connection_exporter.alerting.ledger import Alert, Ledger
from connection_exporter.alerting.sender import Sender
from connection_exporter.config import Config
from connection_exporter.kinds import load_text
from connection_exporter.net.tls import TlsContexts
from connection_exporter.system.clock import SystemClock
from stack_receiver import receiving
from support.alertmanagers import Inbox, PlainAlertmanager, alertmanagers, until
from support.dead_mount import dead_mount
from support.logs import captured_logs
from support.senders import running

PASSWORD = "correct horse"  # of a server that lives for a test
TO_SEND = Alert({"alertname": "ConnectionDown", "name": "it"}, {"description": "down"}, 1_700_000_000.0)


def config_of(alerting: str) -> Config:
    return load_text(
        f"alerting: {alerting}\nservices: {{it: {{kind: http, url: 'http://localhost'}}}}", environ={}
    )


@asynccontextmanager
async def sending(alerting: str) -> AsyncIterator[Sender]:
    config, ledger = config_of(alerting).alerting, Ledger()
    assert config is not None
    ledger.open("it", TO_SEND)
    (url,) = config.alertmanagers
    sender = Sender(
        url, config, ledger, clock=SystemClock(), contexts=TlsContexts(), generator_url="http://us"
    )
    async with running(sender):
        yield sender


class SecureAlertmanager(PlainAlertmanager):
    """Alertmanager with TLS, and with basic authentication or client certificates.

    ``name`` is that of its certificate, and ``clients`` the authority of its clients.
    """

    def __init__(
        self, hook: int, authority: trustme.CA, *, name: str = "localhost", clients: Path | None = None
    ) -> None:
        super().__init__(hook)
        self._authority = authority
        self._name = name
        self._clients = clients

    async def prepare(self) -> None:
        await super().prepare()
        pem = str(self.folder / "server.pem")
        self._authority.issue_cert(self._name).private_key_and_cert_chain_pem.write_to_path(pem)
        tls = {"cert_file": pem, "key_file": pem}
        web: dict[str, object] = {"tls_server_config": tls}
        if self._clients is None:
            password = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
            web["basic_auth_users"] = {"us": password}
        else:
            tls |= {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": str(self._clients)}
        (self.folder / "web.yml").write_text(yaml.safe_dump(web))

    def command(self) -> list[str]:
        return [*super().command(), f"--web.config.file={self.folder / 'web.yml'}"]

    async def ready(self) -> bool:
        return await self._accepts()


async def test_an_alertmanager_with_tls_and_a_password_is_reached(tmp_path: Path) -> None:
    """The password comes from a file that is read again: a wrong one is a failure until it is corrected.

    The name in the URL is written in fullwidth letters, of which browsers make ``localhost``.
    """
    name = "".join(chr(ord(letter) + 0xFEE0) for letter in "localhost")
    inbox, authority = Inbox(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    secret = tmp_path / "password"
    secret.write_text("wrong")
    with receiving(inbox.take) as hook:
        async with SecureAlertmanager(hook, authority) as receiver:
            url = f"https://{name}:{receiver.port}"
            login = f"user: us, password_file: {secret}, tls: {{ca_file: {tmp_path / 'ca.pem'}}}"
            async with sending(f'{{alertmanagers: ["{url}"], {login}}}') as sender:
                await until(lambda: sender.failed >= 2)
                assert (sender.healthy, inbox.messages) == (False, [])
                secret.write_text(f"{PASSWORD}\n")
                await until(lambda: inbox.of("firing") == ["it"])
                await until(lambda: sender.healthy)
            async with sending(f'{{alertmanagers: ["{url}"], user: us, password: "{PASSWORD}"}}') as sender:
                await until(lambda: sender.failed >= 1)
                assert sender.sent == 0, "the certificate is not one that the system trusts"


async def test_a_client_certificate_is_sent_and_the_server_name_is_checked(tmp_path: Path) -> None:
    """Alertmanager is reached by its address and has a certificate for a name. The client's is renewed in its file."""
    inbox, authority, clients = Inbox(), trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    clients.cert_pem.write_to_path(str(tmp_path / "clients.pem"))
    ours = tmp_path / "ours.pem"
    another = trustme.CA()
    another.issue_cert("us").private_key_and_cert_chain_pem.write_to_path(str(ours))
    with receiving(inbox.take) as hook:
        async with SecureAlertmanager(
            hook, authority, name="am.internal", clients=tmp_path / "clients.pem"
        ) as receiver:
            url = f"https://127.0.0.1:{receiver.port}"
            trust = f"ca_file: {tmp_path / 'ca.pem'}"
            for tls in (
                f"{trust}, server_name: am.internal",
                f"{trust}, cert_file: {ours}",
                f"{trust}, server_name: am.internal, cert_file: {ours}",
            ):
                async with sending(f'{{alertmanagers: ["{url}"], tls: {{{tls}}}}}') as sender:
                    await until(lambda sender=sender: sender.failed >= 2)  # type: ignore[misc]
                    assert (sender.healthy, sender.sent) == (False, 0)
            async with sending(f'{{alertmanagers: ["{url}"], tls: {{{tls}}}}}') as sender:
                await until(lambda: sender.failed >= 1)
                clients.issue_cert("us").private_key_and_cert_chain_pem.write_to_path(str(ours))
                await until(lambda: inbox.of("firing") == ["it"])
                await until(lambda: sender.healthy)


@pytest.mark.parametrize("host", ["☃.invalid", "xn--a.invalid"])
async def test_a_name_that_idna_2008_forbids_is_looked_up_like_any_other(host: str) -> None:
    async with sending(f'{{alertmanagers: ["https://{host}:9093"]}}') as sender:
        await until(lambda: sender.failed > 0)
    assert not sender.healthy


async def test_a_bearer_token_is_read_again_and_a_wrong_one_is_a_failure_until_then(tmp_path: Path) -> None:
    """A proxy in front of a real Alertmanager checks the token, as they usually do."""
    secret = tmp_path / "token"
    secret.write_text("old\n")
    accepted = ["old"]
    async with alertmanagers(1) as ((receiver,), (inbox,)):

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
            if f"authorization: bearer {accepted[0]}\r\n".encode() not in request.lower():
                writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            from_it, to_it = await asyncio.open_connection("127.0.0.1", receiver.port)
            to_it.write(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            writer.write(await from_it.read())
            await writer.drain()
            to_it.close()

        config = f'{{alertmanagers: ["http://127.0.0.1:{{port}}"], bearer_token_file: {secret}}}'
        async with server(relay) as port, sending(config.replace("{port}", str(port))) as sender:
            await until(lambda: inbox.of("firing") == ["it"])
            await until(lambda: sender.healthy)
            accepted[0] = "new"
            sender.send("it")
            await until(lambda: sender.failed >= 2)
            assert not sender.healthy
            secret.write_text("new\n")
            await until(lambda: sender.healthy)
            assert sender.sent >= 2


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            await answer(reader, writer, head + await reader.readexactly(length))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


def text(head: str) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: bytes) -> None:
        writer.write(f"HTTP/1.1 {head}\r\n\r\n".encode())
        await writer.drain()

    return answer


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n")
    for _ in range(20_000):
        writer.write(b"s3cret " * 1000)
        await writer.drain()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: bytes) -> None:
    await reader.read()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (text("400 s3cret\r\nContent-Length: 0"), "HTTP status 400"),
        (text("413 s3cret\r\nContent-Length: 0"), "HTTP status 413"),
        (text("500 s3cret\r\nContent-Length: 0"), "HTTP status 500"),
        (text("503 s3cret\r\nContent-Length: 0"), "HTTP status 503"),
        (text("302 Found\r\nLocation: http://127.0.0.1:1/s3cret\r\nContent-Length: 0"), "HTTP status 302"),
        (text("nonsense s3cret"), "RemoteProtocolError"),
        (endless, "the answer is too long"),
        (silent, "TimeoutError"),
    ],
    ids=["bad request", "too large", "error", "unavailable", "redirect", "nonsense", "endless", "silent"],
)
async def test_a_bad_answer_is_a_failure_that_is_logged_once_and_retried(
    answer: Answer, problem: str
) -> None:
    """Nothing that the other end sends is logged."""
    url = "http://127.0.0.1:{}"
    with captured_logs() as events:
        async with server(answer) as port, sending(f'{{alertmanagers: ["{url.format(port)}"]}}') as sender:
            await until(lambda: sender.failed >= 3)
            assert (sender.healthy, sender.sent) == (False, 0)
    reported = [event for event in events if event["event"] == "alertmanager_not_reached"]
    assert [event["log_level"] for event in reported].count("warning") == 1
    assert {event["error"] for event in reported} == {problem}
    assert "s3cret" not in str(events)


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -2359", "soon"])
async def test_a_time_that_no_clock_shows_is_ignored(date: str) -> None:
    """An alert in that clock could not be written, so that none would be sent any more."""
    answer = text(f"200 OK\r\nDate: {date}\r\nContent-Length: 0\r\nConnection: close")
    async with server(answer) as port, sending(f'{{alertmanagers: ["http://127.0.0.1:{port}"]}}') as sender:
        for sent in (1, 2, 3):
            await until(lambda sent=sent: sender.sent >= sent)  # type: ignore[misc]
            sender.send("it")
        assert sender.healthy
        assert sender.failed == 0


async def test_a_password_that_cannot_be_read_in_time_is_a_failure_that_names_its_file(
    tmp_path: Path,
) -> None:
    """Otherwise, alerts would wait without end, and nothing would say so."""
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "password").write_text(PASSWORD)
    login = f"user: me, password_file: {mount}/password"
    with captured_logs() as events, dead_mount(mount):
        async with sending(f'{{alertmanagers: ["http://127.0.0.1:1"], {login}}}') as sender:
            await until(lambda: sender.failed >= 1)
    reported = {event["error"] for event in events if event["event"] == "alertmanager_not_reached"}
    assert reported == {"password_file cannot be read: the file system does not respond"}
