"""What one more service costs in memory until its first attempt: its config, its check, and its place on the board."""

import gc
import json
import tracemalloc

import pytest
from connection_exporter.kinds import load_text
from connection_exporter.kinds.registry import build
from connection_exporter.monitor.board import Board
from connection_exporter.net import Network
from connection_exporter.system.clock import SystemClock

SERVICES = 200
LIMIT = 6.0
"""KiB of a service. It was 6 to 54 while each one had its own set of statuses, index of secrets, and default models."""

CONFIGS: dict[str, dict[str, object]] = {
    "postgresql": {"dsn": "postgresql://user:a-long-password@127.0.0.1:1/app"},
    "redis": {"url": "redis://:a-long-password@127.0.0.1:1/0"},
    "process": {"pidfile": "/nonexistent/bot.pid"},
    "http": {"url": "https://user:a-long-password@127.0.0.1:1/health"},
    "websocket": {"url": "wss://127.0.0.1:1/ws"},
    "tcp": {"host": "127.0.0.1", "port": 1},
    "heartbeat": {"max_age": "1m"},
}


def board_of(kind: str, count: int) -> Board:
    """Return a board with ``count`` equal services, after a message of each was searched for secrets."""
    written = {f"it_{number}": {"kind": kind, **CONFIGS[kind]} for number in range(count)}
    config = load_text(json.dumps({"services": written})).without_lines()
    services = build(config.services, Network())
    assert {service.hide("connection refused") for service in services} == {"connection refused"}
    return Board(services, SystemClock())


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_service_shares_what_is_equal_in_others(kind: str) -> None:
    """Sets of statuses, the spellings of equal secrets, and default models are made once."""
    few = board_of(kind, 2)  # also imports, compiles patterns, and fills caches
    tracemalloc.start()
    try:
        many = board_of(kind, SERVICES)
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(few.records()), len(many.records())) == (2, SERVICES)
    assert used / SERVICES < LIMIT * 1024
