"""The keys of `tls` and `ip_version`: how they can be written, and where they apply."""

from typing import Any

import pytest
from connection_exporter.kind import Failure
from connection_exporter.kinds import load_text
from connection_exporter.kinds.redis.config import RedisConfig
from connection_exporter.kinds.registry import build
from connection_exporter.net import Network


def services(text: str, **environ: str) -> Any:
    return load_text(text, environ=environ).services


@pytest.mark.parametrize(
    "written", ["1.2", '"1.2"', "TLSv1.2", "tlsv1.2", "TLS12", "TLS 1.2", '"${VERSION}"']
)
def test_a_version_may_be_written_as_in_other_tools(written: str) -> None:
    """YAML reads 1.2 as a number; OpenSSL writes TLSv1.2, and Go's exporters TLS12."""
    redis = services(f"services:\n  it: {{kind: redis, tls: {{min_version: {written}}}}}\n", VERSION="1.2")[
        "it"
    ]
    assert isinstance(redis, RedisConfig)
    assert redis.tls is not None
    assert redis.tls.options.min_version == "1.2"


def test_ip_version_in_defaults_applies_to_all_that_connect() -> None:
    """A process and a heartbeat make no connection, so the default does not concern them."""
    found = services(
        "defaults: {ip_version: '${V}'}\n"
        "services:\n"
        "  database: {kind: postgresql}\n"
        "  cache: {kind: redis, ip_version: any}\n"
        "  api: {kind: http, url: http://api.test/}\n"
        "  feed: {kind: websocket, url: ws://feed.test/, ip_version: '6'}\n"
        "  bot: {kind: process, name: bot}\n"
        "  job: {kind: heartbeat, max_age: 1m}\n",
        V="4",
    )
    assert {name: service.ip_version for name, service in found.items()} == {
        "database": 4, "cache": "any", "api": 4, "feed": 6, "bot": "any", "job": "any",
    }  # fmt: skip


async def test_a_check_connects_with_the_ip_version_of_its_service() -> None:
    """Every connection that a check makes goes through the network that it is given."""
    found = services(
        "services:\n"
        "  database: {kind: postgresql, host: no-such-host.invalid, ip_version: 6}\n"
        "  cache: {kind: redis, host: no-such-host.invalid, ip_version: 6}\n"
        "  api: {kind: http, url: http://no-such-host.invalid/, ip_version: 4}\n"
        "  feed: {kind: websocket, url: ws://no-such-host.invalid/, ip_version: 4}\n"
    )
    for service in build(found, Network()):
        wanted = "IPv6" if service.name in ("database", "cache") else "IPv4"
        with pytest.raises(Failure, match=f"does not resolve to an {wanted} address"):
            async with service.check.connect():
                pass
