"""Find the programs that tests run, installing nothing; where CI has to have them all, a skipped test fails."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import trustme
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / ".tools" / "bin"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has the jobs that it starts in the background ignore Ctrl-C, and so would every program that we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in each run, however slow the machine is. For others: pytest --hypothesis-profile=random
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("random"), derandomize=True)
settings.load_profile("same")

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
        return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=ROOT)

    return run_program


@pytest.fixture(autouse=True, scope="module")
def _short_collections() -> None:
    """Have the garbage collector pass over what earlier modules left.

    To look through it takes half a second at the end, and an exporter under test stands still meanwhile.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Return an authority that servers have their certificates from."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file that has the certificate of ``authority``."""
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def systemd_analyze() -> str:
    """Return the path of systemd-analyze, where it can work: it makes /run/systemd, and only root may."""
    path = shutil.which("systemd-analyze", path=os.pathsep.join([os.environ.get("PATH", ""), str(TOOLS)]))
    if path is None:
        pytest.skip("systemd-analyze is not here: run `make programs`")
    if os.geteuid() != 0 and not Path("/run/systemd").is_dir():
        pytest.skip("there is no /run/systemd, and only root could make it")
    return path


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name binary data after its parameter: compressed bytes contain the time, and both workers need the same names."""
    if isinstance(val, bytes) and not (val.isascii() and val.decode("ascii").isprintable()):
        return argname
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, most of it waiting, so that all workers end at about the same time."""
    longest = ("tests/stack/test_failures.py", "tests/test_connection_monitoring.py")
    items.sort(key=lambda item: not item.nodeid.startswith(longest))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped, in CI: {item.nodeid}: {report.longrepr}"
    return report
