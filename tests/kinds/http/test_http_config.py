"""The config of kind http: what is accepted, and the exact message for each error."""

import json

import pytest
from connection_exporter.config import ConfigError
from connection_exporter.config.request import UNREADABLE_URL
from connection_exporter.kinds import load_environment, load_text
from connection_exporter.kinds.http.config import HttpConfig
from pydantic import SecretStr
from support.http_servers import config


def mistakes(**keys: object) -> list[str]:
    """Return the errors of a service with these keys, without their location."""
    place = {} if keys.keys() & {"url", "host"} else {"host": "api"}
    with pytest.raises(ConfigError) as refused:
        load_text(json.dumps({"services": {"api": {"kind": "http", **place, **keys}}}))
    return [str(mistake).split("services.")[1] for mistake in str(refused.value).split("\n")]


def test_a_url_is_parsed() -> None:
    """Scheme, login, host, port, path and query are recognised; a fragment is dropped."""
    read = config("https://u:p%3A%40@API.example.com:8443/users/@me?x=1#top")
    assert (read.user, read.password) == ("u", SecretStr("p:@"))
    assert (read.host, read.port_in_use, read.path) == ("api.example.com", 8443, "/users/@me?x=1")
    assert read.tls is not None
    assert read.address == "api.example.com:8443"


@pytest.mark.parametrize(
    ("url", "address", "tls"),
    [
        ("http://api", "api:80", False),
        ("https://api", "api:443", True),
        ("http://[::1]:8080/x", "[::1]:8080", False),
        ("http://[fe80::1%25eth0]/", "[fe80::1%eth0]:80", False),
        ("http://my_service.local.:81/", "my_service.local.:81", False),
        ("https://bücher.example/", "bücher.example:443", True),
    ],
)
def test_the_default_port_follows_the_scheme(url: str, address: str, tls: bool) -> None:
    """It is 80, or 443 with TLS."""
    read = config(url)
    assert (read.address, read.tls is not None) == (address, tls)


def test_separate_keys_can_replace_the_url() -> None:
    """No secret then needs escaping."""
    read = config(host="api", path="/health?deep=1", tls={"verify": False}, user="u", password="a/b@c")
    assert (read.address, read.path, read.password) == ("api:443", "/health?deep=1", SecretStr("a/b@c"))


def test_one_variable_is_enough() -> None:
    """`API_URL` is used if there is no config file."""
    read = load_environment({"API_URL": "https://api.example.com/health"})
    assert read is not None
    service = read.services["external_api"]
    assert isinstance(service, HttpConfig)
    assert (service.address, service.path) == ("api.example.com:443", "/health")


@pytest.mark.parametrize(
    ("written", "limit"), [(1000, 1000), ("512B", 512), ("64KiB", 65536), ("2 MiB", 2097152)]
)
def test_a_size_is_a_number_of_bytes_or_has_a_unit(written: object, limit: int) -> None:
    """A space before the unit is optional."""
    assert config("http://api", body_limit=written).body_limit == limit


def test_printing_the_config_shows_no_secret() -> None:
    """Password, token and header values are hidden."""
    read = config("http://api", bearer_token="t0ken", headers={"X-Key": "sesame"})
    login = config("http://u:hunter22@api")
    assert not any(secret in f"{read!r}{login!r}" for secret in ("t0ken", "sesame", "hunter22"))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"url": "ftp://api/"}, "api.url: expected a URL that begins with http:// or https://"),
        ({"url": "api.example.com"}, "api.url: expected a URL that begins with http:// or https://"),
        ({"url": "http://"}, "api.url: the host is missing"),
        (
            {"url": "http://api:99999/"},
            f"api.{UNREADABLE_URL}",
        ),
        ({"url": "http://a b/"}, "api.url: host: not a host name, an address or the path of a Unix socket"),
        ({"url": "http://a/\n"}, "api.url: a control character must be escaped"),
        ({"host": "u:p@h"}, "api.host: not a host name, an address or the path of a Unix socket"),
        ({"url": "http://a..b/"}, "api.url: host: not a host name, an address or the path of a Unix socket"),
        ({"url": "http://api/", "host": "b"}, "api: url and host both set host: keep one"),
        ({"url": "http://u:p@api/", "user": "b"}, "api: url and user both set user: keep one"),
        ({"url": "http://api/", "tls": {}}, "api: tls needs https://: change the url or remove tls"),
        ({"tls": {"server_name": ".b"}}, "api.tls.server_name: not a host name"),
        ({"path": "health"}, "api.path: a path begins with /"),
        ({"path": "/a\nb"}, "api.path: a path cannot contain a control character"),
        ({"metod": "GET"}, "api.metod: unknown key; did you mean 'method'?"),
        ({"headers": {"A b": "x"}}, "api.headers.A b: not the name of a header"),
        (
            {"headers": {"Content-Length": "1"}},
            "api.headers.Content-Length: Content-Length is set by the exporter itself: remove it",
        ),
        (
            {"headers": {"X": "a\r\nY: b"}},
            "api.headers.X: a header cannot contain a line break or another control character",
        ),
        ({"password": "x"}, "api: a password needs a user: add `user`"),
        (
            {"user": "u", "password": "x", "bearer_token": "y"},
            "api: user and bearer_token are both given: keep one",
        ),
        (
            {"bearer_token": "x", "bearer_token_file": "/y"},
            "api: bearer_token and bearer_token_file are both given: keep one",
        ),
        (
            {"user": "u", "password": "x", "headers": {"authorization": "y"}},
            "api: user and headers.Authorization are both given: keep one",
        ),
        ({"body_limit": "64KB"}, "api.body_limit: expected a size such as 64KiB, 1MiB or a number of bytes"),
        (
            {"host": "api", "method": "HEAD", "expect": {"body": "x"}},
            "api: a response to HEAD has no body: use GET with expect.body and expect.json",
        ),
        ({"expect": {"jsn": {}}}, "api.expect.jsn: unknown key; did you mean 'json'?"),
        (
            {"expect": {"status": [99]}},
            "api.expect.status[0]: expected a status such as 200, a class such as 2xx, a range such as 200-299, "
            "or a comparison such as '<300'",
        ),
        (
            {"expect": {"body": "(?=a)"}},
            "api.expect.body: not a valid regular expression (RE2): invalid perl operator: (?=",
        ),
        (
            {"expect": {"headers": {"X": "("}}},
            "api.expect.headers.X: not a valid regular expression (RE2): missing ): (",
        ),
        (
            {"expect": {"json": ["a"]}},
            "api.expect.json: expected a mapping of paths to values, such as `status: ok`",
        ),
        (
            {"expect": {"json": {"$ref": 1}}},
            'api.expect.json: $ref: a name that begins with $ is written as in ["$ref"]',
        ),
        (
            {"expect": {"json": {"a..b": 1}}},
            "api.expect.json: a..b: not a path: write it as in data.items[0].state",
        ),
        (
            {"expect": {"json": {"a[x]": 1}}},
            "api.expect.json: a[x]: not a path: write it as in data.items[0].state",
        ),
        (
            {"expect": {"json": {"a]": 1}}},
            "api.expect.json: a]: not a path: write it as in data.items[0].state",
        ),
        (
            {"expect": {"json": {"a": {"path": "b..c"}}}},
            "api.expect.json: b..c: not a path: write it as in data.items[0].state",
        ),
        (
            {"expect": {"json": {"a": {"path": 1}}}},
            "api.expect.json: a: path needs another path, such as {path: data.wanted}",
        ),
        (
            {"expect": {"json": {"a": {"length": "3"}}}},
            "api.expect.json: a: a length is compared with a number, as in {length: {'>': 3}}",
        ),
        (
            {"expect": {"json": {"a": {"=>": 1}}}},
            "api.expect.json: a: unknown comparison '=>'; known: "
            "==, !=, <, <=, >, >=, in, not_in, matches, not_matches, exists, length, path",
        ),
        ({"expect": {"json": {"a": {}}}}, "api.expect.json: a: a comparison is missing, such as {'>=': 5}"),
        ({"expect": {"json": {"a": {">": True}}}}, "api.expect.json: a: > needs a number or a string"),
        (
            {"expect": {"json": {"a": {"in": []}}}},
            "api.expect.json: a: in needs a list, such as [ok, degraded]",
        ),
        ({"expect": {"json": {"a": {"exists": 1}}}}, "api.expect.json: a: exists needs true or false"),
        (
            {"expect": {"json": {"a": {"matches": "("}}}},
            "api.expect.json: a: not a valid regular expression (RE2): missing ): (",
        ),
        (
            {"expect": {"json": {"a": [1]}}},
            "api.expect.json: a: only strings, numbers, true, false and null can be compared with",
        ),
    ],
)
def test_an_error_is_reported_on_one_line(keys: dict[str, object], said: str) -> None:
    """The line gives the key and what to write instead."""
    assert mistakes(**keys) == [said]


@pytest.mark.parametrize(
    ("status", "undefined"),
    [
        (999, "999"),
        (
            [200, "600-700", "9xx", ">599", 150, {">=": 600, "<": 700}],
            "600-700, 9xx, >599, 150, >= 600 and < 700",
        ),
        ([200, "1xx", 101, "500-700", ">=200", "!=500", {">": 599, "!=": 600}], "> 599 and != 600"),
    ],
)
def test_a_status_that_http_does_not_define_is_accepted_with_a_warning(
    status: object, undefined: str
) -> None:
    """A few servers send one, such as 999, but it is more often a typing error."""
    (warning,) = config("http://api/", expect={"status": status}).warnings
    assert warning == f"expect.status: HTTP defines no status {undefined}, only 200 to 599"


def test_statuses_that_http_defines_are_no_warning() -> None:
    """The default and any of three digits from 200 to 599."""
    assert not config("http://api/", expect={"status": [200, "5xx", "<700"]}).warnings
    assert not config("http://api/").warnings
