"""The config of kind tcp."""

import pytest
from connection_exporter.kinds.tcp.config import TcpConfig
from pydantic import ValidationError


def config(**given: object) -> TcpConfig:
    return TcpConfig.model_validate({"kind": "tcp", **given})


@pytest.mark.parametrize(
    ("given", "where", "tls"),
    [
        ({"host": "mail", "port": 25}, "mail:25", False),
        ({"address": "mail:25"}, "mail:25", False),
        ({"address": "[::1]:25"}, "[::1]:25", False),
        ({"url": "tcp://mail:25"}, "mail:25", False),
        ({"url": "TCP://mail:25/"}, "mail:25", False),
        ({"url": "tls://mail:465"}, "mail:465", True),
        ({"url": "ssl://mail:465"}, "mail:465", True),
        ({"url": "tcp://mail", "port": 25}, "mail:25", False),
        ({"url": "tcp://mail:465", "tls": {}}, "mail:465", True),
        ({"url": "tcp://mail:25", "starttls": "smtp"}, "mail:25", True),
        ({"url": "unix:///run/a.sock"}, "/run/a.sock", False),
        ({"host": "/run/a.sock"}, "/run/a.sock", False),
    ],
)
def test_a_place_is_written_in_one_of_several_ways(given: dict[str, object], where: str, tls: bool) -> None:
    """All mean the same."""
    made = config(**given)
    assert (made.where, made.tls is not None) == (where, tls)


@pytest.mark.parametrize(
    ("given", "reported"),
    [
        ({}, "the address is missing"),
        ({"host": "mail"}, "`port` is missing"),
        ({"url": "tcp://mail"}, "`port` is missing"),
        ({"url": "http://mail:25"}, "begins with tcp:// or tls:// or ssl://"),
        ({"url": "tcp://me:secret@mail:25"}, "credentials have no meaning here"),
        ({"url": "tcp://mail:25/path"}, "only a host and a port"),
        ({"url": "tcp://:25"}, "the host is missing"),
        ({"url": "tcp://mail:25", "host": "mail"}, "url and host both give the address"),
        ({"url": "tcp://mail:25", "address": "mail:25"}, "url and address both give the address"),
        ({"address": "mail:25", "port": 25}, "address and port both set port"),
        ({"url": "tls://mail:465", "starttls": "smtp"}, "starttls begins in plain text"),
        ({"address": "mail:25", "starttls": "ftp"}, "'smtp', 'imap', 'pop3' or 'postgresql'"),
    ],
)
def test_an_error_in_a_place_is_reported(given: dict[str, object], reported: str) -> None:
    """Each has a message of its own, which repeats no credentials."""
    with pytest.raises(ValidationError) as raised:
        config(**given)
    assert reported in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("step", "reported"),
    [
        ({}, "a step needs one of send, send_hex, send_file, expect, expect_hex"),
        ({"send": "a", "send_hex": "61"}, "send and send_hex are both given"),
        ({"expect": "a", "expect_hex": "61"}, "expect and expect_hex are both given"),
        ({"send": "a", "within": "1s"}, "within needs expect"),
        ({"send_hex": "6"}, "expected bytes in hexadecimal"),
        ({"send_hex": "hello"}, "expected bytes in hexadecimal"),
        ({"expect_hex": ""}, "expected bytes in hexadecimal"),
        ({"expect": "(?=a)"}, "not a valid regular expression (RE2)"),
        ({"expect": ".{0,1000}z"}, "takes too long to search"),
    ],
)
def test_an_error_in_a_step_is_reported(step: dict[str, object], reported: str) -> None:
    """Each has a message of its own."""
    with pytest.raises(ValidationError) as raised:
        config(address="mail:25", on_probe=[step])
    assert reported in str(raised.value)


def test_hexadecimal_is_read_as_tools_write_it() -> None:
    """With spaces, colons, or a prefix."""
    for text in ("0d0a", "0D 0A", "0d:0a", "0x0d0a"):
        made = config(address="a:1", on_probe={"send_hex": text, "expect_hex": text})
        assert made.on_probe[0].expect_hex == "0d 0a"
