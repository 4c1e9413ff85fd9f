"""The redactor of a service: whichever secret it has and however it is echoed, nothing of it is left."""

import base64
import html
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

import pytest
from connection_exporter.config.escapes import views
from connection_exporter.config.redact import REDACTED, Redactor, _fold, _replaced
from connection_exporter.config.secret import SecretFile
from connection_exporter.kinds import load_text
from hypothesis import example, given, settings
from hypothesis import strategies as st


def redactor(keys: str, **environ: str) -> Redactor:
    return Redactor(load_text(f"services:\n  it: {{{keys}}}\n", environ=environ).services["it"])


ECHOES: Final[dict[str, Callable[[str], str]]] = {
    "as it is": str,
    "percent": lambda s: quote(s, safe=""),
    "percent, lower case": lambda s: "".join(f"%{byte:02x}" for byte in s.encode()),
    "path": quote,
    "form": quote_plus,
    "percent twice": lambda s: quote(quote(s, safe=""), safe=""),
    "JSON": lambda s: json.dumps(s)[1:-1],
    "JSON in UTF-8": lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    "JSON in JSON": lambda s: json.dumps(json.dumps(s)),
    "percent in JSON": lambda s: json.dumps(quote(s)),
    "repr": repr,
    "ascii": ascii,
    "repr of bytes": lambda s: repr(s.encode()),
    "Redis": lambda s: "".join(
        chr(b) if 32 <= b < 127 and chr(b) not in '\\"' else f"\\x{b:02x}" for b in s.encode()
    ),
    "octal": lambda s: "".join(f"\\{byte:03o}" for byte in s.encode()),
    "HTML": html.escape,
    "HTML by number": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "base64 in a URL": lambda s: quote(base64.b64encode(s.encode()).decode(), safe=""),
    "base64 after one byte": lambda s: base64.b64encode(b":" + s.encode()).decode(),
    "base64 after two bytes": lambda s: base64.b64encode(b"u:" + s.encode() + b"@").decode(),
    "hex": lambda s: s.encode().hex(),
    "a dump in hex": lambda s: s.encode().hex(" "),
    "base32": lambda s: base64.b32encode(s.encode()).decode(),
    "upper hex": lambda s: s.encode().hex().upper(),
    "upper case": str.upper,
    "lower case": str.lower,
    "without case": str.casefold,
    "latin-1": lambda s: s.encode().decode("latin-1"),
    "SQL": lambda s: s.replace("'", "''"),
}

SECRETS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("%+/=&\"'\\<> \n\t\x00ab12"),
    min_size=8,
    max_size=40,
).filter(lambda s: len(set(s)) > 3)
"""Any text: control characters, quotes, percent signs and spaces included."""


@settings(max_examples=150)
@given(
    SECRETS,
    st.sampled_from(sorted(ECHOES)),
    st.text(st.characters(max_codepoint=126, min_codepoint=32), max_size=20),
)
@example("p@ss w/ö\"rd'%41\\\n+x😀", "JSON in JSON", "")
@example("ab%2541\\x41&lt;", "percent twice", "")
@example("İstanbul", "lower case", "")
@example("İẞİẞſßİẞſß", "without case", "")
@example("ßſﬁßſﬁßſﬁ", "upper case", "")
def test_no_echo_shows_the_secret(secret: str, name: str, around: str) -> None:
    """In whichever of the usual encodings a server sends it back."""
    echo = ECHOES[name](secret)
    hidden = redactor('kind: redis, password: "${SECRET}"', SECRET=secret)(f"{around} <{echo}> {around}")
    assert REDACTED in hidden
    longest = max(4, len(echo) // 2)
    left = hidden.replace(REDACTED, "\ufffe").replace(around, "")
    assert not any(echo[i : i + longest] in left for i in range(len(echo) - longest + 1))


@settings(max_examples=50)
@given(st.text(st.sampled_from("abcXYZ019-_+/%&éß"), min_size=13, max_size=40), st.integers(8, 12))
def test_a_secret_that_was_cut_does_not_leave_its_beginning(secret: str, length: int) -> None:
    """Redis and our own messages show the first characters of what they got."""
    hidden = redactor('kind: redis, password: "${SECRET}"', SECRET=secret)
    assert (
        hidden(f"beginning with: '{secret[:length]}', and more") == f"beginning with: '{REDACTED}', and more"
    )
    for left in range(4, 8):
        assert secret[:left] not in hidden(f"it begins with {secret[:left]}…, not ok")


@pytest.mark.parametrize(
    ("keys", "echo"),
    [
        ("kind: http, url: 'http://h/', bearer_token: tok-123456789", "tok-123456789"),
        ("kind: http, url: 'http://h/', headers: {Authorization: 'Bearer tok-123456789'}", "tok-123456789"),
        ("kind: http, url: 'http://h/', headers: {Authorization: 'Basic dTpodW50ZXIy'}", "hunter2"),
        ("kind: http, url: 'http://h/', headers: {Cookie: 'theme=dark; sid=c00kie'}", "c00kie"),
        ("kind: http, url: 'http://u:hunter2@h/'", "dTpodW50ZXIy"),
        ("kind: http, url: 'http://sk_live_42@h/'", "sk_live_42"),
        ("kind: http, url: 'http://sk_live_42@h/'", "c2tfbGl2ZV80Mjo="),
        ("kind: http, url: 'http://h/x?key=a%2Fb%2Fcde&n=1'", "a/b/cde"),
        ("kind: http, url: 'http://h/x?token=abcd'", "abcd"),
        ("kind: http, url: 'http://h/bot123456:AAHdqTcvCH1vGWJxf/getMe'", "AAHdqTcvCH1vGWJxf"),
        ("kind: http, url: 'http://h/', method: POST, body: 'user=me&password=hunter2%21'", "hunter2!"),
        ('kind: http, url: \'http://h/\', method: POST, body: \'{"a": [{"apiKey": "hunter2"}]}\'', "hunter2"),
        ("kind: http, url: 'http://h/the-way-in', redact: [the-way-in]", "the-way-in"),
        (
            'kind: websocket, url: \'ws://h/\', on_connect: {send: \'{"op": "auth", "args": ["hunter2"]}\'}',
            "hunter2",
        ),
        (
            "kind: websocket, url: 'ws://h/', on_probe: [{send: 'LOGIN hunter2 please'}]",
            "LOGIN hunter2 please",
        ),
        (
            "kind: websocket, url: 'ws://h/', subprotocols: [json, bearer.Zm9vYmFyYmF6cXV4]",
            "Zm9vYmFyYmF6cXV4",
        ),
        (
            "kind: tcp, address: 'h:1', on_connect: {send: \"AUTH PLAIN AGJvYgBzM2NyZXQ=\\r\\n\"}",
            "AGJvYgBzM2NyZXQ=",
        ),
        ("kind: tcp, address: 'h:1', on_connect: {send: \"AUTH PLAIN AGJvYgBzM2NyZXQ=\\r\\n\"}", "s3cret"),
        ("kind: tcp, address: 'h:1', on_connect: {send: \"aHVudGVyMg==\\r\\n\"}", "hunter2"),
        ("kind: tcp, address: 'h:1', on_connect: {send: \"USER bob\\r\\nPASS hunter2\\r\\n\"}", "hunter2"),
        ("kind: tcp, address: 'h:1', on_probe: {send: \"PASS a=hunter2&b\\r\\n\"}", "a=hunter2&b"),
        ("kind: tcp, address: 'h:1', on_probe: {send: 'a1 LOGIN bob fish'}", "fish"),
        ("kind: websocket, url: 'ws://h/', on_probe: {send: 'AUTH bob hunter2'}", "hunter2"),
        ("kind: redis, url: 'redis://h', password: 'a b'", "a b"),
        ("kind: postgresql, user: app, password: hunter2", "hunter2"),
        ("kind: redis, sentinel: {master: main, nodes: [a], password: hunter2}", "hunter2"),
        ("kind: redis, sentinel: {master: main, nodes: [a], user: sk_live_42}", "sk_live_42"),
    ],
)
def test_each_part_of_a_secret_is_one(keys: str, echo: str) -> None:
    """A server may echo the token without its scheme, one cookie, or one value of what was sent."""
    assert redactor(keys)(f'you said "{echo}"') == f'you said "{REDACTED}"'


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("kind: redis, password: a", "a master, and a replica"),
        ("kind: redis, password: '!'", "no such key!"),
        ("kind: redis, user: monitoring_user, password: hunter2", "monitoring_user has no permissions"),
        ("kind: postgresql, user: postgres", "PostgreSQL 16"),
        (
            "kind: http, url: 'http://h/api/v1/status', headers: {Accept: application/json}",
            "is application/json",
        ),
        (
            "kind: http, url: 'http://h/trading-platform/order-history-2024/list?a=b'",
            "/order-history-2024/list",
        ),
        ("kind: websocket, url: 'ws://h/', on_connect: {send: '{\"op\":\"subscribe\"}'}", "cannot subscribe"),
        ("kind: websocket, url: 'ws://h/', subprotocols: [graphql-transport-ws]", "graphql-transport-ws"),
        ("kind: tcp, address: 'h:1', on_probe: {send: 'user=bob&password=hunter2'}", "wrong password"),
        (
            "kind: tcp, address: 'h:1', on_probe: {send: 'AUTH PLAIN AGJvYgBzM2NyZXQ='}",
            "535 PLAIN is not offered",
        ),
    ],
)
def test_ordinary_words_stay(keys: str, message: str) -> None:
    """A short secret is hidden only where it is a word by itself, and what is no secret is not hidden."""
    expected = message.replace("a master, and a replica", f"{REDACTED} master, and {REDACTED} replica")
    assert redactor(keys)(message) == expected


async def test_a_file_counts_with_its_current_and_its_previous_content(tmp_path: Path) -> None:
    """From the moment that it was read; the answer that was kept does not outlive it."""
    service = load_text(f"services:\n  it: {{kind: redis, password_file: {tmp_path}/secret}}\n").services[
        "it"
    ]
    file = service.password_file  # type: ignore[attr-defined]
    assert isinstance(file, SecretFile)
    hide = Redactor(service)
    assert hide("first-one second-one") == "first-one second-one"
    for content, shown in (("first-one", f"{REDACTED} second-one"), ("second-one", f"{REDACTED} {REDACTED}")):
        file.path.write_text(content)
        await file.read("password_file")
        assert hide("first-one second-one") == shown


NUMBER = "0123456789010110"


@given(
    st.lists(
        st.tuples(st.integers(0, 15), st.integers(0, 16)).map(lambda cut: NUMBER[cut[0] : cut[1]])
        | st.sampled_from(["0", "7", "٣"])
    ).map("".join)
)
def test_a_number_is_hidden_like_any_text(text: str) -> None:
    """Neither its case nor escapes are looked at. Another text is kept with its result, and hidden alike again."""
    hide = redactor(f"kind: http, url: 'http://a.test/', user: me, password: '{NUMBER}'")
    for given_text in (text, f"x{text}"):
        shown = hide(given_text)
        index = hide._index
        assert index is not None
        found = ((view, *span) for view in views(given_text) for span in index._found(_fold(view.text)))
        assert shown == _replaced(given_text, [view.original(begin, end) for view, begin, end in found])
        assert hide(given_text) == shown


def test_the_work_is_bounded_by_the_text() -> None:
    """Twice the text takes about twice the time, also where every character begins a match."""
    hide = redactor('kind: redis, password: "${S}"', S="aaaaaaab" * 8)

    def cost(text: str) -> float:
        began = time.thread_time()
        for _ in range(5):
            hide(text + str(time.perf_counter()))
        return time.thread_time() - began

    cost("warm up")
    for unit in ("aaaaaaa", "%61\\x61&amp;", "..."):
        long, short = (min(cost(unit * count) for _ in range(3)) for count in (400, 100))
        assert long < 8 * max(short, 0.002)
