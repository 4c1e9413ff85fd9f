"""The config of a proxy: the forms that other tools take, and the exact message for each error."""

import json
from pathlib import Path

import pytest
from connection_exporter.config import ConfigError
from connection_exporter.config.proxy import ProxyConfig
from connection_exporter.config.redact import Redactor
from connection_exporter.config.secret import files_of
from connection_exporter.config.shown import shown
from connection_exporter.kind import Failure
from connection_exporter.kinds import load_text
from connection_exporter.kinds.http.config import HttpConfig


def proxy_of(proxy: object, **keys: object) -> ProxyConfig:
    service = {"kind": "http", "url": "http://api/", "proxy": proxy, **keys}
    read = load_text(json.dumps({"services": {"api": service}})).services["api"]
    assert isinstance(read, HttpConfig)
    assert read.proxy is not None
    return read.proxy


@pytest.mark.parametrize(
    "written",
    [
        "http://me:p%40ss@Proxy.example.com:3128",
        "me:p%40ss@proxy.example.com:3128/",
        {"url": "http://me:p%40ss@proxy.example.com:3128"},
        {"url": "HTTP://proxy.example.com:3128", "user": "me", "password": "p@ss"},
    ],
)
async def test_a_proxy_is_a_url_or_a_mapping(written: object) -> None:
    """With or without its scheme; the credentials are not part of the address."""
    read = proxy_of(written)
    assert read.url == "http://proxy.example.com:3128"
    assert read.proxy.address == "proxy.example.com:3128"
    assert await read.proxy.authorization() == "Basic bWU6cEBzcw=="


async def test_a_password_file_of_a_proxy_is_watched_and_read_again(tmp_path: Path) -> None:
    """As every secret in a file."""
    secret = tmp_path / "secret"
    secret.write_text("one\n")
    read = proxy_of({"url": "http://proxy:3128", "user": "me", "password_file": str(secret)})
    assert list(files_of(read)) == [(("password_file",), secret)]
    assert await read.proxy.authorization() == "Basic bWU6b25l"
    secret.write_text("two\n")
    assert await read.proxy.authorization() == "Basic bWU6dHdv"
    secret.unlink()
    with pytest.raises(Failure, match="proxy password_file cannot be read: No such file"):
        await read.proxy.authorization()


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("socks5://proxy:1080", "SOCKS proxies are not supported: use the HTTP port of this proxy"),
        ({"url": "http://proxy:3128", "tls": {}}, "tls needs https://: change the url or remove tls"),
        ("ftp://proxy:21", "expected a URL that begins with http://"),
        ("http://proxy", "the port is missing: write it, as in http://proxy.example.com:3128"),
        ("http://:3128", "the host is missing"),
        ("http://%2Frun%2Fproxy.sock:80", "not a host name, an address or the path of a Unix socket"),
        ("http://proxy:3128/path", "expected only a host and a port"),
        ({"url": "http://me@proxy:3128", "user": "you"}, "url and user both set user: keep one"),
        ({"url": "http://proxy:3128", "password": "x"}, "a password needs a user: add `user`"),
        ({"url": "http://proxy:3128", "pasword_file": "x"}, "unknown key; did you mean 'password_file'?"),
        ({"user": "me"}, "is missing: add it"),
        (["http://proxy:3128"], "expected a mapping"),
    ],
)
def test_each_error_says_what_to_write(proxy: object, said: str) -> None:
    """And where."""
    with pytest.raises(ConfigError) as refused:
        proxy_of(proxy)
    (line,) = str(refused.value).splitlines()
    assert line.startswith("config:1: services.api.proxy")
    assert said in line


def test_a_unix_socket_has_no_proxy() -> None:
    """No proxy can reach it."""
    with pytest.raises(ConfigError, match="a Unix socket cannot be reached through a proxy"):
        proxy_of("http://proxy:3128", url="http://%2Frun%2Fapi.sock/")


def test_the_credentials_of_a_proxy_are_hidden() -> None:
    """In what a proxy sends back, alone and in Basic authentication, and in the config that is shown."""
    text = "services: {api: {kind: http, url: 'http://api', proxy: 'http://watch3r:s3cret-word@proxy:3128'}}"
    config = load_text(text)
    hide = Redactor(config.services["api"])
    assert hide("no s3cret-word, no d2F0Y2gzcjpzM2NyZXQtd29yZA==") == "no [redacted], no [redacted]"
    assert "s3cret" not in json.dumps(shown(config)) + repr(config)
    assert shown(config)["services"]["api"]["proxy"]["url"] == "http://proxy:3128"
