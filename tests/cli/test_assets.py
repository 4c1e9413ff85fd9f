"""`assets` writes what ships with the version, keeps what somebody has changed, and says what it did."""

import subprocess
import sys
from pathlib import Path

import pytest
from connection_exporter.cli.assets import Outcome, shipped_files, write_assets
from connection_exporter.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, files: dict[str, str], *, force: bool = False) -> Outcome:
    return write_assets(folder, {path: text.encode() for path, text in files.items()}, force=force)


def test_everything_that_alerting_and_dashboards_need_is_written(tmp_path: Path) -> None:
    """Rules, dashboards, templates, the renderer, which can be run, runbooks and the schema."""
    assert main(["assets", str(tmp_path / "new")]) == 0
    written = {
        str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("*") if path.is_file()
    }
    assert written == {path for path, _ in shipped_files()} | {"SHA256SUMS"}
    for folder, pattern, target in (
        ("prometheus/rules", "*.yml", "prometheus/rules"),
        ("grafana/dashboards", "*.json", "grafana/dashboards"),
        ("alertmanager/templates", "*.tmpl", "alertmanager/templates"),
        ("docs/runbooks", "*.md", "runbooks"),
    ):
        names = {path.name for path in (ROOT / folder).glob(pattern)}
        assert names
        assert {f"{target}/{name}" for name in names} <= written
    checked = subprocess.run(
        [tmp_path / "new" / "alertmanager" / "render.py", "--check"],
        env={"PATH": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_it_says_what_it_wrote_and_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With commands that fit this folder."""
    assert main(["assets", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path}: {len(dict(shipped_files()))} written\n" in out
    for part in (
        f'rule_files: ["{tmp_path}/prometheus/rules/*.yml"]',
        f"--web.user-assets={tmp_path}",
        f"{tmp_path}/alertmanager/render.py --output",
        "/etc/grafana",
    ):
        assert part in out
    assert main(["assets", str(tmp_path)]) == 0
    assert f"{tmp_path}: {len(dict(shipped_files()))} untouched\n" in capsys.readouterr().out


def test_a_changed_file_is_kept_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1, until --force overwrites it."""
    assert main(["assets", str(tmp_path)]) == 0
    changed = tmp_path / "prometheus" / "rules" / "services.yml"
    ours = changed.read_text()
    changed.write_text(f"# mine\n{ours}")
    assert main(["assets", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"kept, because it was changed: {changed} (--force overwrites it)\n"
    assert changed.read_text().startswith("# mine")
    assert main(["assets", "--force", str(tmp_path)]) == 0
    assert changed.read_text() == ours


def test_a_file_that_was_there_before_is_kept(tmp_path: Path) -> None:
    """It may be somebody else's."""
    (tmp_path / "a").write_text("mine")
    assert write(tmp_path, {"a": "1"}).kept == ["a"]
    assert (tmp_path / "a").read_text() == "mine"


def test_the_next_version_replaces_and_removes_what_nobody_has_changed(tmp_path: Path) -> None:
    """And keeps the rest, however often it is run."""
    write(tmp_path, {"a": "1", "b": "1", "gone": "1", "gone_and_changed": "1"})
    (tmp_path / "b").write_text("mine")
    (tmp_path / "gone_and_changed").write_text("mine")
    for written in (["a", "c"], []):
        outcome = write(tmp_path, {"a": "2", "b": "2", "c": "2"})
        assert (outcome.written, outcome.kept) == (written, ["b"])
    left = {path.name: path.read_text() for path in tmp_path.iterdir() if path.name != "SHA256SUMS"}
    assert left == {"a": "2", "b": "mine", "c": "2", "gone_and_changed": "mine"}


def test_a_starting_point_is_yours_from_the_first_change(tmp_path: Path) -> None:
    """It is neither overwritten nor complained about."""
    path = "prometheus/prometheus.yml"
    write(tmp_path, {path: "1"})
    (tmp_path / path).write_text("mine")
    outcome = write(tmp_path, {path: "2"})
    assert (outcome.written, outcome.kept, outcome.untouched) == ([], [], [path])
    assert (tmp_path / path).read_text() == "mine"


def test_sums_name_nothing_outside_the_folder(tmp_path: Path) -> None:
    """The file may have been edited: only files below the folder are ever removed."""
    outside = tmp_path / "outside"
    outside.write_text("1")
    inside = tmp_path / "inside"
    write(inside, {"a": "1"})
    digest = (inside / "SHA256SUMS").read_text().split()[0]
    (inside / "SHA256SUMS").write_text(f"{digest}  ../outside\n{digest}  {outside}\nnonsense\n")
    write(inside, {"b": "1"})
    assert outside.exists()


def test_a_folder_that_cannot_be_written_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["assets", str(tmp_path / "file")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("connection-exporter: cannot write ")
    assert error.endswith(": Not a directory\n")
