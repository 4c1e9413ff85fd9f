"""Find the programs that the tests of the stack run; install nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a program from PATH, else from .tools/bin, and return what it said."""

    def run_program(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        search = os.pathsep.join([os.environ.get("PATH", ""), str(ROOT / ".tools" / "bin")])
        path = shutil.which(name, path=search)
        if path is None:
            pytest.fail(f"{name} is neither on PATH nor in .tools/bin: run `make tools`")
        command = [path, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)

    return run_program
