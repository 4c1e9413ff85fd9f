"""The config of OAuth 2.0: what is accepted, the exact message for each error, and what is hidden."""

import json
from pathlib import Path

import pytest
from connection_exporter.config import ConfigError
from connection_exporter.config.oauth2 import OAuth2Config
from connection_exporter.config.redact import Redactor
from connection_exporter.config.secret import files_of
from connection_exporter.config.shown import shown
from connection_exporter.kinds import load_text
from connection_exporter.kinds.http.config import HttpConfig

GIVEN: dict[str, object] = {
    "token_url": "https://login.example.com/token",
    "client_id": "me",
    "client_secret_file": "secret",
}


def service_with(oauth2: object, **keys: object) -> HttpConfig:
    service = {"kind": "http", "url": "http://api/", "oauth2": oauth2, **keys}
    read = load_text(json.dumps({"services": {"api": service}})).services["api"]
    assert isinstance(read, HttpConfig)
    return read


def oauth2(**keys: object) -> dict[str, object]:
    return {key: value for key, value in {**GIVEN, **keys}.items() if value is not None}


def test_the_file_of_the_secret_is_watched() -> None:
    """As every file that a config names."""
    read = service_with(oauth2(tls={"ca_file": "ca.pem"}))
    assert list(files_of(read)) == [
        (("oauth2", "client_secret_file"), Path("secret")),
        (("oauth2", "tls", "ca_file"), Path("ca.pem")),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (oauth2(token_url="ftp://login"), "token_url: token_url: expected a URL that begins with http://"),
        (oauth2(token_url="https://u:p@login/"), "must not contain credentials here: write `client_id`"),
        (oauth2(token_url="https:///token"), "token_url: the host is missing"),
        (oauth2(token_url="https://a/b c"), "a space or control character must be escaped"),
        (oauth2(token_url=None), "oauth2.token_url: is missing: add it"),
        (oauth2(client_id=None), "oauth2.client_id: is missing: add it"),
        (oauth2(client_id=""), "oauth2.client_id: expected text that is not empty"),
        (oauth2(client_secret_file=None), "oauth2: `client_secret_file` is missing: add it"),
        (oauth2(client_secret="x"), "oauth2: client_secret and client_secret_file are both given: keep one"),
        (oauth2(scopes="read"), "oauth2.scopes: expected a list"),
        (oauth2(scopes=["read write"]), "scopes[0]: not a scope: write each one as an item of the list"),
        (oauth2(token_url="http://login/", tls={}), "tls needs https://: change token_url or remove tls"),
        (oauth2(token_uri="x"), "oauth2.token_uri: unknown key; did you mean 'token_url'?"),
        ("https://login/", "oauth2: expected a mapping, as in {token_url:"),
    ],
)
def test_each_error_says_what_to_write(given: object, said: str) -> None:
    """And where."""
    with pytest.raises(ConfigError) as refused:
        service_with(given)
    (line,) = str(refused.value).splitlines()
    assert line.startswith("config:1: services.api.oauth2")
    assert said in line


def test_one_way_to_log_in_is_enough() -> None:
    """Together with another, which one is meant is not clear."""
    with pytest.raises(ConfigError, match="bearer_token and oauth2 are both given: keep one"):
        service_with(oauth2(), bearer_token="x")


def test_secrets_tokens_and_parameters_are_hidden() -> None:
    """Those that are issued later, too; they make no difference between two configs."""
    tenant = "0fae13b1-24aa-4b9f-9a0c-11d2a3b4c5d6"
    given = oauth2(
        token_url=f"https://login.example.com/{tenant}/token?key=hidden-key-1",
        client_secret_file=None,
        client_secret="s3cret-word",
        endpoint_params={"audience": "https://api.example.com", "password": "pass-w0rd"},
    )
    read, other = service_with(given), service_with(given)
    hide = Redactor(read)
    text = f"s3cret-word pass-w0rd hidden-key-1 {tenant} https://api.example.com issued-t0ken-1"
    assert hide(text).endswith("https://api.example.com issued-t0ken-1")
    assert read.oauth2 is not None
    read.oauth2.remember("issued-t0ken-1")
    hidden = "[redacted] [redacted] [redacted] [redacted] https://api.example.com [redacted]"
    assert hide(text) == hidden
    assert read == other
    config = load_text(
        json.dumps({"services": {"api": {"kind": "http", "url": "http://api/", "oauth2": given}}})
    )
    published = json.dumps(shown(config)) + repr(config)
    assert [word for word in text.split() if word in published] == ["https://api.example.com"]


def test_only_the_latest_tokens_are_remembered() -> None:
    """What is kept is bounded."""
    read = OAuth2Config.model_validate(oauth2(client_secret_file=None, client_secret="x"))
    for number in range(100):
        read.remember(f"token-{number}")
    assert read._issued.values[0] == "token-99"
    assert len(read._issued.values) == 8
