"""Names lead to the hosts to which they lead in browsers and curl, whatever characters they have."""

import ctypes
import ctypes.util
import random
from collections.abc import Iterator

import idna
import pytest
from connection_exporter.net.names import certificate_name, header_host, to_ascii, with_ascii

PUNYCODE = 1 << 12
HOST = 5

# Letters with special rules, scripts from right to left, joiners, symbols, ignored characters, and all that a mapping
# turns into a dot, a digit, "xn--" or a delimiter of URLs.
POOLS = (
    "abcxyz019-_.", "äößüéñ", "ςσάέ", "İıſKÅ", "日本語한국", "אבגד", "ابتث۱۲", "०१कि्", "💩☕♥️👍", "。．｡",
    "\u00ad\u200c\u200d\u2060\ufeff", "１２７．", "ｘｎ－", "℀℆＠？＃％", "A\u0308e\u0301",
)  # fmt: skip
NUMBERS = ("127", "0x7f", "0177", "1", "256", "0", "65536", "4294967295", "08", "0x")


@pytest.fixture(scope="module")
def libcurl() -> ctypes.CDLL:
    library = ctypes.CDLL(ctypes.util.find_library("curl") or pytest.skip("libcurl is not installed"))
    library.curl_url.restype = ctypes.c_void_p
    library.curl_url_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    library.curl_url_get.argtypes = (
        *(ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.c_uint),
    )
    library.curl_url_cleanup.argtypes = (ctypes.c_void_p,)
    return library


def curls(library: ctypes.CDLL, host: str) -> str | None:
    """Return the host to which curl would connect, or ``None`` if it refuses the URL."""
    handle, value = library.curl_url(), ctypes.c_char_p()
    try:
        if library.curl_url_set(handle, 0, f"http://{host}/".encode(), 0):
            return None
        if library.curl_url_get(handle, HOST, ctypes.byref(value), PUNYCODE) or value.value is None:
            return None
        return value.value.decode().lower()
    finally:
        library.curl_url_cleanup(handle)


def hosts(count: int) -> Iterator[str]:
    draw = random.Random(46)
    for _ in range(count):
        kind = draw.random()
        if kind < 0.2:
            characters = (
                chr(draw.choice((draw.randrange(0x21, 0xD800), draw.randrange(0x1F000, 0x1FA00))))
                for _ in range(5)
            )
            host = "".join(each for each in characters if each not in "/?#@:%\\[]")
        elif kind < 0.3:
            host = ".".join(draw.choice(NUMBERS) for _ in range(draw.randrange(1, 6)))
        else:
            pools = draw.sample(POOLS, draw.choice((1, 1, 2, 3)))
            host = "".join(draw.choice(draw.choice(pools)) for _ in range(draw.randrange(1, 12)))
        yield host + draw.choice(("", ".", ".test", ".test."))


def ours(host: str) -> str | None:
    try:
        return to_ascii(host)
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("straße.test", "xn--strae-oqa.test"),
        ("STRAẞE.test", "xn--strae-oqa.test"),
        ("strasse.test", "strasse.test"),
        ("ς.test", "xn--3xa.test"),
        ("Σ.test", "xn--4xa.test"),
        ("💩.test", "xn--ls8h.test"),
        ("日本語。テスト", "xn--wgv71a119e.xn--zckzah"),
        ("exam\u00adple.test", "example.test"),
        ("api.corp.test.", "api.corp.test."),
        ("my_service", "my_service"),
        ("xn--strae-oqa.test", "xn--strae-oqa.test"),
        ("127.1", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("１２７.0.0.1", "127.0.0.1"),
        ("256.1.1.1", "256.1.1.1"),
        ("dead.beef", "dead.beef"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("/run/redis.sock", "/run/redis.sock"),
    ],
)
def test_a_name_has_the_ascii_form_of_browsers(host: str, name: str) -> None:
    """UTS 46, non-transitional, with emoji; Python's own codec makes strasse.test of the first."""
    assert to_ascii(host) == name


@pytest.mark.parametrize(
    "host",
    [
        "", ".", "a..b", "a b", "a\u3000b", "a.c℀.test", "evil.test＠a", "a％2fb", "xn--ß", "a\u200db", "1א", ":::",
        "1:2", "a:b", "fe80::1%", "fe80::1%" + "a" * 64, "a" * 64, "ß" * 60, "a." * 127 + "aa", "a/b", "a\x00",
        "\ufffd", "\u0301a",
    ],
)  # fmt: skip
def test_what_no_browser_takes_for_a_host_is_an_error(host: str) -> None:
    """Above all a character that a mapping turns into a delimiter. The text repeats nothing."""
    with pytest.raises(ValueError, match=r"^not a host name, an address or the path of a Unix socket$"):
        to_ascii(host)


def test_no_name_leads_to_another_host_than_in_curl(libcurl: ctypes.CDLL) -> None:
    """Or than the package `idna` says. Where one refuses a name, the other cannot lead astray.

    curl with libidn2 repeats a name that IDNA 2008 forbids with transitional processing, so that ß beside an emoji
    becomes ss there. Browsers do not.
    """
    agreed = 0
    for host in hosts(20_000):
        name = ours(host)
        if name is None:
            continue
        theirs = curls(libcurl, host)
        if theirs is not None and not set(host) & set("ßẞς") and "xn--" not in host:
            assert to_ascii(theirs) == name, ascii(host)
            agreed += 1
        if not host.isascii():
            try:
                strict = idna.encode(host, uts46=True, std3_rules=False).decode()
            except idna.IDNAError:
                continue
            assert to_ascii(strict) == name, ascii(host)
    assert agreed > 4_000


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("api.corp.test.", "api.corp.test"),
        ("straße.test.", "xn--strae-oqa.test"),
        ("fe80::1%eth0", "fe80::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("/run/redis.sock", "localhost"),
    ],
)
def test_a_certificate_has_no_dot_at_the_end_and_no_scope(host: str, name: str) -> None:
    """Both are for the resolver and the socket; SNI and certificates never have them (RFC 6066, section 3)."""
    assert certificate_name(host) == name


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("api.corp.test.", "api.corp.test."),
        ("Straße.test", "xn--strae-oqa.test"),
        ("fe80::1%eth0", "fe80::1"),
        ("/run/api.sock", "localhost"),
    ],
)
def test_the_header_host_keeps_a_dot_at_the_end(host: str, name: str) -> None:
    """As in curl. A scope means nothing to the other end."""
    assert header_host(host) == name


def test_a_message_shows_both_forms() -> None:
    """What people wrote, and what they find in the logs of their resolver."""
    assert with_ascii("straße.test") == "straße.test (xn--strae-oqa.test)"
    assert with_ascii("API.test") == "API.test"
