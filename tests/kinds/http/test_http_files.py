"""What a request takes from files: a user, header values and the body. They are read again for each request."""

import json
from pathlib import Path

import pytest
from connection_exporter.config import ConfigError
from connection_exporter.config.redact import Redactor
from connection_exporter.config.shown import shown
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds import load
from support.http_servers import answers, ask, check, config, reply, serving


async def test_user_headers_and_body_come_from_files_and_follow_a_rotation(tmp_path: Path) -> None:
    """Over one kept connection, the second request has the new content."""
    for name in ("user", "password", "key", "body"):
        (tmp_path / name).write_text(f"{name}-1\n")
    async with serving(answers(reply("x"))) as server:
        checked = check(
            server.url(),
            method="POST",
            user_file=str(tmp_path / "user"),
            password_file=str(tmp_path / "password"),
            headers={"X-Key": {"file": str(tmp_path / "key")}, "X-Plain": "plain"},
            body_file=str(tmp_path / "body"),
        )
        async with checked.connect() as session:
            await session.probe()
            for name in ("user", "password", "key", "body"):
                (tmp_path / name).write_text(f"\ufeff{name}-2\r\n", encoding="utf-8")
            await session.probe()
        first, second = (request.split(b"\r\n") for request in server.requests)
        assert server.connections == 1
    assert b"Authorization: Basic dXNlci0xOnBhc3N3b3JkLTE=" in first
    assert b"Authorization: Basic dXNlci0yOnBhc3N3b3JkLTI=" in second
    assert (b"X-Key: key-1" in first, b"X-Key: key-2" in second) == (True, True)
    assert b"X-Plain: plain" in second
    assert (b"Content-Length: 6" in first, first[-1], second[-1]) == (True, b"body-1", b"body-2")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"user": "me", "password": "sesame-open"},
        {"method": "POST", "body": "x", "headers": {"X-Key": "y"}},
    ],
)
async def test_a_request_without_files_is_built_once(keys: dict[str, object]) -> None:
    """Every probe sends what would be built for it."""
    async with serving(answers(reply("x"))) as server:
        checked = check(server.url("/a?b"), **keys)
        async with checked.connect() as session:
            for _ in range(3):
                await session.probe()
        built = checked.requests.first.wire(await checked.requests.content())
        assert server.requests == [built] * 3
    assert checked.requests.unchanging == built


@pytest.mark.parametrize(
    "keys", [{"bearer_token_file": ""}, {"headers": {"X-Key": {"file": ""}}}, {"body_file": ""}]
)
async def test_a_request_with_a_file_is_built_anew(tmp_path: Path, keys: dict[str, object]) -> None:
    """Wherever the file is in the config."""
    (tmp_path / "secret").write_text("sesame-open")
    written = json.dumps(keys).replace('""', json.dumps(str(tmp_path / "secret")))
    async with serving(answers(reply("x"))) as server:
        checked = check(server.url(), **json.loads(written))
        async with checked.connect() as session:
            await session.probe()
    assert checked.requests.unchanging is None


async def test_a_header_from_a_file_replaces_one_of_ours(tmp_path: Path) -> None:
    """It is sent once."""
    (tmp_path / "agent").write_text("me/1.0\n")
    async with serving(answers(reply("x"))) as server:
        await ask(server.url(), headers={"user-agent": {"file": str(tmp_path / "agent")}})
        (request,) = server.requests
    assert b"user-agent: me/1.0\r\n" in request
    assert request.lower().count(b"user-agent:") == 1


async def test_another_host_gets_nothing_from_files(tmp_path: Path) -> None:
    """A redirect must not carry a secret away."""
    (tmp_path / "key").write_text("sesame-open")
    async with serving(answers(reply("there"))) as other:
        leads = answers(reply("", "302 Found", f"Location: {other.url(host='localhost')}"))
        async with serving(leads) as server:
            key = {"file": str(tmp_path / "key")}
            seen = await ask(server.url(), follow_redirects=True, headers={"X-Key": key})
            assert b"X-Key: sesame-open" in server.requests[0]
        assert seen.reason is None
        assert b"sesame-open" not in other.requests[0]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"headers": {"X-Key": {"file": "{}"}}}, "headers.X-Key contains a line break"),
        ({"user_file": "{}/empty", "password": "x"}, "user_file is empty"),
        ({"body_file": "{}/absent"}, "body_file cannot be read: No such file or directory"),
        ({"headers": {"X-Key": {"file": "{}/absent"}}}, "headers.X-Key cannot be read: No such file"),
    ],
)
async def test_a_file_that_cannot_be_used_is_a_failure_that_names_the_key(
    tmp_path: Path, keys: dict[str, object], message: str
) -> None:
    """Nothing is sent."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "lines").write_text("a\r\nX-Other: b")
    written = json.loads(json.dumps(keys).replace('"{}"', f'"{tmp_path}/lines"').replace("{}", str(tmp_path)))
    async with serving(answers(reply("x"))) as server:
        with pytest.raises(Failure) as raised:
            await ask(server.url(), **written)
        assert server.requests == []
    assert raised.value.reason is Reason.AUTH
    assert message in raised.value.message


async def test_what_files_contain_is_hidden(tmp_path: Path) -> None:
    """In whatever the service sends back, and in the config that is shown."""
    contents = {
        "user": "al1ce-the-first",
        "password": "c0rrect-horse",
        "key": "Bearer k3y-of-the-door",
        "body": '{"pin": "open-sesame-42"}',
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    keys: dict[str, object] = {
        "user_file": str(tmp_path / "user"),
        "password_file": str(tmp_path / "password"),
        "headers": {"X-Key": {"file": str(tmp_path / "key")}},
        "body_file": str(tmp_path / "body"),
        "method": "POST",
    }
    async with serving(answers(reply("x"))) as server:
        checked = check(server.url(), **keys)
        async with checked.connect() as session:
            await session.probe()
        request = server.requests[0].decode()
    hide = Redactor(checked.config)
    pieces = (
        "al1ce-the-first",
        "c0rrect-horse",
        "k3y-of-the-door",
        "open-sesame-42",
        request.split("Basic ")[1][:20],
    )
    assert [piece for piece in pieces if piece in hide(request) or piece not in request] == [
        "al1ce-the-first",  # sent only in base64
        "c0rrect-horse",
    ]
    assert hide("user al1ce-the-first or c0rrect-horse") == "user [redacted] or [redacted]"


def test_a_header_from_a_file_is_shown_as_it_is_written(tmp_path: Path) -> None:
    """The path is no secret."""
    file = tmp_path / "connection-exporter.yml"
    file.write_text(
        "services: {api: {kind: http, url: 'http://api', headers: {X: {file: key}}, body_file: body}}"
    )
    read = load(file)
    service = shown(read)["services"]["api"]
    assert service["headers"] == {"X": {"file": str(tmp_path / "key")}}
    assert service["body_file"] == str(tmp_path / "body")


@pytest.mark.parametrize("value", [5, True, ["a"], {"fil": "x"}, {"file": 3}, {"file": ""}, {}, None])
def test_a_header_is_text_or_a_file(value: object) -> None:
    """Anything else is an error that shows both forms."""
    with pytest.raises(ConfigError, match=r"expected text: put it in quotes, or write \{file: PATH\}"):
        config("http://api", headers={"X-Key": value})


def test_a_body_is_given_once() -> None:
    """As text, or in a file."""
    with pytest.raises(ConfigError, match="body and body_file are both given: keep one"):
        config("http://api", body="x", body_file="y")
