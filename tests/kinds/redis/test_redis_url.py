"""Every form of a Redis URL that other tools accept, and what it means."""

from typing import Any

import pytest
import redis
from connection_exporter.kinds.redis.config import RedisConfig
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError


def config(url: str, **given: object) -> RedisConfig:
    return RedisConfig.model_validate({"kind": "redis", "url": url, **given})


def parts(made: RedisConfig) -> dict[str, object]:
    """Return what is not a default."""
    password = made.password.get_secret_value() if made.password is not None else None
    found = {
        "host": made.host,
        "port": made.port,
        "database": made.database,
        "user": made.user,
        "password": password,
    }
    defaults = {"host": "localhost", "port": 6379, "database": 0, "user": None, "password": None}
    return {key: value for key, value in found.items() if value != defaults[key]}


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("redis://cache", {"host": "cache"}),
        ("Redis://cache:7000/2", {"host": "cache", "port": 7000, "database": 2}),
        ("REDIS://CACHE", {"host": "CACHE"}),
        ("valkey://cache:7000", {"host": "cache", "port": 7000}),
        ("tcp://cache:7000", {"host": "cache", "port": 7000}),
        ("tcp://cache?auth=s3cret&database=2", {"host": "cache", "password": "s3cret", "database": 2}),
        ("cache", {"host": "cache"}),
        ("cache:7000", {"host": "cache", "port": 7000}),
        ("cache:7000/2", {"host": "cache", "port": 7000, "database": 2}),
        ("cache:7000?db=2", {"host": "cache", "port": 7000, "database": 2}),
        ("me:s3cret@cache:7000", {"host": "cache", "port": 7000, "user": "me", "password": "s3cret"}),
        ("[::1]:7000", {"host": "::1", "port": 7000}),
        ("7000", {"port": 7000}),
        (":7000", {"port": 7000}),
        ("redis://", {}),
        ("redis:///2", {"database": 2}),
        ("redis://cache/", {"host": "cache"}),
        ("redis://cache/2/", {"host": "cache", "database": 2}),
        ("redis://cache/02", {"host": "cache", "database": 2}),
        ("redis://cache?db=2", {"host": "cache", "database": 2}),
        ("redis://cache/2?db=2", {"host": "cache", "database": 2}),
        ("redis://cache/2?db=3", {"host": "cache", "database": 3}),
        ("redis://12345", {"host": "12345"}),
        ("redis://cache?client_name&", {"host": "cache"}),
        ("redis://cache/?database=2", {"host": "cache", "database": 2}),
        ("redis://cache?db=", {"host": "cache"}),
        ("redis://cache/2?protocol=3", {"host": "cache", "database": 2}),
        ("redis://cache#part", {"host": "cache"}),
        (" redis://cache\n", {"host": "cache"}),
        ("redis://s3cret@cache", {"host": "cache", "password": "s3cret"}),
        ("redis://:s3cret@cache", {"host": "cache", "password": "s3cret"}),
        ("redis://:@cache", {"host": "cache"}),
        ("redis://@cache", {"host": "cache"}),
        ("redis://me:@cache", {"host": "cache", "user": "me", "password": ""}),
        ("redis://me:a%40b%2Fc@cache", {"host": "cache", "user": "me", "password": "a@b/c"}),
        ("redis://:a@b/c?d#e@cache:7000", {"host": "cache", "port": 7000, "password": "a@b/c?d#e"}),
        ("redis://:a+b%2B@cache", {"host": "cache", "password": "a+b+"}),
        ("redis://:100%@cache", {"host": "cache", "password": "100%"}),
        ("redis://:p%C3%A4ss@cache", {"host": "cache", "password": "p\u00e4ss"}),
        ("redis://cache?username=me&password=a%26b", {"host": "cache", "user": "me", "password": "a&b"}),
        ("redis://me@cache?password=s3cret", {"host": "cache", "user": "me", "password": "s3cret"}),
        ("unix:///run/redis.sock", {"host": "/run/redis.sock"}),
        ("unix:/run/redis.sock", {"host": "/run/redis.sock"}),
        ("/run/redis.sock", {"host": "/run/redis.sock"}),
        ("unix:///run/redis.sock?db=2", {"host": "/run/redis.sock", "database": 2}),
        ("unix://me:s3@cret@/run/redis.sock", {"host": "/run/redis.sock", "user": "me", "password": "s3@cret"}),
        ("unix://s3cret@/run/a%20b", {"host": "/run/a b", "password": "s3cret"}),
        ("redis-socket:///run/redis.sock?database=2", {"host": "/run/redis.sock", "database": 2}),
        ("redis+socket:///run/redis.sock?virtual_host=2", {"host": "/run/redis.sock", "database": 2}),
    ],
)  # fmt: skip
def test_a_url_of_another_tool_means_what_it_means_there(url: str, meant: dict[str, object]) -> None:
    """Host, port, database and credentials; none of them turns TLS on."""
    made = config(url)
    assert parts(made) == meant
    assert made.tls is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache:7000/2", "redis://cache/2?db=3", "redis://:a%40b@cache/1", "redis://me:pw@cache", "redis://me:@cache",
        "redis://cache?username=me&password=a%26b", "unix:///run/redis.sock?db=2", "unix://me:pw@/run/r.sock",
        "redis://[::1]:7000", "redis:///3", "redis://cache?client_name=x&decode_responses=true&max_connections=9",
    ],
)  # fmt: skip
def test_a_url_means_what_it_means_to_redis_py(url: str) -> None:
    """Its own parser is the oracle."""
    theirs: dict[str, Any] = redis.Redis.from_url(url).connection_pool.connection_kwargs
    ours = parts(config(url))
    names = {"user": "username", "password": "password", "database": "db", "port": "port"}
    for key, name in names.items():
        assert (ours.get(key) or None) == (theirs.get(name) or None)
    assert ours.get("host", "localhost") == theirs.get("path", theirs.get("host", "localhost"))


@pytest.mark.parametrize("scheme", ["rediss", "RedisS", "valkeys", "tls", "redis+ssl", "redis+tls"])
def test_a_scheme_turns_tls_on(scheme: str) -> None:
    """Each of them checks the certificate."""
    made = config(f"{scheme}://cache")
    assert made.tls is not None
    assert made.tls.verify


def test_parameters_of_tls_are_honoured() -> None:
    """As redis-py, go-redis, ioredis and Lettuce spell them; a relative path is relative to the config."""
    for parameter in ("ssl_cert_reqs=none", "ssl_cert_reqs=CERT_NONE", "skip_verify=true", "verifyPeer=NONE"):
        made = config(f"rediss://cache?{parameter}")
        assert made.tls is not None
        assert not made.tls.verify
    made = config(
        "rediss://cache?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem"
    )
    assert made.tls is not None
    assert (made.tls.verify, str(made.tls.ca_file)) == (True, "/ca.pem")
    assert (str(made.tls.cert_file), str(made.tls.key_file)) == ("/c.pem", "/k.pem")
    made = config("rediss://cache?ssl_certfile=/c.pem&ssl_password=s3cret&ssl_ciphers=HIGH")
    assert made.tls is not None
    assert (made.tls.key_password, made.tls.ciphers) == (SecretStr("s3cret"), "HIGH")
    assert config("redis://cache?ssl=true").tls is not None
    assert config("redis://cache?ssl=false").tls is None


UNKNOWN = "url: 1 unknown parameter ignored: check the spelling"
IGNORED = "url: ignored, because the exporter does not need it: "


@pytest.mark.parametrize(
    ("query", "warned"),
    [
        ("", ()),
        ("db=2", ()),
        ("protocol=3", (IGNORED + "protocol",)),
        ("socket_timeout=5&client-name=x&x=", (IGNORED + "socket_timeout, client_name", UNKNOWN)),
        ("s3cret=1", (UNKNOWN,)),
        ("databse=1&pasword=s3cret", ("url: 2 unknown parameters ignored: check the spelling",)),
        ("ssl_cert_reqs=none", (IGNORED + "options of TLS, since the URL does not turn it on",)),
    ],
)
def test_what_has_no_effect_is_a_warning(query: str, warned: tuple[str, ...]) -> None:
    """It is accepted, and a name that is unknown is not repeated: it may be a piece of a password."""
    assert config(f"redis://cache?{query}").warnings == warned


PIECES = st.sampled_from(
    [
        *("redis", "rediss", "valkey", "unix", "tcp", "redis+socket", "redis-sentinel", "http", "://", ":", "/", "//"),
        *("@", "?", "#", "&", "=", "%", "%2F", "%ff", "%00", "[", "]", "::1", "cache", "6379", "0", ".", ","),
        *(" ", "\n", "db=", "password=", "username=", "ssl=", "ssl_cert_reqs=", "verifyPeer=", "host=", "\u00fc"),
    ]
)  # fmt: skip
SECRET = "hunter2-Zq"


@settings(max_examples=1000)
@given(st.lists(PIECES | st.text(max_size=3), max_size=12), st.integers(0, 12))
@example(["redis://", "cache", "?db="], 3)
@example(["redis", "://", "?", "=", "@", "cache"], 2)
@example(["redis://", "u:123", "?", "@cache"], 2)
def test_no_url_crashes_and_no_error_repeats_a_part_of_it(pieces: list[str], at: int) -> None:
    """Whatever a URL is, it has a meaning or an error, and neither an error nor a warning contains the secret in it."""
    url = "".join([*pieces[:at], SECRET, *pieces[at:]])
    made, refusal = None, ""
    try:
        made = config(url)
    except ValidationError as error:
        refusal = str(error)
    assert SECRET not in refusal
    assert made is None or SECRET not in "".join(made.warnings)
