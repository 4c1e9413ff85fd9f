"""Which certificate of a chain expires first, and whose it is; no bytes can do harm."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from connection_exporter.net import Endpoint, Network, TlsOptions
from connection_exporter.net.certificate import CERTIFICATE_EXPIRY, CERTIFICATE_SUBJECT, parse_certificate
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from support.certificates import CA, Certificate, issue, server_context, tls_server


def in_days(days: int) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


async def details_of(folder: Path, *chain: Certificate, trusted: Certificate | None) -> tuple[object, object]:
    """Connect to a server that presents ``chain``. Return the expiry and the subject that are reported."""
    ca_file = trusted.write(folder / "ca.pem") if trusted is not None else None
    options = TlsOptions(verify=trusted is not None, ca_file=ca_file, server_name="localhost")
    with tls_server(server_context(folder, *chain)) as port:
        endpoint = Endpoint(Network(), "127.0.0.1", port, where="it", tls=options)
        link, connection = await endpoint.connect(Quiet)
        connection.transport.abort()
    details = endpoint.details(link)
    return details[CERTIFICATE_EXPIRY], details[CERTIFICATE_SUBJECT]


class Quiet(asyncio.Protocol):
    """Keeps its transport."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("days", "first"), [((90, 60, 30), "leaf"), ((90, 30, 60), "intermediate"), ((30, 90, 60), "root")]
)
async def test_the_earliest_expiry_of_the_chain_is_reported_with_its_subject(
    tmp_path: Path, days: tuple[int, int, int], first: str, verify: bool
) -> None:
    """An intermediate that expires before the leaf takes the service down just as well.

    This is also the contract of the private names that Python 3.11 and 3.12 need. Without verification, the server has
    not sent the root, and only what it has sent counts.
    """
    root = issue(subject="root", extensions=(CA,), not_after=in_days(days[0]))
    intermediate = issue(subject="intermediate", issuer=root, extensions=(CA,), not_after=in_days(days[1]))
    leaf = issue("localhost", issuer=intermediate, subject="leaf", not_after=in_days(days[2]))
    expiry, subject = await details_of(tmp_path, leaf, intermediate, trusted=root if verify else None)
    if first == "root" and not verify:
        first = "leaf"
    expected = {"root": root, "intermediate": intermediate, "leaf": leaf}[first]
    assert expiry == expected.content.not_valid_after_utc.timestamp()
    assert subject == f"CN={first}"


async def test_a_certificate_that_is_not_needed_does_not_count(tmp_path: Path) -> None:
    """Servers send expired old roots for years; clients do not care."""
    root, old = issue(subject="root", extensions=(CA,)), issue(subject="old", not_after=in_days(-30))
    leaf = issue("localhost", issuer=root, subject="leaf", not_after=in_days(50))
    assert (await details_of(tmp_path, leaf, old, trusted=root))[1] == "CN=leaf"
    assert (await details_of(tmp_path, leaf, old, trusted=None))[1] == "CN=old"


async def test_a_chain_of_hundreds_is_read_in_part(tmp_path: Path) -> None:
    """The server's own certificate comes first. A server chooses how many others it sends."""
    own, old = issue("localhost", subject="own"), issue(subject="old", not_after=in_days(-30))
    assert (await details_of(tmp_path, own, *[own] * 200, old, trusted=None))[1] == "CN=own"
    assert (await details_of(tmp_path, own, *[own] * 30, old, trusted=None))[1] == "CN=old"


async def test_a_certificate_without_a_subject_is_called_by_its_name(tmp_path: Path) -> None:
    """New profiles of public authorities have no subject."""
    own = issue("localhost", "127.0.0.1")
    assert (await details_of(tmp_path, own, trusted=own))[1] == "localhost"


@pytest.mark.parametrize("year", [1955, 2049, 2050, 9999])
def test_both_forms_of_time_are_read(year: int) -> None:
    """UTCTime ends in 2049 (RFC 5280, section 4.1.2.5)."""
    until = datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
    own = issue("localhost", not_after=until)
    assert parse_certificate(own.content.public_bytes(Encoding.DER)).expires == until.timestamp()


def test_a_subject_is_written_as_in_rfc_4514() -> None:
    """The most specific part first."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Größe GmbH"),
            x509.NameAttribute(NameOID.COMMON_NAME, "api.test"),
        ]
    )
    der = issue("localhost", name=name).content.public_bytes(Encoding.DER)
    assert parse_certificate(der).subject == name.rfc4514_string() == "CN=api.test,O=Größe GmbH,C=DE"


def test_of_a_subject_with_many_parts_the_first_hundred_are_read() -> None:
    """The server chooses how many there are, and 100 KB of them cost 15 ms in the event loop."""
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"part {number}") for number in range(2000)]
    der = issue("localhost", name=x509.Name(parts)).content.public_bytes(Encoding.DER)
    assert parse_certificate(der).subject.split(",") == [
        f"O=part {number}" for number in reversed(range(100))
    ]


def test_bytes_that_are_not_a_certificate_do_no_harm() -> None:
    """Every error is one that the caller handles."""
    der = issue("localhost", "127.0.0.1", subject="leaf").content.public_bytes(Encoding.DER)
    draw = random.Random(4514)
    for _ in range(20_000):
        mangled = bytearray(der[: draw.randrange(len(der) + 1)] if draw.random() < 0.2 else der)
        for _ in range(draw.randrange(4) if mangled else 0):
            mangled[draw.randrange(len(mangled))] = draw.randrange(256)
        try:
            parse_certificate(bytes(mangled))
        except (ValueError, IndexError):
            continue
