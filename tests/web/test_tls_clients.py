"""What a client of the TLS listener sees when its handshake fails, and what silent clients can use up."""

import asyncio
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import trustme
from support.hostile import assert_iterations_are_short
from support.web_clients import listening, program, spoken

SERVICES = "services:\n  nobody: {kind: process, pidfile: /nonexistent/bot.pid, retries: 1000}\n"


@pytest.fixture
def web_file(tmp_path: Path) -> Path:
    """Return a web config with TLS, whose authority is in ca.pem."""
    authority = trustme.CA()
    made = authority.issue_cert("localhost", "127.0.0.1")
    (tmp_path / "server.key").write_bytes(made.private_key_pem.bytes())
    (tmp_path / "server.pem").write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: server.pem, key_file: server.key}\n")
    return tmp_path / "web.yml"


@pytest.fixture
async def port(web_file: Path) -> AsyncIterator[int]:
    """Return the port of an exporter in its own process, which runs on uvloop."""
    async with program(web_file.parent, SERVICES, f"--web.config.file={web_file}") as running:
        yield running.port


def trusting(web_file: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=web_file.parent / "ca.pem")


async def handshake(port: int, context: ssl.SSLContext) -> str:
    """Return the error of a handshake and a first read, or an empty text."""
    try:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
        try:
            writer.write(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            async with asyncio.timeout(10):
                await reader.read()
        finally:
            writer.close()
    except (ssl.SSLError, ConnectionError) as error:
        return str(error)
    return ""


async def test_a_client_with_an_old_version_gets_an_alert(port: int, web_file: Path) -> None:
    """TLS 1.1 is below the minimum."""
    context = trusting(web_file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert "ALERT_PROTOCOL_VERSION" in await handshake(port, context)


async def test_a_client_without_a_common_cipher_gets_an_alert(port: int, web_file: Path) -> None:
    """A certificate with an EC key cannot be used with RSA key exchange, nor with a cipher that we lack."""
    context = trusting(web_file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA")
    assert "HANDSHAKE_FAILURE" in await handshake(port, context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_without_a_certificate_gets_an_alert(web_file: Path, version: ssl.TLSVersion) -> None:
    """In TLS 1.3 it comes after the client's part of the handshake, with the first read."""
    tls = "cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem"
    web_file.write_text(f"tls_server_config: {{{tls}, client_auth_type: RequireAndVerifyClientCert}}\n")
    context = trusting(web_file)
    context.minimum_version = context.maximum_version = version
    async with listening(web_file) as port:
        error = await handshake(port, context)
    assert "ALERT_CERTIFICATE_REQUIRED" in error or "ALERT_HANDSHAKE_FAILURE" in error, error


async def test_curl_and_openssl_see_the_reason(port: int, web_file: Path) -> None:
    """As an operator would look for it."""
    curl, openssl = shutil.which("curl"), shutil.which("openssl")
    if curl is None or openssl is None:
        pytest.skip("needs curl and openssl: apt-get install curl openssl")

    async def run(*command: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False, input="", timeout=30
        )
        return done.stdout + done.stderr

    certificate = str(web_file.parent / "ca.pem")
    assert "Healthy" in await run(curl, "-sS", "--cacert", certificate, f"https://localhost:{port}/-/healthy")
    plain = await run(curl, "-sS", "-i", f"http://localhost:{port}/-/healthy")
    assert plain.startswith("HTTP/1.1 400 Bad Request")
    assert plain.endswith("Client sent an HTTP request to an HTTPS server.\n")
    no_cipher = await run(
        openssl, "s_client", "-connect", f"localhost:{port}", "-tls1_2", "-cipher", "AES128-SHA"
    )
    assert re.search(r"alert handshake failure", no_cipher), no_cipher
    old = await run(
        openssl, "s_client", "-connect", f"localhost:{port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"
    )
    assert re.search(r"alert protocol version", old), old


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x00\x05garbled",
        b"\x00" * 100,
        b"\x80\x2e\x01\x00\x02",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"\x16\x03\x01\xff\xff" + b"\x01" * 70_000,
    ],
    ids=["record", "zeros", "SSLv2", "SSH", "large"],
)
async def test_what_is_no_handshake_ends_the_connection(port: int, web_file: Path, said: bytes) -> None:
    """And the next client is served."""
    await spoken(port, said)
    assert await handshake(port, trusting(web_file)) == ""


async def test_megabytes_and_pipelined_requests_pass_through_tls(web_file: Path) -> None:
    """Records in both directions, split anywhere."""
    async with listening(web_file) as port:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=trusting(web_file))
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 10
        for at in range(0, len(request), 7):
            writer.write(request[at : at + 7])
            await asyncio.sleep(0)
        for _ in range(10):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            assert (await reader.readexactly(int(length[1]))).startswith(b'{"openapi"')
        writer.close()
        await writer.wait_closed()


_TINY_RECORDS = """\
import socket, ssl, sys
port, certificate = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=certificate)
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
client = socket.create_connection(("127.0.0.1", port))
while True:
    try:
        tls.do_handshake()
        break
    except ssl.SSLWantReadError:
        client.sendall(outgoing.read())
        incoming.write(client.recv(65536))
for byte in b"POST /health HTTP/1.0\\r\\nContent-Length: 11000\\r\\n\\r\\n" + b"x" * 11000:
    tls.write(bytes([byte]))
client.sendall(outgoing.read())
while data := client.recv(65536):
    incoming.write(data)
print(tls.read(12))
"""


async def test_records_of_one_byte_do_not_hold_up_the_loop(web_file: Path) -> None:
    """250 KB of them arrive in one read, and are decrypted in turns."""
    async with listening(web_file) as port:
        command = [sys.executable, "-c", _TINY_RECORDS, str(port), str(web_file.parent / "ca.pem")]

        async def attack() -> None:
            client = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
            async with asyncio.timeout(60):
                output, _ = await client.communicate()
            assert output == b"b'HTTP/1.1 405'\n"

        await assert_iterations_are_short(attack)


@pytest.mark.timeout(120)
async def test_fourteen_hundred_silent_clients_keep_nobody_out(tmp_path: Path, web_file: Path) -> None:
    """The oldest unfinished handshake makes room for the newest connection."""
    flags = f"--web.config.file={web_file}"
    async with program(tmp_path, SERVICES, flags, files=4096) as running, AsyncExitStack() as stack:
        silent = []
        for _ in range(1400):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            stack.callback(writer.close)
            silent.append(reader)
        assert await handshake(running.port, trusting(web_file)) == ""
        async with asyncio.timeout(10):
            assert await silent[0].read() == b""
        async with httpx.AsyncClient(verify=trusting(web_file)) as client:
            assert (await client.get(f"https://localhost:{running.port}/metrics")).status_code == 200


@pytest.mark.timeout(120)
async def test_idle_followers_of_events_leave_descriptors_for_others(tmp_path: Path) -> None:
    """With 64 file descriptors, 32 clients of /events do not lock out health probes or Prometheus."""
    async with program(tmp_path, SERVICES, files=64) as running, AsyncExitStack() as stack:
        first: list[bytes] = []
        for _ in range(32):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            stack.callback(writer.close)
            writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(10):
                first.append((await reader.readline())[9:12])
        assert first == [b"200"] * 16 + [b"503"] * 16
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}") as client:
            for path in ("/-/healthy", "/-/ready", "/metrics", "/health/detailed"):
                assert (await client.get(path)).status_code == 200, path
