"""``--web.config.file``: TLS, passwords and headers of the listener, as exporter-toolkit's files say them."""

import asyncio
import base64
import gc
import ssl
import time
from contextlib import AsyncExitStack
from pathlib import Path

import bcrypt
import httpx
import pytest
import trustme
from connection_exporter.cli.main import main
from connection_exporter.config import ConfigError
from connection_exporter.config.web import load_web
from connection_exporter.web import limits
from cryptography.hazmat.primitives import serialization
from support.certificates import issue
from support.web_clients import get, listening

HASHES = {cost: bcrypt.hashpw(b"right", bcrypt.gensalt(cost)).decode() for cost in (4, 10)}


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "web.yml"


def write(file: Path, text: str) -> None:
    file.write_text(text)


def certificate(folder: Path, authority: trustme.CA, *names: str, stem: str = "server") -> None:
    made = authority.issue_cert(*(names or ("localhost", "127.0.0.1")))
    (folder / f"{stem}.key").write_bytes(made.private_key_pem.bytes())
    (folder / f"{stem}.pem").write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))


def client(authority: trustme.CA, tmp_path: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if tmp_path is not None:
        context.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    return context


async def https(port: int, context: ssl.SSLContext) -> int:
    async with httpx.AsyncClient(verify=context) as it:
        return (await it.get(f"https://localhost:{port}/-/healthy")).status_code


TLS = "tls_server_config: {cert_file: server.pem, key_file: server.key"


async def test_it_serves_tls_with_paths_relative_to_the_file(
    file: Path, tmp_path: Path, authority: trustme.CA
) -> None:
    """A plain request gets an explanation, as from Go."""
    certificate(tmp_path, authority)
    write(file, TLS + "}\n")
    async with listening(file) as port:
        assert await https(port, client(authority)) == 200
        plain = await get(port)
        assert (plain.status_code, plain.headers["content-type"]) == (400, "text/plain; charset=utf-8")
        assert plain.text == "Client sent an HTTP request to an HTTPS server.\n"


async def test_a_renewed_certificate_counts_without_a_restart(
    file: Path, tmp_path: Path, authority: trustme.CA
) -> None:
    """For new connections; those that are open go on."""
    certificate(tmp_path, authority)
    write(file, TLS + "}\n")
    new = trustme.CA()
    async with listening(file) as port, httpx.AsyncClient(verify=client(authority)) as kept:
        assert (await kept.get(f"https://localhost:{port}/-/healthy")).status_code == 200
        certificate(tmp_path, new)
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await https(port, client(new)) == 200
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
        assert (await kept.get(f"https://localhost:{port}/-/healthy")).status_code == 200


async def test_half_a_renewal_keeps_the_old_certificate(
    file: Path, tmp_path: Path, authority: trustme.CA
) -> None:
    """A certificate without its key is a mistake, and a mistake changes nothing."""
    certificate(tmp_path, authority)
    write(file, TLS + "}\n")
    async with listening(file) as port:
        key = (tmp_path / "server.key").read_bytes()
        certificate(tmp_path, authority)
        (tmp_path / "server.key").write_bytes(key)
        with pytest.raises(
            ConfigError,
            match=r"tls_server_config\.key_file: .*server\.key does not belong to the certificate",
        ):
            load_web(file)
        await asyncio.sleep(5)
        assert await https(port, client(authority)) == 200


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            "cert_file: empty, key_file: server.key",
            "cert_file: FOLDER/empty is empty: expected a certificate (PEM)",
        ),
        (
            "cert_file: text, key_file: server.key",
            "cert_file: FOLDER/text contains no certificate: NO_CERTIFICATE",
        ),
        (
            "cert_file: server.key, key_file: server.key",
            "cert_file: FOLDER/server.key contains no certificate: NO_CERTIFICATE",
        ),
        ("cert: text, key_file: server.key", "cert: contains no certificate: NO_CERTIFICATE"),
        ("cert_file: server.pem, key_file: text", "key_file: FOLDER/text contains no private key: NO_KEY"),
        (
            "cert_file: server.pem, key_file: other.key",
            "key_file: FOLDER/other.key does not belong to the certificate",
        ),
        (
            "cert_file: server.pem, key_file: rsa.key",
            "key_file: FOLDER/rsa.key does not belong to the certificate",
        ),
        (
            "cert_file: damaged.pem, key_file: server.key",
            "cert_file: certificate and key cannot be used: damaged",
        ),
        (
            "cert_file: server.pem, key_file: server.key, client_ca_file: text, "
            "client_auth_type: RequireAndVerifyClientCert",
            "client_ca_file: FOLDER/text contains no certificate: NO_CERTIFICATE",
        ),
    ],
)
def test_the_file_that_cannot_be_used_is_named(file: Path, tmp_path: Path, keys: str, said: str) -> None:
    """OpenSSL's own text is `PEM lib` for most of them."""
    own = issue("localhost")
    own.write(tmp_path / "server.pem")
    for name, content in (
        ("server.key", own.key_pem()),
        ("other.key", issue("localhost").key_pem()),
        ("rsa.key", trustme.CA(key_type=trustme.KeyType.RSA).private_key_pem.bytes()),
        ("damaged.pem", own.pem.replace(b"MII", b"AAA")),
        ("empty", b""),
        ("text", b"no PEM"),
    ):
        (tmp_path / name).write_bytes(content)
    write(file, f"tls_server_config: {{{keys}}}\n")
    with pytest.raises(ConfigError) as caught:
        load_web(file)
    for word, meaning in (
        ("FOLDER", str(tmp_path)),
        ("NO_CERTIFICATE", "expected PEM, with -----BEGIN CERTIFICATE-----"),
        ("NO_KEY", "expected PEM, with -----BEGIN PRIVATE KEY-----"),
    ):
        said = said.replace(word, meaning)
    assert str(caught.value) == f"{file}:1: tls_server_config.{said}"


async def test_client_certificates_can_be_required(file: Path, tmp_path: Path, authority: trustme.CA) -> None:
    """None, and one of another authority, do not get in; nor does one with another name, where names are given."""
    certificate(tmp_path, authority)
    certificate(tmp_path, authority, "grafana.example", stem="client")
    more = ", client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert"
    for sans, lets_in in (("", True), (", client_allowed_sans: [grafana.example]", True),
                          (", client_allowed_sans: [other.example]", False)):  # fmt: skip
        write(file, f"{TLS}{more}{sans}}}\n")
        async with listening(file) as port:
            with pytest.raises(ssl.SSLError, match="ALERT_CERTIFICATE_REQUIRED"):
                await https(port, client(authority))
            if lets_in:
                assert await https(port, client(authority, tmp_path)) == 200
            else:
                with pytest.raises(httpx.TransportError):
                    await https(port, client(authority, tmp_path))


async def test_clients_that_never_end_their_handshake_do_not_take_all_files(
    file: Path, tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those beyond the limit are closed at once, and nobody who had got through is disturbed."""
    certificate(tmp_path, authority)
    write(file, TLS + "}")
    monkeypatch.setattr(limits, "CONNECTIONS", 10)
    context = client(authority)
    async with listening(file) as port, AsyncExitStack() as stack, httpx.AsyncClient(verify=context) as kept:
        assert (await kept.get(f"https://localhost:{port}/-/healthy")).status_code == 200
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        for _, writer in silent:
            stack.callback(writer.close)
        await asyncio.sleep(0.5)
        assert sum(reader.at_eof() for reader, _ in silent) == 30
        assert (await kept.get(f"https://localhost:{port}/-/healthy")).status_code == 200
        for _, writer in silent:
            writer.close()
        await asyncio.sleep(0.2)
        gc.collect()  # which asyncio's own loop needs, and uvloop does not
        assert await https(port, context) == 200


async def test_old_versions_of_tls_are_refused(file: Path, tmp_path: Path, authority: trustme.CA) -> None:
    """Below 1.2 by default, below and above what the file says."""
    certificate(tmp_path, authority)
    write(file, TLS + ", min_version: TLS13}\n")
    async with listening(file) as port:
        old = client(authority)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(httpx.TransportError):
            await https(port, old)
        assert await https(port, client(authority)) == 200
    write(file, TLS + "}\n")
    context = load_web(file).context
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_inline_pem_serves_as_well(file: Path, tmp_path: Path, authority: trustme.CA) -> None:
    """As the toolkit allows; the key is not written anywhere."""
    certificate(tmp_path, authority)
    indented = {
        name: (tmp_path / f"server.{name}").read_text().replace("\n", "\n    ") for name in ("pem", "key")
    }
    write(file, f"tls_server_config:\n  cert: |\n    {indented['pem']}\n  key: |\n    {indented['key']}\n")
    for name in ("pem", "key"):
        (tmp_path / f"server.{name}").unlink()
    async with listening(file) as port:
        assert await https(port, client(authority)) == 200


@pytest.mark.parametrize("variant", ["$2a$", "$2b$", "$2y$"])
async def test_users_log_in_with_the_hashes_of_htpasswd(file: Path, variant: str) -> None:
    """Every route needs it, those of health probes too."""
    write(file, f"basic_auth_users: {{alice: {variant}{HASHES[4][4:]}}}\n")
    async with listening(file) as port:
        for path in ("/", "/metrics", "/health", "/-/healthy", "/-/ready", "/config", "/nowhere", "/events"):
            refused = await get(port, path)
            assert refused.status_code == 401, path
            assert refused.json()["detail"] == "a user and password are needed"
            assert refused.headers["www-authenticate"].startswith("Basic ")
            assert refused.headers["content-type"] == "application/problem+json"
        assert (await get(port, "/metrics", auth=("alice", "right"))).status_code == 200
        for login in (("alice", "wrong"), ("bob", "right")):
            refused = await get(port, "/metrics", auth=login)
            assert (refused.status_code, refused.json()["detail"]) == (401, "wrong user or password")
        assert (await get(port, "/metrics", auth=("", ""))).status_code == 401
        for garbled in ("Basic", "Basic ===", "Basic " + base64.b64encode(b"alice").decode(), "Bearer x"):
            assert (await get(port, "/metrics", headers={"Authorization": garbled})).status_code == 401


async def test_a_long_password_is_compared_as_htpasswd_does(file: Path) -> None:
    """Bcrypt looks at 72 bytes; more, and bytes that are nought, are no crash."""
    hashed = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    write(file, f"basic_auth_users: {{alice: {hashed}}}\n")
    async with listening(file) as port:
        assert (await get(port, auth=("alice", "x" * 100))).status_code == 503
        assert (await get(port, auth=("alice", "x" * 71 + "\0"))).status_code == 401


async def test_an_unknown_user_takes_as_long_as_a_wrong_password(file: Path) -> None:
    """Or names could be found by a stopwatch; and a password that was right once costs nothing any more."""
    write(file, f"basic_auth_users: {{alice: {HASHES[10]}}}\n")

    async def seconds(port: int, user: str, password: str) -> float:
        best = 10.0
        for number in range(5):
            # It is served by this process; what others do meanwhile does not matter.
            began = time.process_time()
            await get(port, auth=(user, password.format(number)))
            best = min(best, time.process_time() - began)
        return best

    async with listening(file) as port:
        unknown, wrong = await seconds(port, "nobody", "x{}"), await seconds(port, "alice", "x{}")
        right = await seconds(port, "alice", "right")
    assert unknown > wrong / 3
    assert wrong > unknown / 3
    assert right < wrong / 2


async def test_checking_passwords_does_not_hold_up_the_loop(file: Path) -> None:
    """While many wrong ones are checked, a known user is answered."""
    write(file, f"basic_auth_users: {{alice: {HASHES[10]}}}\n")
    async with listening(file) as port:
        assert (await get(port, auth=("alice", "right"))).status_code == 503
        wrong = [asyncio.create_task(get(port, auth=("alice", f"wrong{n}"), timeout=30)) for n in range(8)]
        await asyncio.sleep(0.05)
        assert (await get(port, auth=("alice", "right"))).status_code == 503
        assert sum(task.done() for task in wrong) < 8
        assert {answer.status_code for answer in await asyncio.gather(*wrong)} == {401}


async def test_a_preflight_needs_no_password(file: Path) -> None:
    """Browsers send none with it; it may do nothing but ask."""
    write(file, f"basic_auth_users: {{alice: {HASHES[4]}}}\n")
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    async with listening(file) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as it:
        assert (await it.options("/health/force-check", headers=headers)).status_code == 403
        assert (await it.options("/config", headers=headers)).status_code == 405
        assert (await it.options("/health/force-check")).status_code == 401


async def test_headers_are_set_on_every_answer_instead_of_ours(file: Path) -> None:
    """Refusals included."""
    write(
        file,
        "http_server_config:\n  headers: {X-Frame-Options: deny, Content-Security-Policy: default-src 'self'}\n"
        f"basic_auth_users: {{alice: {HASHES[4]}}}\n",
    )
    async with listening(file) as port:
        for answer in (await get(port, "/", auth=("alice", "right")), await get(port, "/nowhere")):
            assert answer.headers["x-frame-options"] == "deny"
            assert answer.headers.get_list("content-security-policy") == ["default-src 'self'"]


async def test_the_rate_of_requests_can_be_limited(file: Path) -> None:
    """A burst passes, the rest gets a time to retry."""
    write(file, "rate_limit: {interval: 5s, burst: 3}\n")
    async with listening(file) as port:
        answers = [await get(port) for _ in range(5)]
    assert [a.status_code for a in answers] == [503, 503, 503, 429, 429]
    assert answers[-1].headers["retry-after"] == "5"


async def test_users_change_without_a_restart(file: Path) -> None:
    """Who was removed does not get in by what was remembered of him."""
    write(file, f"basic_auth_users: {{alice: {HASHES[4]}}}\n")
    async with listening(file) as port:
        assert (await get(port, auth=("alice", "right"))).status_code == 503
        write(file, f"basic_auth_users: {{bob: {HASHES[4]}}}\n")
        async with asyncio.timeout(20):
            while (await get(port, auth=("bob", "right"))).status_code != 503:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        assert (await get(port, auth=("alice", "right"))).status_code == 401


def test_all_errors_are_reported_at_once_without_secrets(file: Path) -> None:
    """With file, line, path and fix."""
    write(
        file,
        "tls_server_config:\n  cert_fil: a.pem\n  min_version: TLS9\n  cipher_suites: [RC4]\n"
        "basic_auth_users:\n  alice: s3cret\n  bob: 12345678\n"
        "http_server_config:\n  headers: {X-Powered-By: us}\n  http2: maybe\n",
    )
    with pytest.raises(ConfigError) as caught:
        load_web(file)
    reported = str(caught.value)
    for part in (
        "web.yml:2: tls_server_config.cert_fil: unknown key; did you mean 'cert_file'?",
        "web.yml:3: tls_server_config.min_version: expected",
        "unknown cipher suite 'RC4'",
        "web.yml:6: basic_auth_users.alice: not a bcrypt hash",
        "web.yml:7: basic_auth_users.bob: not a bcrypt hash",
        "X-Powered-By: unknown key",
        "http2: expected true or false",
    ):
        assert part in reported, reported
    assert "s3cret" not in reported
    assert "12345678" not in reported


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("tls_server_config: {cert_file: a.pem}", "key and key_file are both missing"),
        ("tls_server_config: {cert_file: a.pem, key_file: none.key}", "cannot be read"),
        (TLS + ", client_auth_type: Any}", "client_auth_type: expected"),
        (TLS + ", client_ca_file: ca.pem}", "add `client_auth_type: RequireAndVerifyClientCert`"),
        (TLS + ", client_allowed_sans: [a]}", "client_allowed_sans: needs"),
        (TLS + ", min_version: TLS13, max_version: TLS12}", "is above max_version"),
        ("tls_server_config: {client_auth_type: NoClientCert}", "cert and cert_file are both missing"),
        ("rate_limit: {interval: soon}", "expected a duration"),
        ("[]", "expected a mapping"),
        ("basic_auth_users: {a: x}", "not a bcrypt hash"),
        ("http_server_config: {http2: 2}", "expected true or false"),
        ("a: &a [*a]", "expand to too much"),
    ],
)
def test_what_cannot_work_is_refused(
    file: Path, tmp_path: Path, authority: trustme.CA, text: str, reported: str
) -> None:
    """Before it is in force."""
    certificate(tmp_path, authority)
    write(file, text + "\n")
    with pytest.raises(ConfigError, match=reported):
        load_web(file)


def test_what_is_accepted_and_has_no_effect_is_named(
    file: Path, tmp_path: Path, authority: trustme.CA
) -> None:
    """So that a file written for another exporter can be used, and nobody is deceived."""
    certificate(tmp_path, authority)
    write(
        file,
        TLS + ", curve_preferences: [X25519, CurveP256], client_auth_type: RequestClientCert,"
        " cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]}\n"
        "http_server_config: {http2: true}\n",
    )
    reported = " ".join(load_web(file).notes)
    for word in ("http2", "curve_preferences", "cipher_suites", "RequestClientCert"):
        assert word in reported
    context = load_web(file).context
    assert context is not None
    old = {c["name"] for c in context.get_ciphers() if c["protocol"] != "TLSv1.3"}
    assert old == {"ECDHE-RSA-AES128-GCM-SHA256"}


def test_a_rate_limit_can_be_turned_off_as_the_toolkit_says(file: Path) -> None:
    """By an interval of 0, whatever the burst."""
    write(file, "rate_limit: {interval: 0, burst: 0}\n")
    assert load_web(file).rate_limit is None


def test_an_empty_file_is_a_valid_one(file: Path) -> None:
    """As the toolkit takes it: no TLS and no users."""
    write(file, "# nothing\nbasic_auth_users:\n")
    read = load_web(file)
    assert (read.context, dict(read.users)) == (None, {})


def test_a_key_with_a_passphrase_does_not_wait_for_somebody_to_type(tmp_path: Path) -> None:
    """It is a mistake like any other."""
    authority = trustme.CA()
    certificate(tmp_path, authority)
    key = serialization.load_pem_private_key((tmp_path / "server.key").read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    (tmp_path / "server.key").write_bytes(locked)
    (tmp_path / "web.yml").write_text(TLS + "}\n")
    with pytest.raises(ConfigError, match="passphrase"):
        load_web(tmp_path / "web.yml")


def test_validate_checks_it_too(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Together with the config: the errors of both are reported."""
    config = tmp_path / "connection-exporter.yml"
    config.write_text("services:\n  a: {kind: process, nam: x}\n")
    write(file, "basic_auth_users: {alice: x}\n")
    flags = ["validate", f"--config.file={config}", f"--web.config.file={file}"]
    assert main(flags) == 2
    reported = capsys.readouterr().err
    assert "did you mean 'name'" in reported
    assert "not a bcrypt hash" in reported
    config.write_text("services:\n  a: {kind: process, name: x}\n")
    write(file, f"basic_auth_users: {{alice: {HASHES[4]}}}\n")
    assert main(flags) == 0
    assert "in the clear" in capsys.readouterr().out
