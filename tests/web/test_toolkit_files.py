"""Web config files as other exporters take them: each starts the exporter, and means here what it means there."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bcrypt
import httpx
import pytest
import trustme
from connection_exporter.cli.main import main
from connection_exporter.config import ConfigError
from connection_exporter.config.document import MAX_EXPANDED, parse
from connection_exporter.config.web import WebConfig, load_web
from support.web_clients import get, listening

pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")

HASH = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
TLS = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"


@pytest.fixture(scope="module")
def ours() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def theirs() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def folder(tmp_path: Path, ours: trustme.CA, theirs: trustme.CA) -> Path:
    """A folder with a server's certificate, that of a client (from another authority), and those of both CAs."""
    made = ours.issue_cert("localhost")
    made.private_key_pem.write_to_path(tmp_path / "server.key")
    made.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    client = theirs.issue_cert("client.example.com", "other.example.com")
    client.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    theirs.cert_pem.write_to_path(tmp_path / "clients.pem")
    ours.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path


def read(folder: Path, text: str) -> WebConfig:
    (folder / "web.yml").write_text(text)
    return load_web(folder / "web.yml")


def indented(pem: Path) -> str:
    return "".join(f"    {line}\n" for line in pem.read_text().splitlines())


async def handshake(port: int, folder: Path, *, certificate: bool, **versions: ssl.TLSVersion) -> int | None:
    """Return the status of a request over TLS, or ``None`` if the handshake fails."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if versions:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    for key, version in versions.items():
        setattr(context, key, version)
    if certificate:
        context.load_cert_chain(folder / "client.pem")
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        try:
            return (await client.get(f"https://localhost:{port}/-/healthy")).status_code
        except (httpx.TransportError, ssl.SSLError):
            return None


@pytest.mark.parametrize(
    ("text", "tls"),
    [
        ("", False),
        ("# nothing\n", False),
        ("tls_server_config:\n", False),
        ("tls_server_config: {}\n", False),
        ("tls_server_config: {cert_file: '', key_file: '', client_ca: '', client_auth_type: ''}\n", False),
        ("tls_server_config: {min_version: TLS13}\n", False),
        ("basic_auth_users:\n", False),
        ("http_server_config:\n  headers:\n", False),
        ("http_server_config: {headers: {X-Frame-Options: }}\n", False),
        (TLS, True),
        (
            TLS + "  cert: ''\n  key: ''\n  client_ca: ''\n  client_ca_file: ''\n  client_auth_type: ''\n",
            True,
        ),
        (TLS + "  client_auth_type: NoClientCert\n", True),
        (TLS + "  client_auth_type: RequestClientCert\n  client_ca_file: clients.pem\n", True),
        (TLS + "  min_version: TLS10\n  max_version: TLS12\n", True),
        (TLS + "  min_version: TLS13\n", True),
        (TLS + "  prefer_server_cipher_suites: no\n", True),
        (TLS + "  curve_preferences: [CurveP256, CurveP384, CurveP521, X25519]\n", True),
        (TLS + "  curve_preferences:\n    - CurveP521\n", True),
        (TLS + "  cipher_suites:\n", True),
        (TLS + "  client_allowed_sans:\n", True),
        (TLS + "http_server_config: {http2: yes}\n", True),
        (TLS + "http_server_config: {http2: Off}\n", True),
    ],
)
def test_a_valid_file_is_accepted(folder: Path, text: str, tls: bool) -> None:
    """A key that is empty counts as absent, and a section alone does not turn TLS on."""
    assert (read(folder, text).context is not None) is tls


def test_every_cipher_suite_of_go_is_known(folder: Path) -> None:
    """By its name in Go."""
    suites = [
        f"TLS_ECDHE_{key}_WITH_{cipher}"
        for key in ("RSA", "ECDSA")
        for cipher in (
            *("AES_128_CBC_SHA", "AES_256_CBC_SHA", "AES_128_GCM_SHA256", "AES_256_GCM_SHA384"),
            "CHACHA20_POLY1305_SHA256",
        )
    ]
    suites += ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
    context = read(folder, TLS + f"  cipher_suites: [{', '.join(suites)}]\n").context
    assert context is not None
    assert len(context.get_ciphers()) >= 13


async def test_headers_need_no_quotes(folder: Path) -> None:
    """What looks like a number, a boolean or a mapping is text where text is expected."""
    (folder / "web.yml").write_text(
        "http_server_config:\n  headers:\n"
        "    X-XSS-Protection: 0\n"
        "    X-Frame-Options: deny\n"
        "    X-Content-Type-Options: nosniff\n"
        "    Strict-Transport-Security: max-age=31536000; includeSubDomains\n"
        "    Content-Security-Policy: >\n      default-src 'self';\n      img-src *\n"
    )
    async with listening(folder / "web.yml") as port:
        headers = (await get(port)).headers
    assert headers["x-xss-protection"] == "0"
    assert headers["x-frame-options"] == "deny"
    assert headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
    assert headers["content-security-policy"] == "default-src 'self'; img-src *"


@pytest.mark.parametrize(
    ("text", "interval", "burst"),
    [
        ("{interval: 1s, burst: 5}", 1.0, 5),
        ("{interval: 1000000000, burst: 5}", 1.0, 5),
        ("{interval: 1h15m, burst: 1}", 4500.0, 1),
        ("{interval: 250us, burst: 1}", 0.00025, 1),
        ("{interval: 0.5s, burst: 1}", 0.5, 1),
        ("{interval: 1s, burst: 0}", 1.0, 0),
        ("{interval: 1s}", 1.0, 0),
    ],
)
def test_a_rate_limit_is_read_as_in_go(folder: Path, text: str, interval: float, burst: int) -> None:
    """A number without a unit is in nanoseconds."""
    limit = read(folder, f"rate_limit: {text}\n").rate_limit
    assert limit is not None
    assert (limit.interval, limit.burst) == (interval, burst)


@pytest.mark.parametrize("text", ["{interval: 0, burst: 0}", "{interval: 0s, burst: 9}", "{burst: 3}", ""])
def test_without_an_interval_there_is_no_rate_limit(folder: Path, text: str) -> None:
    """Whatever the burst."""
    assert read(folder, f"rate_limit: {text}\n").rate_limit is None


async def test_a_burst_of_0_lets_nobody_pass_and_says_so(folder: Path) -> None:
    """As there, and with a warning."""
    notes = read(folder, "rate_limit: {interval: 1s, burst: 0}\n").notes
    assert any("lets nobody pass" in note for note in notes)
    async with listening(folder / "web.yml") as port:
        assert (await get(port)).status_code == 429


async def test_anchors_aliases_and_merge_keys(folder: Path) -> None:
    """Keys that are written out win over those that are merged."""
    text = (
        f"basic_auth_users:\n  alice: &hash {HASH}\n  bob: *hash\n"
        "http_server_config:\n  headers: &headers\n    X-Frame-Options: deny\n    X-XSS-Protection: 0\n"
    )
    made = read(folder, text)
    assert made.users["alice"] == made.users["bob"] == HASH
    merged = parse("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*b, *a], z: 3}", as_go=True)
    assert merged.value == {
        "a": {"x": "1", "y": "1"},
        "b": {"y": "2", "z": "2"},
        "c": {"x": "1", "y": "2", "z": "3"},
    }
    assert merged.mistakes == []
    async with listening(folder / "web.yml") as port:
        for user in ("alice", "bob"):
            assert (await get(port, auth=(user, "right"))).headers["x-frame-options"] == "deny"


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [*{inner}, *{inner}, *{inner}, *{inner}]\n"
    for inner, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "a: &a {<<: *a}",
        "a: &a [*a]",
        "&a {b: {c: *a}}",
    ],
)
def test_aliases_that_expand_without_end_are_refused(text: str) -> None:
    """In bounded time and memory."""
    document = parse(text, as_go=True)
    assert [mistake.text for mistake in document.mistakes] == ["the aliases expand to too much: write it out"]
    assert len(document.lines) < 2 * MAX_EXPANDED


async def test_certificates_inline(folder: Path) -> None:
    """All three of them."""
    text = (
        f"tls_server_config:\n  cert: |\n{indented(folder / 'server.pem')}  key: |\n{indented(folder / 'server.key')}"
        f"  client_ca: |\n{indented(folder / 'clients.pem')}  client_auth_type: RequireAndVerifyClientCert\n"
    )
    read(folder, text)
    async with listening(folder / "web.yml") as port:
        assert await handshake(port, folder, certificate=True) == 200
        assert await handshake(port, folder, certificate=False) is None


def test_a_file_wins_over_inline_text(folder: Path) -> None:
    """As there, and with a warning."""
    notes = read(folder, TLS + "  cert: nonsense\n").notes
    assert "tls_server_config.cert: cert_file is also given, and takes precedence" in notes


CA = "  client_ca_file: clients.pem\n"


@pytest.mark.parametrize(
    ("lines", "with_certificate", "without"),
    [
        ("NoClientCert\n", 200, 200),
        ("RequestClientCert\n", 200, 200),
        ("RequestClientCert\n" + CA, 200, 200),
        ("RequireAnyClientCert\n", 200, 200),  # no certificate is requested: anybody could make one
        ("RequireClientCert\n", 200, 200),
        ("RequireAnyClientCert\n" + CA, 200, None),
        ("RequireClientCert\n" + CA, 200, None),
        ("VerifyClientCertIfGiven\n" + CA, 200, 200),
        ("RequireAndVerifyClientCert\n" + CA, 200, None),
        ("VerifyClientCertIfGiven\n", None, 200),  # the system does not know the client's authority
        ("RequireAndVerifyClientCert\n", None, None),
        (
            "RequireAndVerifyClientCert\n" + CA + "  client_allowed_sans: [one, client.example.com]\n",
            200,
            None,
        ),
        ("RequireAndVerifyClientCert\n" + CA + "  client_allowed_sans: [one, two]\n", None, None),
        ("RequireAnyClientCert\n  client_allowed_sans: [client.example.com]\n", None, None),
    ],
)
async def test_each_client_auth_type(
    folder: Path, lines: str, with_certificate: int | None, without: int | None
) -> None:
    """Towards a client with a certificate of an authority that the system does not know, and one without."""
    notes = read(folder, f"{TLS}  client_auth_type: {lines}").notes
    async with listening(folder / "web.yml") as port:
        assert await handshake(port, folder, certificate=True) == with_certificate
        assert await handshake(port, folder, certificate=False) == without
    if "Any" in lines or "RequireClientCert" in lines or "Request" in lines or "ca_file" not in lines:
        assert notes or lines == "NoClientCert\n"


async def test_the_system_s_authorities_vouch_for_clients_if_no_other_is_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Go, where an empty pool means the system's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "clients.pem"))
    read(folder, f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n")
    async with listening(folder / "web.yml") as port:
        assert await handshake(port, folder, certificate=True) == 200
        assert await handshake(port, folder, certificate=False) is None


async def test_a_client_s_own_certificate_may_be_its_authority(folder: Path, theirs: trustme.CA) -> None:
    """As with Go's pools: whatever is in the file is trusted, also if it is no CA."""
    leaf = theirs.issue_cert("one.example.com", not_after=datetime.now(UTC) + timedelta(days=1))
    leaf.private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
    leaf.cert_chain_pems[0].write_to_path(folder / "clients.pem")
    read(folder, f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n{CA}")
    async with listening(folder / "web.yml") as port:
        assert await handshake(port, folder, certificate=True) == 200


@pytest.mark.parametrize(
    ("lowest", "highest", "accepted"),
    [
        ("TLS10", "TLS12", {"TLSv1", "TLSv1_1", "TLSv1_2"}),
        ("TLS11", "TLS13", {"TLSv1_1", "TLSv1_2", "TLSv1_3"}),
        ("TLS12", "TLS12", {"TLSv1_2"}),
        ("TLS13", "TLS13", {"TLSv1_3"}),
    ],
)
async def test_each_version_of_tls(folder: Path, lowest: str, highest: str, accepted: set[str]) -> None:
    """Those that are asked for are spoken, the old ones as well."""
    read(folder, TLS + f"  min_version: {lowest}\n  max_version: {highest}\n")
    async with listening(folder / "web.yml") as port:
        spoken = set()
        for version in (v for v in ssl.TLSVersion if v.name.startswith("TLSv")):
            versions = {"minimum_version": version, "maximum_version": version}
            if await handshake(port, folder, certificate=False, **versions) == 200:
                spoken.add(version.name)
    assert spoken == accepted


async def test_excluded_paths_need_no_password(folder: Path) -> None:
    """Exactly these paths, and no others."""
    read(folder, f"auth_excluded_paths:\n  - /metrics\nbasic_auth_users:\n  admin: {HASH}\n")
    async with listening(folder / "web.yml") as port:
        assert (await get(port, "/metrics")).status_code == 200
        for path in ("/metrics/", "/health", "//metrics", "/-/healthy"):
            assert (await get(port, path)).status_code == 401
        assert (await get(port, "/-/healthy", auth=("admin", "right"))).status_code == 200


def test_a_missing_file_is_named(folder: Path) -> None:
    """The web config itself, and each file in it."""
    with pytest.raises(ConfigError, match=r"none\.yml: cannot be read: no such file"):
        load_web(folder / "none.yml")
    with pytest.raises(ConfigError, match=r"none\.pem cannot be read: no such file"):
        read(folder, "tls_server_config: {cert_file: none.pem, key_file: server.key}\n")
    with pytest.raises(ConfigError, match=r"none\.pem cannot be read: no such file"):
        read(folder, TLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: none.pem\n")


def test_an_empty_flag_means_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As units and charts write it where there is none."""
    config = folder / "connection-exporter.yml"
    config.write_text("services:\n  a: {kind: process, name: x}\n")
    assert main(["validate", f"--config.file={config}", "--web.config.file="]) == 0
    assert "valid" in capsys.readouterr().out


def test_what_cannot_be_honoured_is_a_warning_of_validate(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for each."""
    config = folder / "connection-exporter.yml"
    config.write_text("services:\n  a: {kind: process, name: x}\n")
    text = TLS + "  client_auth_type: RequireAnyClientCert\nhttp_server_config: {http2: yes}\n"
    (folder / "web.yml").write_text(text)
    assert main(["validate", f"--config.file={config}", f"--web.config.file={folder / 'web.yml'}"]) == 0
    shown = capsys.readouterr().out
    assert (
        "warning: tls_server_config.client_auth_type: RequireAnyClientCert accepts any certificate" in shown
    )
    assert "warning: http_server_config.http2" in shown
