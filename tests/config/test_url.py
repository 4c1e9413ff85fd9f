"""One function takes URLs apart, and it agrees with libpq, libcurl and redis-cli about where each part ends."""

import asyncio
import ctypes
import ctypes.util
import shutil
import sys
from pathlib import Path

import pytest
from connection_exporter.config import ConfigError
from connection_exporter.config.shown import shown
from connection_exporter.kinds import load_text
from connection_exporter.kinds.postgresql.config import PostgresqlConfig
from support.libpq import libpq


def libcurl(url: str) -> dict[str, str] | None:
    """Return what libcurl makes of a URL, ``None`` where it refuses it."""
    library = ctypes.CDLL(ctypes.util.find_library("curl") or pytest.skip("libcurl is not installed"))
    library.curl_url.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(library.curl_url())
    if library.curl_url_set(handle, 0, url.encode(), 0):
        return None
    found = {}
    decode = 1 << 6
    for number, name in ((2, "user"), (3, "password"), (5, "host"), (6, "port")):
        value = ctypes.c_char_p()
        if library.curl_url_get(handle, number, ctypes.byref(value), decode) == 0 and value.value is not None:
            found[name] = value.value.decode()
    return found


async def redis_cli(url: str) -> tuple[str, ...]:
    """Return the arguments of the AUTH that redis-cli sends to the server that ``{port}`` in ``url`` names."""
    program = shutil.which("redis-cli") or Path(sys.executable).with_name("redis-cli")
    if not Path(program).exists():
        pytest.skip("redis-cli is not installed")
    sent = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count = int((await reader.readline())[1:])
        words = []
        for _ in range(count):
            size = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size + 2))[:-2].decode())
        if not sent.done():
            sent.set_result(tuple(words))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            program, "-u", url.replace("{port}", str(port)), "PING",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(20):
                words: tuple[str, ...] = await sent
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    return words[1:] if words[0].upper() == "AUTH" else ()


def read(keys: str) -> object:
    return load_text(f"services:\n  it: {{{keys}}}\n", environ={}).services["it"]


def parts(service: object) -> dict[str, str]:
    found = {key: getattr(service, key) for key in ("user", "host")}
    password = getattr(service, "password")  # noqa: B009 - of any kind
    found["password"] = password.get_secret_value() if password else None
    return {key: value for key, value in found.items() if value is not None}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1/app?user=me@srv&password=hunter2",
        "postgresql://127.0.0.1/app?user=me&password=a@b",
        "postgresql://127.0.0.1/app?user=me&password=a+b%2B",
        "postgresql://me:p%40%2F%3F@db:1234/app",
        "postgresql://me:p?w#d@db/app",
        "postgresql://me:p:w@db/app",
        "postgresql://me@db/app",
        "postgresql://me:@db/app",
        "postgresql://[::1]:5433/app?user=me",
        "postgresql://%2Fvar%2Frun%2Fpg/app?user=me",
        "postgresql:///app?host=/var/run/pg&user=me",
        "postgresql://db?user=me",
        "postgresql://me:pw@db:5433/a%20b?sslmode=require",
        "postgres://db/app?user=u&user=v",
    ],
)
def test_a_postgresql_url_means_what_it_means_to_psql(url: str) -> None:
    """Credentials, host, port and database."""
    service = read(f'kind: postgresql, dsn: "{url}"')
    assert isinstance(service, PostgresqlConfig)
    theirs = libpq(url)
    assert theirs is not None
    ours = parts(service)
    assert ours.get("user") == theirs.get("user")
    assert ours.get("password", "") == theirs.get("password", "")
    assert ours["host"] == theirs.get("host", "localhost")
    assert str(service.port) == theirs.get("port", "5432")
    assert service.database == theirs.get("dbname")


@pytest.mark.parametrize(
    "url",
    [
        "http://u:p%40w@h/x", "http://h/x@y?z=a@b", "http://h?x=u:p@h2", "http://h#u:p@h2",
        "http://sk_live_42@h/", "http://u:p:w@h:81/", "http://u:@h/", "http://[::1]:81/", "http://a%20b:c@h/",
    ],
)  # fmt: skip
def test_an_http_url_means_what_it_means_to_curl(url: str) -> None:
    """The authority ends at the first slash, question mark or hash; its last @ ends the credentials."""
    ours, theirs = parts(read(f'kind: http, url: "{url}"')), libcurl(url)
    assert theirs is not None
    assert ours["host"] == theirs["host"].strip("[]")
    assert ours.get("user") == theirs.get("user")
    assert ours.get("password", "") == theirs.get("password", "")


@pytest.mark.parametrize(
    "url",
    [
        "redis://s3cret@127.0.0.1:{port}", "redis://:s3cret@127.0.0.1:{port}/0", "redis://me:s3c:ret@127.0.0.1:{port}",
        "redis://me:p%40%2F@127.0.0.1:{port}", "redis://me:p/w?d@127.0.0.1:{port}/0", "redis://:a#b@127.0.0.1:{port}",
    ],
)  # fmt: skip
async def test_a_redis_url_means_what_it_means_to_redis_cli(url: str) -> None:
    """A user part on its own is the password."""
    ours = parts(read(f'kind: redis, url: "{url.replace("{port}", "6379")}"'))
    theirs = await redis_cli(url)
    assert tuple(ours[key] for key in ("user", "password") if key in ours) == tuple(
        word for word in theirs if word
    )


HOSTS = (
    "redis://u:hunter2@h", "u:hunter2@h", "hunter2@h", "h/hunter2", "h?hunter2", "h#hunter2", "h&password=hunter2",
    "h hunter2", "h\\thunter2", "password=hunter2", "h,hunter2", "[h]hunter2", "h;hunter2",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["postgresql", "redis", "http", "websocket"])
@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_only_a_host(kind: str, host: str) -> None:
    """Anything else is an error, which repeats no part of it."""
    with pytest.raises(ConfigError) as refused:
        read(f'kind: {kind}, host: "{host}"')
    assert "hunter2" not in str(refused.value)
    assert "services.it.host: " in str(refused.value)


@pytest.mark.parametrize(
    "keys",
    [
        *(f'kind: postgresql, dsn: "postgresql://{place}/app"' for place in (
            "me@ho&hunter2", "a?b=c@srv&password=hunter2", "u:p@h:hunter2", "u:p@[hunter2]", "u:p@h=hunter2")),
        'kind: postgresql, dsn: "postgresql://h/app?hunter2"',
        'kind: postgresql, dsn: "postgresql://h/app?hunter2=1"',
        'kind: postgresql, dsn: "postgresql://h/app?host=srv%26password=hunter2"',
        'kind: redis, url: "redis://u:p@h&hunter2"',
        'kind: redis, url: "redis://u@h:hunter2"',
        'kind: redis, url: "redis://h/hunter2"',
        'kind: http, url: "http://u:hunter2/x@h/"',
        'kind: websocket, url: "ws://h&hunter2/"',
    ],
)  # fmt: skip
def test_an_error_about_a_url_repeats_no_part_of_it(keys: str) -> None:
    """What cannot be read may be a piece of a password."""
    with pytest.raises(ConfigError) as refused:
        read(keys)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "keys",
    [
        'kind: redis, url: "redis://h0nter2@cache"',
        "kind: redis, sentinel: {master: main, nodes: [a], password: h0nter2}",
        "kind: redis, sentinel: {master: main, nodes: [a], user: h0nter2}",
        'kind: http, url: "http://h0nter2@api/"',
        'kind: websocket, url: "ws://h0nter2@feed/"',
        'kind: postgresql, dsn: "postgresql://h0nter2@db/app"',
        'kind: postgresql, dsn: "postgresql://127.0.0.1/app?user=me@srv&password=h0nter2"',
        'kind: http, url: "http://api/bot123456:AAh0nter2xx/getMe"',
        'kind: http, url: "http://api/x?key=h0nter2"',
        'kind: http, url: "http://api/token/h0nter2/x"',
        'kind: http, url: "http://api/the-h0nter2-way", redact: [h0nter2]',
        'kind: http, url: "http://api/", headers: {X-Key: h0nter2}',
        'kind: websocket, url: "ws://feed/", subprotocols: [json, bearer.h0nter2h0nter2]',
        'kind: websocket, url: "ws://feed/", on_connect: [{send: h0nter2}]',
    ],
)
def test_what_is_shown_of_a_config_has_no_secret(keys: str) -> None:
    """Neither /config nor the address, which is a label of a metric."""
    config = load_text(f"services:\n  it: {{{keys}}}\n", environ={})
    service = config.services["it"]
    assert "h0nter2" not in str(shown(config))
    assert "h0nter2" not in service.address  # type: ignore[attr-defined]
    assert "h0nter2" not in repr(config)
