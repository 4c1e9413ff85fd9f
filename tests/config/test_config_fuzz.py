"""Every text is either a valid config or a ConfigError."""

import contextlib
import sys
from typing import Any

import yaml
from connection_exporter.config import ConfigError
from connection_exporter.kinds import load_environment, load_text
from connection_exporter.kinds.registry import KINDS
from hypothesis import example, given
from hypothesis import strategies as st

NESTED = {
    "json",
    "status",
    "file",
    "token_url",
    "client_id",
    "client_secret",
    "scopes",
    "send",
    "expect_json",
}
KEYS = sorted({key for kind in KINDS.values() for key in kind.config.model_fields} | NESTED | {"<<"})
URLS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(
        ["postgresql://", "redis://", "unix://", "http://", "https://", "ws://", "socks5://", "a+b://", ""]
    ),
    st.sampled_from(["", "u:p@", "u@", ":@", "@@", "[", "]"]),
    st.sampled_from(["", "h", "[::1]", "[::1", "h:0", "h:99999", "h:²", "a,b", "ü", "xn--", "h" * 70, "."]),
    st.sampled_from(
        ["", "/", "/1", "/x?y=1", "?port=²", "?sslmode=x", "#f", "/99999999999999", "/\x7f", "%zz"]
    ),
)
WORDS = st.sampled_from(
    [
        "off",
        "true",
        "~",
        "5s",
        "999999999d",
        "${A}",
        "${A:-b}",
        "${",
        "$$",
        "(",
        "a{9999}",
        "(a+)+$",
        "200",
        "2xx",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | WORDS | URLS
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
SERVICES = st.fixed_dictionaries(
    {"kind": st.sampled_from(sorted(KINDS)) | SCALARS},
    optional={key: TREES for key in KEYS if key != "kind"},
)
CONFIGS = st.fixed_dictionaries(
    {
        "services": st.dictionaries(
            st.sampled_from(["a", "b", "on"]) | st.text(max_size=5), SERVICES | TREES, max_size=3
        )
    },
    optional={"defaults": TREES, "other": TREES},
)


def read(text: str) -> None:
    """Read ``text``, and hold a refusal to its form."""
    refusal = None
    try:
        load_text(text, source="c.yml", environ={"A": "1"})
    except ConfigError as error:
        refusal = error
    if refusal is not None:
        assert refusal.mistakes
        assert all(line.startswith(("c.yml", " ")) for line in str(refusal).split("\n"))


@given(st.text())
@example("a: \ud800")
@example("services: " + "[" * 50_000)
@example("- " * 5_000)
@example("? " * 5_000)
@example("%YAML 1.1\n%YAML 1.1\n---\n")
@example("--- !!binary x")
@example("a: " + "9" * 5000)
@example('a: "\\ud800"')
@example("\x00")
@example("a: " + "${" * 200_000)
@example("a: " + "${A:-" * 200_000)
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    """Never a crash, a hang or another exception."""
    read(text)


@given(st.binary())
def test_any_bytes_that_are_text_are_a_config_or_a_config_error(data: bytes) -> None:
    """As they come from a file."""
    with contextlib.suppress(UnicodeDecodeError):
        read(data.decode())


@given(st.text(alphabet="abk: {}[]-,'\"\n\t#&*!|>%@`?<~$\\0123", max_size=60))
def test_any_jumble_of_yaml_is_a_config_or_a_config_error(text: str) -> None:
    """With the characters that mean something."""
    read(text)


@given(CONFIGS)
def test_any_tree_is_a_config_or_a_config_error(tree: dict[str, Any]) -> None:
    """With the keys of every kind, and values that fit none."""
    try:
        text = yaml.safe_dump(tree, allow_unicode=True)
    except (ValueError, yaml.YAMLError):
        return
    read(text)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            key: URLS | st.text(max_size=30)
            for key in ("DATABASE_URL", "REDIS_URL", "BOT_PROCESS", "API_URL", "WEBSOCKET_URL")
        },
    )
)
@example({"BOT_PROCESS": "/\x00"})
def test_any_environment_is_a_config_or_a_config_error(environ: dict[str, str]) -> None:
    """The same where there is no file."""
    with contextlib.suppress(ConfigError):
        load_environment(environ)


def test_the_fuzzers_reach_good_configs() -> None:
    """Or they would prove little: the recursion limit is our own, and a plain config passes."""
    assert sys.getrecursionlimit() <= 1000
    read("services: {a: {kind: redis}}")
    assert load_text("services: {a: {kind: redis}}").services
