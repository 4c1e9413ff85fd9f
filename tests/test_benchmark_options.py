"""A wrong option of the benchmark is reported at once, before anything is measured."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def refusal(*arguments: str, environ: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stdout) == (2, "")
    return result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (("--only", "flor"), "invalid choice: 'flor'"),
        (("--rounds", "0"), "expected a whole number of at least 1, not '0'"),
        (("--rounds=-1",), "expected a whole number of at least 1, not '-1'"),
        (("--against", "/no/such/folder"), "does not exist: run `make .venv/.dev` in /no/such/folder"),
        (("--profile", "--only", "held"), "leave out --only"),
    ],
)
def test_a_wrong_option_is_one_clear_line(arguments: tuple[str, ...], reported: str) -> None:
    assert reported in refusal(*arguments)


def test_a_folder_without_peers_is_not_replaced_by_other_peers(tmp_path: Path) -> None:
    """The user would take the figures of Debian's peers for those of this folder."""
    reported = refusal("--only", "floor", environ={"PEERS": str(tmp_path)})
    assert f"PEERS={tmp_path}: there is none of blackbox_exporter" in reported
