"""What ``watch`` says where it cannot follow: what is there instead of an exporter, and what to do about it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from connection_exporter.cli.watch import watch
from support.certificates import issue, server_context

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
NO_RESPONSE = "closes the connection without an HTTP response: is it a connection-exporter? With TLS, its address is https://"


@asynccontextmanager
async def server(
    answer: bytes, *, first: Sequence[bytes] = (), tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Send the same answer to every client after the ``first``, and close the connection. Gives host and port."""
    answers = iter(first)

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10_000)
        writer.write(next(answers, answer))
        writer.close()

    listening = await asyncio.start_server(respond, "127.0.0.1", 0, ssl=tls)
    async with listening:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "path", "said"),
    [
        (
            b"220 ready\r\n500 what\r\n\r\n",
            "",
            "http://{host} does not speak HTTP: is it a connection-exporter?",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n",
            "",
            "http://{host}/events sends no events: is it a connection-exporter?",
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: https://me:s3cret@other/prefix/events?state=s3cret\r\n"
            b"Content-Length: 0\r\n\r\n",
            "",
            "http://{host} redirects to https://other/prefix: if that is the exporter, watch it there",
        ),
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "",
            "http://{host}/events responds with 404 Not Found: is it a connection-exporter?",
        ),
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "/metrics",
            "http://{host}/metrics/events responds with 404 Not Found: is it a connection-exporter? "
            "Its address usually has no path: http://{host}/",
        ),
        (
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
            "",
            "http://{host}/events responds with 400 Bad Request: is it a connection-exporter? With TLS, its address is https://{host}",
        ),
        (
            b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
            "",
            "http://{host}/events responds with 401 Unauthorized: write http://USER:PASSWORD@{host}",
        ),
        (
            STREAM + b"Content-Encoding: gzip\r\n\r\nplain\n\n",
            "",
            "http://{host} sends nothing that can be decoded: is it a connection-exporter?",
        ),
        (STREAM + b"\r\ndata: 1\n\n", "", "http://{host} sends no board: is it a connection-exporter?"),
        (
            STREAM + b"\r\n: ready\n\n",
            "",
            "http://{host} ended the connection before it sent a board: is it a connection-exporter?",
        ),
    ],
)
async def test_what_is_no_exporter_is_named_at_once(
    capsys: pytest.CaptureFixture[str], answer: bytes, path: str, said: str
) -> None:
    """Another attempt would find the same, and no connection to an exporter was lost."""
    async with server(answer) as host, asyncio.timeout(10):
        assert await watch(f"http://{host}{path}") == 1
    expected = said.format(host=host)
    assert capsys.readouterr().err.splitlines() == [f"connection-exporter: {expected}"]


@pytest.mark.parametrize(
    "status", ["500 Internal Server Error", "503 Service Unavailable", "429 Too Many Requests"]
)
async def test_what_may_pass_is_tried_again(capsys: pytest.CaptureFixture[str], status: str) -> None:
    """A proxy answers so while the exporter behind it starts."""
    async with (
        server(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()) as host,
        asyncio.timeout(10),
    ):
        assert await watch(f"http://{host}", pause=0) == 1
    said = capsys.readouterr().err
    assert f"responds with {status}; attempt 5 of 5 to connect again" in said


@pytest.mark.parametrize("answer", [b"", b"-ERR unknown command 'GET'\r\n"])
async def test_no_connection_is_lost_to_a_server_that_closes_it(
    capsys: pytest.CaptureFixture[str], answer: bytes
) -> None:
    """As servers of other protocols do, and servers of TLS that get a request in plain text."""
    async with server(answer) as host, asyncio.timeout(10):
        assert await watch(f"http://{host}", pause=0) == 1
    said = capsys.readouterr().err
    assert f"http://{host} {NO_RESPONSE}{host}; attempt 1 of 5" in said
    assert "lost" not in said


async def test_tls_is_expected_of_a_server_without(capsys: pytest.CaptureFixture[str]) -> None:
    """Its first bytes are no TLS."""
    async with server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as host, asyncio.timeout(10):
        assert await watch(f"https://{host}") == 1
    said = capsys.readouterr().err
    assert said == f"connection-exporter: https://{host} does not use TLS: write http://{host}\n"


async def test_a_certificate_that_is_not_trusted_is_explained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the variable in which OpenSSL looks for more authorities."""
    tls = server_context(tmp_path, issue("127.0.0.1"))
    async with server(b"", tls=tls) as host, asyncio.timeout(10):
        assert await watch(f"https://{host}") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"connection-exporter: the certificate of https://{host} is not valid: ")
    assert said.endswith(": set SSL_CERT_FILE to a file that contains its authority\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "http://: not an address: write http://host:port"),
        ("a b", "http://a%20b: not an address: write http://host:port"),
        (
            "host:8000/?x=1",
            "http://host:8000/?x=1: expected no ? or # in the address: write http://host:port",
        ),
    ],
)
async def test_an_address_of_nothing_is_explained(
    capsys: pytest.CaptureFixture[str], url: str, said: str
) -> None:
    """Before any connection."""
    assert await watch(url) == 1
    assert capsys.readouterr().err == f"connection-exporter: {said}\n"


async def test_an_exporter_that_was_there_is_waited_for_whatever_answers_meanwhile(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A proxy may say 404 while the exporter behind it restarts."""
    board = b'{"status": "healthy", "summary": {"total": 0}, "services": {}}'
    answers = [STREAM + b"\r\nevent: board\ndata: " + board + b"\n\n"]
    async with server(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", first=answers) as host:
        async with asyncio.timeout(10):
            assert await watch(f"http://{host}", pause=0) == 1
    said = capsys.readouterr().err
    assert said.startswith("connection-exporter: live\n")
    assert "responds with 404 Not Found; attempt 5 of 5 to connect again" in said
