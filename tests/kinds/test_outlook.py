"""What `validate` says of a service without its check is what the check says."""

import json

import pytest
from connection_exporter.kind import TakesBeats, takes_beats
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import KINDS, build, outlook
from connection_exporter.net import Network

CONFIGS: list[dict[str, object]] = [
    {"kind": "postgresql", "dsn": "postgresql://user@db.test/app"},
    {"kind": "postgresql", "dsn": "postgresql://user@one.test,two.test:5433/app"},
    {"kind": "postgresql", "dsn": "postgresql:///app?host=/run/postgresql"},
    {"kind": "redis", "url": "redis://cache.test"},
    {"kind": "redis", "host": "/run/redis.sock"},
    {"kind": "redis", "sentinel": {"master": "main", "nodes": ["one.test", "two.test:26380"]}},
    {"kind": "process", "pidfile": "/run/bot.pid"},
    {"kind": "process", "name": "bot"},
    {"kind": "http", "url": "https://api.test/health"},
    {"kind": "http", "url": "http://api.test/health", "proxy": "http://proxy.test:3128"},
    {"kind": "websocket", "url": "wss://feed.test/ws"},
    {"kind": "websocket", "url": "ws://feed.test/ws", "proxy": "http://proxy.test:3128"},
    {"kind": "tcp", "host": "mail.test", "port": 25},
    {"kind": "tcp", "url": "unix:///run/app.sock"},
    {"kind": "tcp", "host": "mail.test", "port": 25, "on_probe": [{"send": "NOOP", "expect": "^250"}]},
    {"kind": "heartbeat", "max_age": "90s"},
]


@pytest.mark.parametrize("config", CONFIGS, ids=json.dumps)
def test_the_config_knows_the_address_and_the_detection_bounds(config: dict[str, object]) -> None:
    """Of every kind, through a proxy, a Unix socket and a dialogue."""
    it = {"interval": "20s", "timeout": "4s", **config}
    services = load_text(json.dumps({"services": {"it": it}}), environ={}).services
    (service,) = build(services, Network())
    assert outlook("it", services["it"]) == (service.address, service.detection_bounds)


@pytest.mark.parametrize("config", CONFIGS, ids=json.dumps)
def test_whether_a_check_takes_beats_is_what_the_protocol_says(config: dict[str, object]) -> None:
    """Although only its type is looked at, once."""
    (service,) = build(load_text(json.dumps({"services": {"it": config}}), environ={}).services, Network())
    for _ in range(2):
        assert takes_beats(service.check) is isinstance(service.check, TakesBeats)


def test_every_kind_is_compared() -> None:
    """Also one that is added later."""
    assert {config["kind"] for config in CONFIGS} == set(KINDS)
