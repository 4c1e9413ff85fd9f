"""Find the programs that tests run, installing nothing; where CI has to have them all, a skipped test fails."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / ".tools" / "bin"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has the jobs that it starts in the background ignore Ctrl-C, and so would every program that we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a program from PATH, else from .tools/bin, and return what it said."""

    def run_program(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        search = os.pathsep.join([os.environ.get("PATH", ""), str(TOOLS)])
        path = shutil.which(name, path=search)
        if path is None:
            pytest.fail(f"{name} is neither on PATH nor in .tools/bin: run `make tools`")
        command = [path, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)

    return run_program


@pytest.fixture
def systemd_analyze() -> str:
    """Return the path of systemd-analyze, where it can work: it makes /run/systemd, and only root may."""
    path = shutil.which("systemd-analyze", path=os.pathsep.join([os.environ.get("PATH", ""), str(TOOLS)]))
    if path is None:
        pytest.skip("systemd-analyze is not here: run `make programs`")
    if os.geteuid() != 0 and not Path("/run/systemd").is_dir():
        pytest.skip("there is no /run/systemd, and only root could make it")
    return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped, in CI: {item.nodeid}: {report.longrepr}"
    return report
