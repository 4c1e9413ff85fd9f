"""The wheel, installed alone in a new environment: the program, its man page, and what `assets` writes."""

import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from email import message_from_string
from email.message import Message
from pathlib import Path

import connection_exporter
import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSION = connection_exporter.__version__
REPOSITORY = "connection-exporter/connection-exporter"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def execute(*command: str | Path, folder: Path = ROOT) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(target: str, output: Path, *, source: Path = ROOT) -> Path:
    execute(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", output, folder=source)
    (made,) = output.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(file.read(name).decode())


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a new environment with the wheel. The dependencies, but not our package, come from this one."""
    folder = tmp_path_factory.mktemp("environment")
    execute(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--disable-pip-version-check"]
    execute(*pip, "--no-index", "--no-deps", wheel)
    site = execute(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def test_the_installed_program_comes_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    where = execute(
        environment / "bin" / "python",
        "-c",
        "import connection_exporter as c; print(c.__file__)",
        folder=tmp_path,
    )
    assert Path(where).is_relative_to(environment)
    page = environment / "share" / "man" / "man1" / "connection-exporter.1"
    assert page.read_text() == (ROOT / "docs" / "connection-exporter.1").read_text()


def test_assets_of_the_wheel_are_those_of_the_repository(environment: Path, tmp_path: Path, run: Run) -> None:
    """Prometheus' and Alertmanager's own tools accept them as they are."""
    program = environment / "bin" / "connection-exporter"
    execute(program, "assets", tmp_path / "wheel", folder=tmp_path)
    execute(sys.executable, "-m", "connection_exporter", "assets", tmp_path / "repository")
    for path in sorted((tmp_path / "repository").rglob("*")):
        other = tmp_path / "wheel" / path.relative_to(tmp_path / "repository")
        assert other.is_dir() if path.is_dir() else other.read_bytes() == path.read_bytes()
    rules = sorted((tmp_path / "wheel" / "prometheus" / "rules").glob("*.yml"))
    for tool in (
        ("promtool", "check", "rules", *rules),
        ("promtool", "check", "config", tmp_path / "wheel" / "prometheus" / "prometheus.yml"),
        ("amtool", "check-config", tmp_path / "wheel" / "alertmanager" / "alertmanager.yml"),
    ):
        checked = run(*tool)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_page_of_the_package_can_be_read_outside_of_the_repository(wheel: Path) -> None:
    """The README's links and pictures are absolute there, and lead to files of this version that exist here."""
    execute(sys.executable, "-m", "twine", "check", "--strict", wheel)
    page = str(metadata(wheel).get_payload())
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", page)
    links = {link or picture for link, picture in targets}
    assert len(links) > 10
    assert {link for link in links if not link.startswith("https://")} == set()
    ours = [re.fullmatch(rf"https://[\w.]+/{REPOSITORY}/(?:blob/)?v{VERSION}/(.+)", link) for link in links]
    assert {found[1] for found in ours if found and not (ROOT / found[1].partition("#")[0]).exists()} == set()
    assert sum(found is not None for found in ours) > 10


def test_the_metadata_says_who_where_and_under_what_license(wheel: Path) -> None:
    fields = metadata(wheel)
    assert (fields["Name"], fields["Version"]) == ("connection-exporter", VERSION)
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields["License-File"] == "LICENSE"
    assert fields["Author"]
    names = {url.partition(", ")[0] for url in fields.get_all("Project-URL", [])}
    assert names >= {"Homepage", "Documentation", "Changelog", "Source", "Issues"}
    assert len(str(fields["Summary"])) < 200
    assert f"Programming Language :: Python :: {min(PYTHONS)}" in fields.get_all("Classifier", [])
    assert fields["Requires-Python"] == f">={min(PYTHONS)}"


def test_the_wheel_contains_nothing_else(wheel: Path) -> None:
    """No test, no cache, no config of a machine."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert all(top.startswith("connection_exporter") for top in tops)
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]
    assert "connection_exporter/py.typed" in names


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """As an installer does that finds no wheel."""
    archive = build("sdist", tmp_path / "sdist")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    again = build("wheel", tmp_path / "again", source=source)
    contents = [
        {info.filename: info.CRC for info in zipfile.ZipFile(path).infolist()} for path in (wheel, again)
    ]
    assert contents[0] == contents[1]
