"""A service that demands a client certificate: every kind reports the server's alert, which may come late."""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import build
from connection_exporter.net import Network
from support.certificates import CA, issue, server_context, tls_server


@pytest.fixture
def demanding(tmp_path: Path) -> Iterator[int]:
    """Serve with TLS 1.3, and accept nobody without a certificate."""
    root = issue(subject="Root", extensions=(CA,))
    context = server_context(tmp_path, issue("localhost", issuer=root))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(root.write(tmp_path / "ca.pem"))
    with tls_server(context) as port:
        yield port


@pytest.mark.parametrize(
    "keys",
    ['kind: http, url: "https://localhost:{}/"', 'kind: websocket, url: "wss://localhost:{}/"',
     'kind: redis, url: "rediss://localhost:{}"'],
    ids=["http", "websocket", "redis"],
)  # fmt: skip
async def test_the_alert_of_the_server_is_reported(demanding: int, tmp_path: Path, keys: str) -> None:
    """It comes after the handshake, and then the server resets the connection (RFC 8446, section 4.4.2.4)."""
    keys = f"{keys.format(demanding)}, tls: {{ca_file: {tmp_path / 'ca.pem'}}}"
    services = load_text(f"services:\n  it: {{{keys}}}\n", environ={}).services
    (service,) = build(services, Network())
    for _ in range(10):
        with pytest.raises(Failure, match="TLS failed: tlsv13 alert certificate required") as raised:
            async with asyncio.timeout(20), service.check.connect() as session:
                await session.probe()
        assert raised.value.reason is Reason.TLS
