"""The config of kind websocket."""

import pytest
from connection_exporter.config.shown import shown
from connection_exporter.kinds import load_text
from connection_exporter.kinds.websocket.config import WebsocketConfig
from pydantic import SecretStr, ValidationError


def config(**given: object) -> WebsocketConfig:
    return WebsocketConfig.model_validate({"kind": "websocket", **given})


def test_a_path_may_contain_an_at_sign() -> None:
    """Exchanges name their streams like this."""
    made = config(url="wss://stream.example.com:9443/ws/btcusdt@aggTrade?key=1")
    assert made.address == "stream.example.com:9443"
    assert made.path == "/ws/btcusdt@aggTrade?key=1"
    assert made.tls is not None
    assert made.user is None


def test_a_url_may_contain_a_login() -> None:
    """It becomes basic authentication."""
    made = config(url="ws://me:p%40ss@feed")
    assert (made.user, made.password, made.address) == ("me", SecretStr("p@ss"), "feed:80")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://[fe80::1%25eth0]:81/", "[fe80::1%eth0]:81"),
        ("ws://b\u00fccher.example/", "bücher.example:80"),
        ("ws://%2Frun%2Ffeed.sock/", "/run/feed.sock"),
    ],
)
def test_a_host_is_read_as_in_any_url(url: str, address: str) -> None:
    """With its scope, as it is written, or as the path of a Unix socket."""
    assert config(url=url).address == address


def test_canaries_are_off_by_default() -> None:
    """Exchanges limit connections per key."""
    assert config(host="feed").canary is None
    assert config(host="feed", canary="5m").canary == 300


def test_max_gap_is_the_default_of_interval() -> None:
    """A gap is noticed when a probe runs. A longer gap keeps the normal default."""
    assert config(host="feed", max_gap="3s").interval == 3
    assert config(host="feed", max_gap="3s").timeout == 3
    assert config(host="feed", max_gap="5m").interval == 30
    assert config(host="feed", max_gap="3s", interval="10s").interval == 10


def test_a_dialogue_of_one_step_needs_no_list() -> None:
    """A mapping is a list of one."""
    made = config(host="feed", on_probe={"send": "ping", "expect": "pong", "within": "1s"})
    assert made.on_probe[0].within == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"url": "http://feed"}, "ws:// or wss://"),
        ({"url": "ws:///path"}, "the host is missing"),
        ({"url": "ws://feed/a b"}, "must be escaped"),
        ({"host": "a b"}, "not a host name"),
        ({"host": "feed", "tls": {"server_name": "a b"}}, "not a host name"),
        ({"url": "ws://feed/#part"}, "must not have a #fragment"),
        ({"url": "ws://feed/a", "path": "/b"}, "url and path both set path"),
        ({"url": "ws://feed", "tls": {}}, "tls needs wss://"),
        ({"headers": {"Sec-WebSocket-Key": "x"}}, "belongs to the handshake"),
        ({"headers": {"X": "a\nb"}}, "line break"),
        ({"user": "me", "bearer_token": "x"}, "user and bearer_token are both given"),
        ({"password": "x"}, "a password needs a user"),
        ({"on_probe": {"expect": "("}}, "RE2"),
        ({"on_probe": {"send": "a", "within": "1s"}}, "within needs expect"),
        ({"on_connect": [{}]}, "needs send, send_file or expect"),
        ({"max_gap": "fast"}, "expected a duration"),
        ({"subprotocols": ["a b"]}, "not a valid subprotocol name"),
    ],
)
def test_each_error_has_its_own_message(given: dict[str, object], message: str) -> None:
    """The message says what is wrong with which key."""
    with pytest.raises(ValidationError) as raised:
        config(**given)
    assert message in str(raised.value)


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


def test_null_in_a_condition_is_shown() -> None:
    """Elsewhere it means that a key is not set, and is left out."""
    read = load_text(
        "services: {feed: {kind: websocket, host: feed, on_probe: {send: x, expect_json: {error: null}}}}"
    )
    assert shown(read)["services"]["feed"]["on_probe"] == [
        {"send": "**********", "expect_json": {"error": None}}
    ]
