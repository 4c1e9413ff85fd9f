"""The worked example of docs/adding-a-kind.md, installed as a user would, monitoring a real mail server."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink
from connection_exporter.core.health import Reason, Status
from connection_exporter.demo.ports import free_port
from support.streams import serving
from support.watched import on_uvloop, watching

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the example into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        (
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--target",
            str(folder),
            str(ROOT / "examples" / "smtp"),
        ),
        check=True,
    )
    return folder


async def check(config: Path, site: Path) -> tuple[int, dict[str, object]]:
    """Run ``connection-exporter check`` with the example installed; return its exit status and JSON."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "connection_exporter", "check", "--format=json", f"--config.file={config}"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(site), str(ROOT)))},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, json.loads(output)["services"]["mail"]


async def test_a_kind_of_another_package_watches_a_real_mail_server(site: Path, tmp_path: Path) -> None:
    """It is found by its entry point, its config is read, and what it measures is shown."""
    server = Controller(Sink(), hostname="127.0.0.1", port=free_port())
    server.start()
    try:
        config = tmp_path / "config.yml"
        config.write_text(f"services: {{mail: {{kind: smtp, host: 127.0.0.1, port: {server.port}}}}}")
        status, mail = await check(config, site)
    finally:
        server.stop()
    assert (status, mail["status"], mail["kind"]) == (0, "healthy", "smtp")
    details = mail["details"]
    assert isinstance(details, dict)
    assert (details["reply_code"], set(details)) == (
        250,
        {"reply_code", "resolve_seconds", "connect_seconds"},
    )


@on_uvloop
async def test_it_notices_at_once_that_the_server_goes_away(site: Path) -> None:
    """No probe is due for a minute. The first line of the greeting is not its end."""
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.write(b"220-mail.example.com\r\n220 ready\r\n")
        while await reader.readline():
            writer.write(b"250 OK\r\n")

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        async with serving(serve) as port:
            keys = f"kind: smtp, host: 127.0.0.1, port: {port}, interval: 1m, retry_delay: 100ms, canary: off"
            async with watching(f"services:\n  mail: {{{keys}}}\n") as it:
                await it.healthy("mail")
                assert await it.sample("connection_up", name="mail") == 1
                connections[0].close()
                await it.until("mail", Status.CONNECTING, Reason.IDLE_CLOSED, within=1, since=0)
                await it.healthy("mail")
        assert len(connections) == 2


async def test_its_failures_use_the_reasons_of_the_exporter(site: Path, tmp_path: Path) -> None:
    """Nobody listens: refused, and the exit status of a lost critical service."""
    config = tmp_path / "config.yml"
    config.write_text(f"services: {{mail: {{kind: smtp, host: 127.0.0.1, port: {free_port()}}}}}")
    status, mail = await check(config, site)
    assert (status, mail["status"], mail["reason"]) == (3, "disconnected", "refused")


async def test_a_reply_without_end_is_too_large(site: Path, tmp_path: Path) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 " + b"x" * 100_000)
        await writer.drain()
        await asyncio.sleep(30)

    config = tmp_path / "config.yml"
    async with serving(serve) as port:
        config.write_text(f"services: {{mail: {{kind: smtp, host: 127.0.0.1, port: {port}}}}}")
        _, mail = await check(config, site)
    assert (mail["status"], mail["reason"]) == ("disconnected", "too_large")


async def test_its_config_errors_are_reported_like_all_others(site: Path, tmp_path: Path) -> None:
    """An unknown key of a foreign kind is named, with the nearest known one."""
    config = tmp_path / "config.yml"
    config.write_text("services: {mail: {kind: smtp, hots: localhost}}")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "connection_exporter", "validate", f"--config.file={config}"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(site), str(ROOT)))},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"services.mail.hots: unknown key; did you mean 'host'?" in errors
