"""The config of kind websocket."""

import pytest
from pydantic import ValidationError

from exporter.config.kinds.websocket import WebsocketConfig


def config(**given: object) -> WebsocketConfig:
    return WebsocketConfig.model_validate({"kind": "websocket", **given})


def test_a_path_may_hold_an_at_sign() -> None:
    """As exchanges write their streams."""
    made = config(url="wss://stream.example.com:9443/ws/btcusdt@aggTrade?key=1")
    assert made.address == "stream.example.com:9443"
    assert made.path == "/ws/btcusdt@aggTrade?key=1"
    assert made.tls is not None
    assert made.user is None


def test_a_url_may_hold_a_login() -> None:
    """It becomes basic authentication."""
    made = config(url="ws://me:p%40ss@feed")
    assert (made.user, made.read_password(), made.address) == ("me", "p@ss", "feed:80")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://[fe80::1%25eth0]:81/", "[fe80::1%eth0]:81"),
        ("ws://b\u00fccher.example/", "xn--bcher-kva.example:80"),
        ("ws://%2Frun%2Ffeed.sock/", "/run/feed.sock"),
    ],
)
def test_a_host_is_read_as_in_any_url(url: str, address: str) -> None:
    """With its scope, in punycode, or as the path of a Unix socket."""
    assert config(url=url).address == address


def test_there_is_no_canary_unless_asked_for() -> None:
    """Exchanges cap connections per key."""
    assert config(host="feed").canary is None
    assert config(host="feed", canary="5m").canary == 300


def test_an_interval_that_is_not_written_follows_the_gap() -> None:
    """A gap is seen when a probe runs."""
    assert config(host="feed", max_gap="3s").interval == 3
    assert config(host="feed", max_gap="3s").timeout == 3
    assert config(host="feed", max_gap="5m").interval == 30
    assert config(host="feed", max_gap="3s", interval="10s").interval == 10


def test_a_dialogue_of_one_step_needs_no_list() -> None:
    """A mapping is a list of one."""
    made = config(host="feed", on_probe={"send": "ping", "expect": "pong", "within": "1s"})
    assert made.on_probe[0].within == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"url": "http://feed"}, "ws:// or wss://"),
        ({"url": "ws:///path"}, "the host is missing"),
        ({"url": "ws://feed/a b"}, "has to be escaped"),
        ({"host": "a b"}, "not a host name"),
        ({"host": "feed", "tls": {"server_name": "a b"}}, "tls.server_name is not a host name"),
        ({"url": "ws://feed/#part"}, "no #fragment"),
        ({"url": "ws://feed/a", "path": "/b"}, "url and path both say path"),
        ({"url": "ws://feed", "tls": {}}, "tls goes with wss://"),
        ({"headers": {"Sec-WebSocket-Key": "x"}}, "the handshake's own"),
        ({"headers": {"X": "a\nb"}}, "line break"),
        ({"user": "me", "bearer_token": "x"}, "user and bearer_token are both given"),
        ({"password": "x"}, "a password needs a user"),
        ({"on_probe": {"expect": "("}}, "RE2"),
        ({"on_probe": {"send": "a", "within": "1s"}}, "within goes with expect"),
        ({"on_connect": [{}]}, "needs send, send_file or expect"),
        ({"max_gap": "fast"}, "expected a duration"),
        ({"subprotocols": ["a b"]}, "not the name of a subprotocol"),
    ],
)
def test_a_mistake_is_told(given: dict[str, object], told: str) -> None:
    """Each has a message of its own."""
    with pytest.raises(ValidationError) as raised:
        config(**given)
    assert told in str(raised.value)


def test_no_secret_is_shown() -> None:
    """Tokens, headers and messages that are sent are hidden in what is printed of a config."""
    made = config(
        host="feed",
        bearer_token="secret",
        headers={"X-Key": "secret"},
        on_connect={"send": "secret", "expect": "ok"},
    )
    assert "secret" not in repr(made)
    assert "secret" not in made.model_dump_json()
