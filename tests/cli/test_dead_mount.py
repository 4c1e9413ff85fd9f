"""`serve` on files that are on a mount that does not respond."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from support.dead_mount import dead_mount
from support.itself import own_pidfile
from support.web_clients import program

SECRETS = [
    "{{kind: redis, port: 1, password_file: {file}}}",
    "{{kind: http, url: 'https://127.0.0.1:1/', tls: {{ca_file: {file}}}}}",
    "{{kind: process, pidfile: {file}}}",
]


@pytest.mark.parametrize("service", SECRETS, ids=["secret", "certificate", "pidfile"])
async def test_the_other_services_are_monitored_and_sigterm_ends_it(tmp_path: Path, service: str) -> None:
    (tmp_path / "mount").mkdir()
    bad = service.format(file=tmp_path / "mount" / "it")
    config = f"services:\n  good: {{kind: process, pidfile: {own_pidfile()}}}\n  bad: {bad}\n"
    with dead_mount(tmp_path / "mount"):
        async with program(tmp_path, config) as running, httpx.AsyncClient(timeout=20) as client:
            async with asyncio.timeout(20):
                while True:
                    answer = await client.get(f"http://127.0.0.1:{running.port}/health/service/good")
                    if answer.json()["status"] == "healthy":
                        break
                    await asyncio.sleep(0.05)
            running.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                assert await running.process.wait() == 0


@pytest.mark.parametrize("flag", ["--config.file", "--web.config.file"])
def test_sigterm_ends_it_while_it_reads_its_config(tmp_path: Path, flag: str) -> None:
    """Nothing can be monitored before the config is known, but the process stops when it has to."""
    (tmp_path / "mount").mkdir()
    (tmp_path / "services.yml").write_text("services: {it: {kind: process, cmdline: pytest}}\n")
    command = [sys.executable, "-X", "importtime", "-m", "connection_exporter"]
    command += [f"--config.file={tmp_path / 'services.yml'}", f"{flag}={tmp_path / 'mount' / 'it'}"]
    with dead_mount(tmp_path / "mount"):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ)
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith(b"connection_exporter.cli.sources"):
                break
        process.send_signal(signal.SIGTERM)
        # It reads the rest: a full pipe would block the interpreter, and so the signal.
        process.communicate(timeout=20)
        assert process.returncode == 0
