"""What a good config comes to: values, defaults, variables, URLs, and secrets that stay hidden."""

from pathlib import Path
from typing import TypeVar

import pytest
from connection_exporter.config import EXAMPLE, ConfigError
from connection_exporter.config.service import ServiceConfig
from connection_exporter.core.retry import Policy
from connection_exporter.kinds import load, load_environment, load_text
from connection_exporter.kinds.http.config import HttpConfig
from connection_exporter.kinds.postgresql.config import PostgresqlConfig
from connection_exporter.kinds.process.config import ProcessConfig
from connection_exporter.kinds.redis.config import RedisConfig
from connection_exporter.kinds.registry import KINDS
from connection_exporter.kinds.websocket.config import WebsocketConfig

_Kind = TypeVar("_Kind", bound=ServiceConfig)

LEAST = {
    "postgresql": "kind: postgresql",
    "redis": "kind: redis",
    "process": "kind: process, name: bot",
    "http": 'kind: http, url: "https://api.example.com/"',
    "websocket": 'kind: websocket, url: "wss://stream.example.com/ws"',
    "tcp": "kind: tcp, address: mail:25",
    "heartbeat": "kind: heartbeat, max_age: 1h",
}


def service(keys: str, kind: type[_Kind], *, defaults: str = "", **environ: str) -> _Kind:
    """Return the one service that ``keys`` (in flow style) configure."""
    config = load_text(f"defaults: {{{defaults}}}\nservices:\n  it: {{{keys}}}\n", environ=environ)
    it = config.services["it"]
    assert isinstance(it, kind)
    return it


def redis(keys: str, *, defaults: str = "", **environ: str) -> RedisConfig:
    return service(f"kind: redis, {keys}", RedisConfig, defaults=defaults, **environ)


def postgresql(keys: str, **environ: str) -> PostgresqlConfig:
    return service(f"kind: postgresql, {keys}", PostgresqlConfig, **environ)


def secret(login: PostgresqlConfig | RedisConfig | HttpConfig | WebsocketConfig) -> str | None:
    return login.password.get_secret_value() if login.password else None


def test_the_example_that_beginners_are_shown_is_valid() -> None:
    """It is printed by every message that has to begin from nothing."""
    assert [s.kind for s in load_text(EXAMPLE).services.values()] == list(KINDS)[:5]


def test_a_file_is_read_and_named(tmp_path: Path) -> None:
    """A byte order mark, as Windows' editors write it, does no harm."""
    path = tmp_path / "c.yml"
    path.write_bytes(b"\xef\xbb\xbf" + EXAMPLE.encode())
    config = load(path)
    assert config.source == str(path)
    assert list(config.services) == ["database", "redis", "bot_process", "external_api", "websocket"]
    assert load(str(path)) == config


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_of_each_kind(kind: str) -> None:
    """A canary every 5m, but none for a process, a heartbeat and, unless asked for, a websocket."""
    policy = service(LEAST[kind], ServiceConfig).policy
    assert policy == Policy(
        interval=30.0,
        timeout=5.0,
        retries=1 if kind == "heartbeat" else 3,
        retry_delay=5.0,
        max_retry_delay=30.0,
        canary=None if kind in ("process", "websocket", "heartbeat") else 300.0,
        max_latency=None,
        critical=True,
    )


def test_defaults_hold_for_every_service_that_does_not_say_otherwise() -> None:
    """Each key by itself."""
    defaults = "interval: 10s, timeout: 2s, retries: 5, critical: false"
    it = redis("timeout: 3s, critical: true", defaults=defaults)
    assert (it.interval, it.timeout, it.retries, it.critical) == (10.0, 3.0, 5, True)


def test_a_canary_in_the_defaults_gives_none_to_a_process() -> None:
    """Which could have none, and would otherwise be a mistake."""
    it = service(LEAST["process"], ProcessConfig, defaults="canary: 1m")
    assert it.canary is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("interval: 2s", {"interval": 2.0, "timeout": 2.0, "canary": 300.0}),
        ("interval: 10m", {"interval": 600.0, "timeout": 5.0, "canary": 600.0}),
        ("retry_delay: 2m", {"retry_delay": 120.0, "max_retry_delay": 120.0}),
        ("max_retry_delay: 2s", {"retry_delay": 2.0, "max_retry_delay": 2.0}),
        ("timeout: 30s", {"timeout": 30.0, "interval": 30.0}),
        ("canary: 30s", {"canary": 30.0}),
        ("interval: 100ms, retries: 1", {"interval": 0.1, "timeout": 0.1, "retries": 1}),
    ],
)
def test_what_is_not_written_follows_what_is(written: str, expected: dict[str, float]) -> None:
    """A short interval shortens the timeout; a long one, the canary's period; the delays keep their order."""
    policy = redis(written).policy
    assert {key: getattr(policy, key) for key in expected} == expected


def test_off_means_no_canary_and_on_is_a_name() -> None:
    """YAML 1.1 would make false of the one and true of the other."""
    config = load_text("services:\n  on: {kind: redis, canary: off}\n  no: {kind: redis, user: yes}\n")
    assert list(config.services) == ["on", "no"]
    assert config.services["on"].canary is None
    assert getattr(config.services["no"], "user") == "yes"  # noqa: B009  # of one kind only


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "Yes", "True", "FALSE", "y", "n"])
def test_only_true_and_false_are_booleans(word: str) -> None:
    """All other words are text."""
    assert redis(f"user: {word}").user == word
    with pytest.raises(ConfigError, match="critical: expected true or false"):
        redis(f"critical: {word}")


@pytest.mark.parametrize(
    "word", ["2026-01-01", "0x10", "0o14", "1_000", "12:30:45", ".inf", ".nan", "1e999", "1e", "e3", "+"]
)
def test_what_yaml_1_1_takes_for_dates_and_numbers_is_text(word: str) -> None:
    """Sexagesimal numbers and dates surprise everybody."""
    assert redis(f"user: {word}").user == word


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("1e3", 1000),
        ("-1.5E-3", -0.0015),
        (".5e1", 5),
        ("2.", 2),
        ("9007199254740993", 9007199254740993),
        ("-1234567890123456789012", -1234567890123456789012),
    ],
)
def test_numbers_may_be_large_and_have_an_exponent(written: str, number: float) -> None:
    """As in YAML 1.2 and JSON; integers are exact."""
    api = load_text(
        f"services:\n  a: {{kind: http, url: 'http://h/', expect: {{json: {{n: {written}}}}}}}\n"
    ).services["a"]
    assert isinstance(api, HttpConfig)
    assert api.expect.json_["n"] == number
    assert not isinstance(api.expect.json_["n"], str)


def test_a_tagged_or_quoted_number_is_text() -> None:
    """As somebody writes a password of digits."""
    assert secret(redis("password: !!str 12345")) == "12345"
    assert secret(redis("password: '12345'")) == "12345"


@pytest.mark.parametrize("name", ["a", "_", "A9", "a-b_c", "x" * 63])
def test_good_names(name: str) -> None:
    """Up to 63 letters, digits, _ and -."""
    assert list(load_text(f"services:\n  {name}: {{kind: redis}}\n").services) == [name]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${X}", "a"),
        ("x${X}y${X}z", "xayaz"),
        ("${X:-d}", "a"),
        ("${EMPTY:-d}", "d"),
        ("${ABSENT:-d}", "d"),
        ("${ABSENT:-}", ""),
        ("${EMPTY}", ""),
        ("$$", "$"),
        ("$${X}", "${X}"),
        ("$$$${X}", "$${X}"),
        ("$X $ 5$", "$X $ 5$"),
        ("${URL:-redis://h:1/0}", "redis://h:1/0"),
        ("${YAML}", "a: {b: [c"),
        ("${LINES}", "a\nb: c"),
        ("${OFF}", "off"),
        ("${DOLLAR}", "${X}$$"),
    ],
)
def test_variables_are_filled_in_and_never_read_as_yaml(written: str, value: str) -> None:
    """Not even as variables again."""
    environ = {
        "X": "a",
        "EMPTY": "",
        "YAML": "a: {b: [c",
        "LINES": "a\nb: c",
        "OFF": "off",
        "DOLLAR": "${X}$$",
    }
    assert redis(f'user: "{written}"', **environ).user == value


def test_a_variable_can_stand_for_a_number_a_truth_value_and_a_duration() -> None:
    """By what the key wants: it is text until then."""
    environ = {"PORT": "6380", "CRITICAL": "false", "INTERVAL": "7s", "CANARY": "off", "DIGITS": "12345"}
    keys = 'port: "${PORT}", critical: "${CRITICAL}", interval: "${INTERVAL}", canary: "${CANARY}"'
    it = redis(f'{keys}, user: "${{DIGITS}}", database: "${{DB:-2}}"', **environ)
    assert (it.port, it.critical, it.interval, it.canary) == (6380, False, 7.0, None)
    assert (it.user, it.database) == ("12345", 2)


def test_a_variable_in_the_defaults_can_stand_for_a_number() -> None:
    """There as well."""
    assert redis("", defaults='retries: "${N}"', N="7").retries == 7


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://", {"host": "localhost", "port": 5432, "database": None, "user": None}),
        ("postgres://db", {"host": "db"}),
        ("postgresql+asyncpg://u@db:5433/app", {"host": "db", "port": 5433, "database": "app", "user": "u"}),
        ("postgresql+psycopg2://db", {"host": "db"}),
        ("postgresql://[::1]:5433/app", {"host": "::1", "port": 5433, "address": "[::1]:5433"}),
        ("postgresql://[fe80::1]/app", {"host": "fe80::1", "port": 5432}),
        ("postgresql://u%40corp:p%3Aw@db", {"user": "u@corp", "secret": "p:w"}),
        ("postgresql://u:a@b:c/d?e#f@db:5433/app?sslmode=require", {"secret": "a@b:c/d?e#f", "host": "db"}),
        ("postgresql://u:%41@db", {"secret": "A"}),
        ("postgresql://:only@db", {"user": None, "secret": "only"}),
        ("postgresql://db/my%20app?sslmode=verify-full", {"database": "my app", "sslmode": "verify-full"}),
        (
            "postgresql:///app?host=/run/pg&port=5433&user=u",
            {"host": "/run/pg", "port": 5433, "user": "u", "address": "/run/pg/.s.PGSQL.5433"},
        ),
    ],
)
def test_a_postgresql_url_is_taken_apart(dsn: str, expected: dict[str, object]) -> None:
    """A password may hold anything, escaped or not."""
    it = postgresql(f'dsn: "{dsn}"')
    found = {key: secret(it) if key == "secret" else getattr(it, key) for key in expected}
    assert found == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"host": "localhost", "port": 6379, "database": 0, "tls": None}),
        ("redis://cache:6380/2", {"host": "cache", "port": 6380, "database": 2}),
        ("redis://:a@b/c?d#e:f@cache", {"secret": "a@b/c?d#e:f", "host": "cache", "user": None}),
        ("redis://u:p@[::1]:6380", {"user": "u", "secret": "p", "host": "::1", "address": "[::1]:6380"}),
        ("unix:///run/redis.sock", {"host": "/run/redis.sock", "address": "/run/redis.sock"}),
    ],
)
def test_a_redis_url_is_taken_apart(url: str, expected: dict[str, object]) -> None:
    """A password may hold anything here too."""
    it = redis(f'url: "{url}"')
    found = {key: secret(it) if key == "secret" else getattr(it, key) for key in expected}
    assert found == expected


def test_the_scheme_turns_tls_on() -> None:
    """For each kind that has two schemes, and its own options stay."""
    assert redis('url: "rediss://cache"').tls is not None
    it = redis('url: "rediss://cache", tls: {ca_file: /ca.pem}')
    assert it.tls is not None
    assert it.tls.ca_file == Path("/ca.pem")
    assert service('kind: http, url: "https://a"', HttpConfig).tls is not None
    assert service('kind: http, url: "http://a"', HttpConfig).tls is None
    assert service('kind: websocket, url: "wss://a"', WebsocketConfig).tls is not None
    assert service('kind: websocket, url: "ws://a"', WebsocketConfig).tls is None


@pytest.mark.parametrize(
    ("kind", "url", "address"),
    [
        (HttpConfig, "https://a.example.com", "a.example.com:443"),
        (HttpConfig, "http://u:p@a:8080/x?y=1", "a:8080"),
        (HttpConfig, "http://[::1]:8080", "[::1]:8080"),
        (WebsocketConfig, "wss://a/ws", "a:443"),
        (WebsocketConfig, "ws://[::1]", "[::1]:80"),
    ],
)
def test_an_address_is_host_and_port_alone(
    kind: type[HttpConfig | WebsocketConfig], url: str, address: str
) -> None:
    """No login, path or query: it becomes a label."""
    name = "http" if kind is HttpConfig else "websocket"
    assert service(f'kind: {name}, url: "{url}"', kind).address == address


@pytest.mark.parametrize("kind", ["postgresql", "redis"])
def test_host_port_user_and_password_can_be_given_one_by_one(kind: str) -> None:
    """So that no secret needs escaping; one that comes from a variable least of all."""
    keys = f'kind: {kind}, host: db, port: 1234, user: u, password: "${{P}}"'
    it = service(keys, ServiceConfig, P="a@b:/?#%41")
    assert isinstance(it, PostgresqlConfig | RedisConfig)
    assert (it.host, it.port, it.user, secret(it)) == ("db", 1234, "u", "a@b:/?#%41")


SECRETS = (
    'kind: postgresql, dsn: "postgresql://u:s3cret@db/app"',
    'kind: postgresql, user: u, password: "s3cret"',
    'kind: redis, url: "redis://:s3cret@cache/0"',
    'kind: redis, password: "${S3}"',
    'kind: http, url: "https://u:s3cret@api/"',
    'kind: http, url: "https://api/", bearer_token: s3cret',
    'kind: http, url: "https://api/", headers: {X-Key: s3cret}',
    'kind: websocket, url: "wss://u:s3cret@stream/"',
    'kind: websocket, url: "wss://stream/", bearer_token: s3cret',
    'kind: websocket, url: "wss://stream/", headers: {X-Key: s3cret}',
    'kind: websocket, url: "wss://stream/", on_connect: {send: s3cret}',
)


@pytest.mark.parametrize("keys", SECRETS)
def test_a_secret_shows_in_no_repr_and_no_dump(keys: str) -> None:
    """Wherever it was written."""
    config = load_text(f"services:\n  it: {{{keys}}}\n", environ={"S3": "s3cret"})
    it = config.services["it"]
    for shown in (repr(config), repr(it), str(it), it.model_dump_json(), f"{it.model_dump()}"):
        assert "s3cret" not in shown


@pytest.mark.parametrize("keys", SECRETS)
def test_a_secret_shows_in_no_error(keys: str) -> None:
    """Whatever else is wrong with its service."""
    wrong = f"services:\n  it: {{{keys}, port: x, interval: 5, colour: red, timeout: 0s}}\n"
    with pytest.raises(ConfigError) as caught:
        load_text(wrong, environ={"S3": "s3cret"})
    assert "s3cret" not in f"{caught.value} {caught.value!r}"
    assert len(caught.value.mistakes) >= 4, "and nothing is left out"
    assert caught.value.__cause__ is None


def test_the_five_variables_make_five_services() -> None:
    """Where there is no file; the names are those of the product."""
    config = load_environment(
        {
            "DATABASE_URL": "postgresql://u:p@db/app",
            "REDIS_URL": "rediss://cache:6380/1",
            "BOT_PROCESS": "/run/bot.pid",
            "API_URL": "https://api.example.com/health",
            "WEBSOCKET_URL": "wss://stream.example.com/ws",
            "HOME": "/home/me",
        }
    )
    assert config is not None
    assert config.source == "environment"
    assert {name: (it.kind, getattr(it, "address")) for name, it in config.services.items()} == {  # noqa: B009
        "database": ("postgresql", "db:5432"),
        "redis": ("redis", "cache:6380"),
        "bot_process": ("process", "/run/bot.pid"),
        "external_api": ("http", "api.example.com:443"),
        "websocket": ("websocket", "stream.example.com:443"),
    }


def test_a_bot_without_a_slash_is_found_by_name() -> None:
    """With one it is a pidfile."""
    config = load_environment({"BOT_PROCESS": "tradebot"})
    assert config is not None
    bot = config.services["bot_process"]
    assert isinstance(bot, ProcessConfig)
    assert (bot.name, bot.pidfile) == ("tradebot", None)


@pytest.mark.parametrize("environ", [{}, {"REDIS_URL": ""}, {"HOME": "/home/me"}])
def test_no_variable_makes_no_config(environ: dict[str, str]) -> None:
    """Empty counts as not set."""
    assert load_environment(environ) is None


def test_a_variable_is_taken_as_it_is() -> None:
    """A dollar in DATABASE_URL is a dollar."""
    config = load_environment({"REDIS_URL": "redis://:a${b}c$$@cache"})
    assert config is not None
    it = config.services["redis"]
    assert isinstance(it, RedisConfig)
    assert secret(it) == "a${b}c$$"


def test_services_with_equal_keys_share_one_set_of_them() -> None:
    """A copy that is given another value has a set of its own."""
    config = load_text("services: {a: {kind: process, name: bot}, b: {kind: process, name: other}}")
    one, other = config.services.values()
    assert one.model_fields_set is other.model_fields_set
    changed = one.model_copy(update={"group": "bots"})
    assert changed.model_fields_set == {"kind", "name", "group"}
    assert one.model_fields_set == {"kind", "name"}
