"""Which format a client gets, by the q-values of its headers, and on which addresses it reaches us."""

import socket

import pytest
from connection_exporter.web.requests import content_coding, wants_json, wants_openmetrics
from connection_exporter.web.server import CannotListen, bind

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (PROMETHEUS, True),
        ("", False),
        ("*/*", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; Version=1.0.0", True),
        ('application/openmetrics-text;version="1.0.0"', True),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.0", False),
        ("application/openmetrics-text;q=0.000,*/*", False),
        ("application/openmetrics-text;q=0.5,text/plain;q=0.9", False),
        ("text/plain;q=0.5, application/openmetrics-text;q=0.9", True),
        ("application/openmetrics-text;q=0.3,*/*", False),
        ("application/openmetrics-text,*/*", True),
        ("application/openmetrics-text;q=0.3,text/plain;version=1.0.0", True),
        ("application/openmetrics-text;q=what", True),
        (";;,,=;q=", False),
    ],
)
def test_the_metrics_come_in_the_format_of_the_higher_quality(accept: str, openmetrics: bool) -> None:
    """OpenMetrics only for those who name it; a quality of 0 means not acceptable (RFC 9110, section 12.4.2)."""
    assert wants_openmetrics(accept) is openmetrics


@pytest.mark.parametrize(
    ("accept_encoding", "coding"),
    [
        ("", "identity"),
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("X-GZIP", "gzip"),
        ("Zstd", "zstd"),
        ("br", "identity"),
        ("gzipped", "identity"),
        ("identity", "identity"),
        ("*", "identity"),
        ("*;q=0", "identity"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0.0, identity", "identity"),
        ("gzip ; q = 0", "identity"),
        ("zstd;q=0, gzip;q=0", "identity"),
        ("gzip;q=0.5, identity;q=0.9", "identity"),
        ("gzip;q=0.9, identity;q=0.5", "gzip"),
        ("identity, gzip", "identity"),
        ("gzip, identity", "gzip"),
        ("deflate, gzip, br, zstd", "gzip"),
        ("zstd, gzip", "zstd"),
        ("gzip;q=0.5, zstd", "zstd"),
        ("zstd;q=0.5, gzip", "gzip"),
        ("zstd;q=0, gzip;q=0.1", "gzip"),
        ("gzip;q=0.8, zstd;q=0.9, identity;q=0.85", "zstd"),
        ("gzip, gzip;q=0", "gzip"),
        ("*;q=0.1, zstd;q=0.2, gzip;q=0.3", "gzip"),
        (";;,,=;q=", "identity"),
    ],
)
def test_a_response_has_the_coding_of_the_highest_quality(accept_encoding: str, coding: str) -> None:
    """Of two with the same, it has the one that the client names first."""
    assert content_coding(accept_encoding, {"identity", "gzip", "zstd"}) == coding


def test_a_coding_that_is_not_available_is_not_chosen() -> None:
    """There is no zstd for every machine."""
    assert content_coding("zstd, gzip;q=0.5", {"identity", "gzip"}) == "gzip"
    assert content_coding("zstd", {"identity", "gzip"}) == "identity"


@pytest.mark.parametrize(
    ("accept", "json"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", True),
        ("application/json;q=0", False),
        ("application/yaml, application/json;q=0.5", False),
        ("application/yaml;q=0.5, application/json", True),
    ],
)
def test_the_config_comes_as_json_for_those_who_prefer_it(accept: str, json: bool) -> None:
    """Otherwise as YAML, as it was written."""
    assert wants_json(accept) is json


@pytest.mark.parametrize("address", [":0", "[::]:0"])
def test_a_wildcard_address_accepts_both_families(address: str) -> None:
    """As in Go, whichever way it is written."""
    (listener,) = bind([address])
    with listener:
        port = listener.getsockname()[1]
        hosts = ["127.0.0.1"] + (["::1"] if listener.family == socket.AF_INET6 else [])
        for host in hosts:
            socket.create_connection((host, port), timeout=5).close()


def test_an_address_of_one_family_accepts_only_that() -> None:
    """And a bad one says what to write."""
    (listener,) = bind(["127.0.0.1:0"])
    with listener:
        assert listener.family == socket.AF_INET
    with pytest.raises(CannotListen, match="write host:port or :port"):
        bind(["8000"])
