"""The config of kind redis."""

import pytest
from connection_exporter.kinds.redis.config import RedisConfig
from pydantic import SecretStr, ValidationError


def config(**given: object) -> RedisConfig:
    return RedisConfig.model_validate({"kind": "redis", **given})


def test_a_url_says_where_and_as_whom() -> None:
    """The password may hold what a URL would want escaped."""
    made = config(url="redis://me:p@ss:/w?rd@cache:7000/3")
    assert (made.host, made.port, made.database, made.user) == ("cache", 7000, 3, "me")
    assert made.password == SecretStr("p@ss:/w?rd")
    assert made.address == "cache:7000"
    assert made.tls is None


def test_rediss_turns_tls_on() -> None:
    """With or without options of its own."""
    assert config(url="rediss://cache").tls is not None
    named = config(url="rediss://cache", tls={"server_name": "other"})
    assert named.tls is not None
    assert named.tls.server_name == "other"


def test_a_unix_socket_is_a_path() -> None:
    """The path is the address."""
    assert config(url="unix:///run/redis.sock").address == "/run/redis.sock"


@pytest.mark.parametrize(
    ("given", "reported"),
    [
        ({"url": "http://cache"}, "expected redis://host"),
        ({"url": "redis://cache/zero"}, "number of the database"),
        ({"url": "unix://run/redis.sock"}, "unix:///path"),
        ({"url": "redis://cache:7000", "port": 7000}, "url and port both set port"),
        ({"depth": False, "expect": {"role": "master"}}, "expect.role needs INFO"),
        ({"expect": {"role": "primary"}}, "'master' or 'replica'"),
    ],
)
def test_an_error_is_reported(given: dict[str, object], reported: str) -> None:
    """Each has a message of its own."""
    with pytest.raises(ValidationError) as raised:
        config(**given)
    assert reported in str(raised.value)


def test_no_message_holds_the_password() -> None:
    """A URL that cannot be read is not shown."""
    with pytest.raises(ValidationError) as raised:
        config(url="redis://me:secret@cache/zero")
    assert "secret" not in str(raised.value)
