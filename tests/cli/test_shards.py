"""Two exporters that share a config, as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.web_clients import get, program

NAMES = [f"service_{number}" for number in range(10)]
CONFIG = "services:\n" + "".join(
    f"  {name}: {{kind: process, pidfile: /nonexistent/bot.pid}}\n" for name in NAMES
)
CONFIG += "  api: {kind: process, name: api, depends_on: [service_0, service_1, service_2, service_3]}\n"


def validate(folder: Path, *flags: str, shard: str | None = None) -> "subprocess.CompletedProcess[str]":
    file = folder / "c.yml"
    file.write_text(CONFIG)
    environment = {name: value for name, value in os.environ.items() if name != "CONNECTION_EXPORTER_SHARD"}
    if shard is not None:
        environment["CONNECTION_EXPORTER_SHARD"] = shard
    command = [sys.executable, "-m", "connection_exporter", "validate", f"--config.file={file}", *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


async def test_two_shards_monitor_each_service_once(tmp_path: Path) -> None:
    """Each says in its metrics which of how many it is."""
    boards = []
    for index in range(2):
        folder = tmp_path / str(index)
        folder.mkdir()
        async with program(folder, CONFIG, f"--shard={index}/2") as exporter:
            boards.append((await get(exporter.port, "/health/detailed")).json()["services"])
            assert (
                f'connection_exporter_shard{{index="{index}",total="2"}} 1'
                in (await get(exporter.port, "/metrics")).text
            )
    assert sorted([*boards[0], *boards[1]]) == sorted([*NAMES, "api"])


@pytest.mark.parametrize("by_variable", [False, True], ids=["flag", "variable"])
def test_validate_reports_dependencies_that_have_no_effect(tmp_path: Path, *, by_variable: bool) -> None:
    """They lead to a service of the other shard."""
    found: list[str] = []
    for shard in ("0/2", "1/2"):
        result = validate(tmp_path, shard=shard) if by_variable else validate(tmp_path, f"--shard={shard}")
        assert result.returncode == 0
        found += [
            line for line in result.stdout.splitlines() if line.endswith("it is monitored by shard 0/2")
        ]
    assert found
    assert all(line.startswith("warning: api: depends_on service_") for line in found)


def test_a_wrong_shard_is_refused_with_the_fix(tmp_path: Path) -> None:
    """From the flag and from the variable. Shards are counted from 0, as pods are."""
    for result in (validate(tmp_path, "--shard=2/2"), validate(tmp_path, shard="2/2")):
        assert result.returncode == 2
        assert "shard 2 of 2 does not exist: write --shard=K/N with K from 0 to N-1" in result.stderr
