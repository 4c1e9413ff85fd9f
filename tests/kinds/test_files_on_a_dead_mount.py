"""Secrets and certificates on a file system that does not respond: the message names the file, and no server."""

import asyncio
import gc
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from connection_exporter.config.secret import SecretFile
from connection_exporter.core.health import Reason, Status
from connection_exporter.kinds import load_text
from connection_exporter.monitor.monitor import Monitor
from support import streams
from support.dead_mount import dead_mount

URL = "http://127.0.0.1:PORT/"
ADDRESS = {"host": "127.0.0.1", "port": "PORT"}
FILES: dict[str, tuple[dict[str, Any], str]] = {
    "password of redis": ({"kind": "redis", **ADDRESS, "password_file": "FILE"}, "password_file"),
    "password of a sentinel": (
        {"kind": "redis", "sentinel": {"master": "m", "nodes": ["127.0.0.1:PORT"], "password_file": "FILE"}},
        "sentinel.password_file",
    ),
    "password of postgresql": (
        {"kind": "postgresql", **ADDRESS, "user": "me", "password_file": "FILE"},
        "password_file",
    ),
    "token of http": ({"kind": "http", "url": URL, "bearer_token_file": "FILE"}, "bearer_token_file"),
    "header of http": ({"kind": "http", "url": URL, "headers": {"X-Key": {"file": "FILE"}}}, "headers.X-Key"),
    "secret for a token endpoint": (
        {
            "kind": "http",
            "url": URL,
            "oauth2": {"token_url": URL, "client_id": "me", "client_secret_file": "FILE"},
        },
        "client_secret_file",
    ),
    "password of a proxy": (
        {"kind": "http", "url": URL, "proxy": {"url": URL[:-1], "user": "me", "password_file": "FILE"}},
        "proxy password_file",
    ),
    "message of tcp": (
        {"kind": "tcp", **ADDRESS, "on_connect": {"send_file": "FILE", "expect": "x"}},
        "send_file",
    ),
    "authority of redis": ({"kind": "redis", **ADDRESS, "tls": {"ca_file": "FILE"}}, "FILE"),
}


def filled_in(keys: Mapping[str, Any], port: int, file: Path) -> str:
    text = json.dumps(keys).replace('"PORT"', str(port)).replace("PORT", str(port))
    return text.replace("FILE", str(file))


@pytest.mark.parametrize(("keys", "name"), FILES.values(), ids=FILES)
async def test_a_file_that_cannot_be_read_in_time_is_named(
    keys: dict[str, Any], name: str, tmp_path: Path
) -> None:
    """A server that nobody has asked anything is not called silent."""

    async def hold(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    mount = tmp_path / "mount"
    mount.mkdir()
    file = mount / "file"
    file.write_text("content")
    async with streams.serving(hold) as port:
        defaults = (
            '"interval": "1s", "timeout": "300ms", "retries": 1, "retry_delay": "100ms", "canary": "off"'
        )
        config = load_text(
            f'{{"defaults": {{{defaults}}}, "services": {{"it": {filled_in(keys, port, file)}}}}}', environ={}
        )
        with dead_mount(mount):
            async with Monitor(config) as monitor:
                async with asyncio.timeout(20):
                    while monitor.board.record("it").status is not Status.DISCONNECTED:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                trouble = monitor.board.record("it").trouble
    assert trouble.reason in {Reason.AUTH, Reason.TLS}
    named = name.replace("FILE", str(file))
    assert trouble.message == f"{named} cannot be read: the file system does not respond"


async def test_an_error_that_nobody_waits_for_any_more_is_not_logged(tmp_path: Path) -> None:
    """The mount comes back, or is gone for good, when the attempts are over."""
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "file").write_text("content")
    secret, logged = SecretFile(mount / "file"), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    with dead_mount(mount):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await secret.read("password_file")
        reading = secret._reading
        assert reading is not None
    async with asyncio.timeout(5):
        await asyncio.wait({reading})
    del secret, reading
    gc.collect()
    assert logged == []
