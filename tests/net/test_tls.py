"""TLS towards a service is curl's, on every version of Python: what is accepted, and what an error says."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net import Endpoint, Network, TlsOptions, failure_from
from connection_exporter.net.tls import TlsContexts
from connection_exporter.net.tls_options import TlsVersion
from cryptography import x509
from cryptography.hazmat.primitives.serialization import PrivateFormat
from support.certificates import CA, Certificate, issue, server_context, tls_server

OLD = pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")

KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
AUTHORITIES = {
    "correct": (CA, (KEY_USAGE, True)),
    "no keyUsage": (CA,),
    "keyUsage not critical": (CA, (KEY_USAGE, False)),
    "basicConstraints not critical": ((CA[0], False),),
}


class Probe(asyncio.Protocol):
    """Sends a byte, and completes ``result`` with the answer or the error."""

    def __init__(self) -> None:
        self.result: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(b"x")

    def data_received(self, data: bytes) -> None:
        self.result.set_result(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.result.done():
            self.result.set_exception(exc or EOFError())


async def ask(port: int, options: TlsOptions, *, name: str = "localhost") -> ssl.SSLObject:
    """Make a round trip and return the TLS of it. Raises `Failure` and the error that the protocol gets."""
    endpoint = Endpoint(Network(), "127.0.0.1", port, where="it", tls=replace(options, server_name=name))
    _, probe = await endpoint.connect(Probe)
    try:
        async with asyncio.timeout(20):
            assert await probe.result == b"x"
        tls = probe.transport.get_extra_info("ssl_object")
        assert isinstance(tls, ssl.SSLObject)
        return tls
    finally:
        probe.transport.abort()


def server(folder: Path, *chain: Certificate) -> AbstractContextManager[int]:
    return tls_server(server_context(folder, *chain))


@pytest.mark.parametrize("extensions", AUTHORITIES.values(), ids=AUTHORITIES)
async def test_an_authority_may_lack_what_only_strict_verification_asks_for(
    tmp_path: Path, extensions: tuple[tuple[x509.ExtensionType, bool], ...]
) -> None:
    """Python 3.13 and later refuse it by default (VERIFY_X509_STRICT); curl does not."""
    root = issue(subject="Root", extensions=extensions)
    options = TlsOptions(ca_file=root.write(tmp_path / "ca.pem"))
    with server(tmp_path, issue("localhost", issuer=root)) as port:
        await ask(port, options)


@pytest.mark.parametrize("trusted", ["root", "intermediate", "leaf"])
async def test_any_certificate_of_the_chain_may_be_trusted(tmp_path: Path, trusted: str) -> None:
    """A partial chain is enough for curl, and by default for Python 3.13 and later."""
    root = issue(subject="Root", extensions=AUTHORITIES["correct"])
    intermediate = issue(subject="Intermediate", issuer=root, extensions=AUTHORITIES["correct"])
    leaf = issue("localhost", issuer=intermediate)
    chosen = {"root": root, "intermediate": intermediate, "leaf": leaf}[trusted]
    options = TlsOptions(ca_file=chosen.write(tmp_path / "ca.pem"))
    with server(tmp_path, leaf, intermediate) as port:
        await ask(port, options)


async def test_a_certificate_signed_by_itself_is_accepted_if_it_is_trusted(tmp_path: Path) -> None:
    """And not by the system's authorities, which `ca_file` replaces and never adds to."""
    own = issue("localhost")
    with server(tmp_path, own) as port:
        await ask(port, TlsOptions(ca_file=own.write(tmp_path / "ca.pem")))
        with pytest.raises(Failure, match="self-signed certificate") as raised:
            await ask(port, TlsOptions())
        assert raised.value.reason is Reason.TLS


async def test_a_certificate_of_another_authority_is_refused(tmp_path: Path) -> None:
    """Being lenient about extensions is not being lenient about trust."""
    root, other = (issue(subject="Root", extensions=AUTHORITIES["correct"]) for _ in range(2))
    options = TlsOptions(ca_file=root.write(tmp_path / "ca.pem"))
    with server(tmp_path, issue("localhost", issuer=other), other) as port:
        with pytest.raises(Failure, match="the certificate is not accepted") as raised:
            await ask(port, options)
        assert raised.value.reason is Reason.TLS


async def test_a_name_that_the_certificate_does_not_have_is_refused(tmp_path: Path) -> None:
    """Also one that only differs in a wildcard of two levels."""
    root = issue(subject="Root", extensions=AUTHORITIES["correct"])
    options = TlsOptions(ca_file=root.write(tmp_path / "ca.pem"))
    with server(tmp_path, issue("*.corp.test", issuer=root)) as port:
        await ask(port, options, name="api.corp.test")
        with pytest.raises(Failure, match=r"not valid for 'a\.b\.corp\.test'"):
            await ask(port, options, name="a.b.corp.test")


async def test_an_authority_that_is_none_is_refused(tmp_path: Path) -> None:
    """A leaf must not sign others, however lenient the check of extensions is."""
    root = issue(subject="Root", extensions=AUTHORITIES["correct"])
    leaf = issue("leaf.test", issuer=root, extensions=((x509.BasicConstraints(False, None), True),))
    forged = issue("localhost", issuer=leaf)
    options = TlsOptions(ca_file=root.write(tmp_path / "ca.pem"))
    with (
        server(tmp_path, forged, leaf) as port,
        pytest.raises(Failure, match="the certificate is not accepted"),
    ):
        await ask(port, options)


@OLD
@pytest.mark.parametrize(("version", "shown"), [("1.0", "TLSv1"), ("1.1", "TLSv1.1")])
async def test_an_old_version_is_used_only_if_it_is_asked_for(
    tmp_path: Path, version: TlsVersion, shown: str
) -> None:
    """OpenSSL 3 has these versions only at security level 0, which `min_version` therefore sets."""
    context = server_context(tmp_path, issue("localhost"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    number = {"1.0": ssl.TLSVersion.TLSv1, "1.1": ssl.TLSVersion.TLSv1_1}[version]
    context.minimum_version = context.maximum_version = number
    with tls_server(context) as port:
        with pytest.raises(Failure) as raised:
            await ask(port, TlsOptions(verify=False))
        assert raised.value.reason is Reason.TLS
        for options in (
            TlsOptions(verify=False, min_version=version),
            TlsOptions(verify=False, max_version=version),
        ):
            assert (await ask(port, options)).version() == shown


async def test_the_newest_version_can_be_limited(tmp_path: Path) -> None:
    """1.3 is used if both sides have it."""
    with server(tmp_path, issue("localhost")) as port:
        assert (await ask(port, TlsOptions(verify=False))).version() == "TLSv1.3"
        assert (await ask(port, TlsOptions(verify=False, max_version="1.2"))).version() == "TLSv1.2"


async def test_ciphers_are_openssls_and_can_be_chosen(tmp_path: Path) -> None:
    """Python's own list lacks ciphers with SHA-1 that curl offers, and some appliances have no others."""
    context = server_context(tmp_path, issue("localhost"))
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA")
    with tls_server(context) as port:
        found = (await ask(port, TlsOptions(verify=False, max_version="1.2"))).cipher()
        assert found is not None
        assert found[0] == "ECDHE-ECDSA-AES128-SHA"
        other = TlsOptions(verify=False, max_version="1.2", ciphers="ECDHE-ECDSA-AES256-SHA")
        with pytest.raises(Failure, match="handshake failure"):
            await ask(port, other)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
async def test_a_key_may_have_a_passphrase(tmp_path: Path, form: PrivateFormat) -> None:
    """In a file or in the config. If it is wrong or missing, the error names the key, and nothing prompts."""
    root = issue(subject="Root", extensions=AUTHORITIES["correct"])
    own = issue("client.test", issuer=root)
    certificate, key, passphrase = (
        own.write(tmp_path / "c.pem"),
        tmp_path / "c.key",
        tmp_path / "passphrase",
    )
    key.write_bytes(own.key_pem("straße".encode(), form))
    passphrase.write_bytes("\ufeffstraße\r\n".encode())
    context = server_context(tmp_path, issue("localhost", issuer=root))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(root.write(tmp_path / "ca.pem"))
    given = TlsOptions(verify=False, cert_file=certificate, key_file=key)
    with tls_server(context) as port:
        await ask(port, TlsOptions(verify=False, cert_file=certificate, key_file=key, key_password="straße"))
        await ask(
            port, TlsOptions(verify=False, cert_file=certificate, key_file=key, key_password_file=passphrase)
        )
    wrong = tmp_path / "wrong"
    wrong.write_text("hunter2")
    for options, text in (
        (given, f"key_file {key} has a passphrase: add tls.key_password_file"),
        (
            TlsOptions(cert_file=certificate, key_file=key, key_password="hunter2"),
            "passphrase in key_password",
        ),
        (TlsOptions(cert_file=certificate, key_file=key, key_password_file=wrong), f"passphrase in {wrong}"),
        (TlsOptions(cert_file=certificate, key_file=key, key_password="x" * 2000), "cannot be decrypted"),
        (TlsOptions(cert_file=certificate, key_file=key, key_password=""), "cannot be decrypted"),
    ):
        with pytest.raises(Failure) as raised:
            await TlsContexts().get(options)
        assert raised.value.reason is Reason.TLS
        assert text in raised.value.message
        assert str(key) in raised.value.message
        assert "hunter2" not in raised.value.message


async def test_a_key_of_another_certificate_is_named(tmp_path: Path) -> None:
    """OpenSSL's own text is `key values mismatch`."""
    certificate, key = issue("a.test").write(tmp_path / "c.pem"), tmp_path / "c.key"
    key.write_bytes(issue("b.test").key_pem())
    with pytest.raises(Failure, match=f"key_file {key} does not belong to cert_file {certificate}"):
        await TlsContexts().get(TlsOptions(cert_file=certificate, key_file=key))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_a_missing_client_certificate_is_a_fault_of_tls(
    tmp_path: Path, version: TlsVersion, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """With TLS 1.3, the alert comes after the handshake, and our request may meet a reset before it is read."""
    root = issue(subject="Root", extensions=AUTHORITIES["correct"])
    context = server_context(tmp_path, issue("localhost", issuer=root))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(root.write(tmp_path / "ca.pem"))

    async def scenario(port: int) -> Failure | None:
        with pytest.raises((Failure, OSError)) as raised:
            await ask(port, TlsOptions(ca_file=tmp_path / "ca.pem", max_version=version))
        return failure_from(raised.value, "it")

    with tls_server(context) as port, asyncio.Runner(loop_factory=loop) as runner:
        for _ in range(20):
            failure = runner.run(scenario(port))
            assert failure is not None
            assert failure.reason is Reason.TLS
            assert (
                failure.message
                == {
                    "1.2": "it: TLS failed: sslv3 alert handshake failure",
                    "1.3": "it: TLS failed: tlsv13 alert certificate required",
                }[version]
            )
