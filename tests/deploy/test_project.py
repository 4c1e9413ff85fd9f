"""The files for the forge: workflows, forms and hooks are valid, and run what exists here."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import connection_exporter
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FORGE = ROOT / ".github"
WORKFLOWS = sorted((FORGE / "workflows").glob("*.yml"))


def load(path: Path) -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load(path.read_text())
    return content


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in load(workflow)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", ["workflows/ci.yml", "workflows/release.yml"]),
        ("dependabot", ["dependabot.yml"]),
        ("github-issue-config", ["ISSUE_TEMPLATE/config.yml"]),
        ("github-issue-forms", [f"ISSUE_TEMPLATE/{form}.yml" for form in ("bug", "feature", "question")]),
    ],
)
def test_the_files_of_the_forge_are_valid(schema: str, files: list[str]) -> None:
    """By the schemas that the forge publishes."""
    program = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run(
        [*program, *(str(FORGE / file) for file in files)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_no_file_of_the_forge_is_left_out() -> None:
    """The test above names them all."""
    names = {str(path.relative_to(FORGE)) for path in FORGE.rglob("*.yml")}
    forms = {f"ISSUE_TEMPLATE/{form}.yml" for form in ("bug", "feature", "question", "config")}
    assert names == {"workflows/ci.yml", "workflows/release.yml", "dependabot.yml", *forms}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_do_only_what_it_needs(workflow: Path) -> None:
    """It may read, each job has a limit of time, there is no stored secret, and no credentials stay in the clone."""
    content = load(workflow)
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        assert job["timeout-minutes"] <= 90
        assert "secrets." not in str(job)
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        # A value that others choose must not become part of a script: it is passed as a variable.
        assert not re.search(r"\$\{\{ *github\.(event|head_ref|ref_name)", str(step.get("run", "")))


def test_ci_runs_what_one_runs_by_hand() -> None:
    """Each script and each target of make that a workflow names exists."""
    commands = [str(step.get("run", "")) for workflow in WORKFLOWS for step in steps(workflow)]
    text = "\n".join(commands)
    assert ".ci/run" in commands
    assert "make test-versions" in text
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
    for script in re.findall(r"(?<![\w/])(?:scripts|\.ci)/[\w-]+", text):
        assert (ROOT / script).is_file(), script
    tested = load(FORGE / "workflows" / "ci.yml")["jobs"]["versions"]["strategy"]["matrix"]["python"]
    assert (
        tested == re.findall(r'"(3\.\d+)"', (ROOT / "scripts" / "test-versions").read_text())[: len(tested)]
    )


def test_a_release_is_checked_before_anything_is_published() -> None:
    """Every other job waits for the check, directly or not, and publishing for everything that is built."""
    jobs = load(FORGE / "workflows" / "release.yml")["jobs"]

    def before(name: str) -> set[str]:
        needs = jobs[name].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*(before(one) for one in direct))

    assert all("check" in before(name) for name in jobs if name != "check")
    assert before("publish") >= {"package", "image", "chart"}
    assert jobs["publish"]["permissions"] == {"id-token": "write"}


def release_notes(folder: Path, tag: str) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, str(folder / "scripts" / "release-notes"), tag]
    return subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the files that the release compares, with a changelog of one version."""
    for name in (
        "scripts/release-notes",
        "exporter/connection_exporter/__init__.py",
        "deploy/helm/connection-exporter/Chart.yaml",
        "docs/connection-exporter.1",
    ):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    version = connection_exporter.__version__
    (tmp_path / "CHANGELOG.md").write_text(
        f"# Changelog\n\n## Unreleased\n\n## {version} - 2026-01-02\n\n- One.\n\n## 0.1.0 - 2025-01-02\n\n- Zero.\n"
    )
    return tmp_path


def test_the_notes_of_a_release_are_its_section_of_the_changelog(copy: Path) -> None:
    """If everything has the version of the tag."""
    done = release_notes(copy, f"v{connection_exporter.__version__}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "- One.\n", "")


def test_a_release_fails_if_anything_disagrees(copy: Path) -> None:
    """With every problem at once."""
    done = release_notes(copy, "v9.9.9")
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(re.findall(r"has version [\d.]+, not 9\.9\.9", done.stderr)) == 3
    assert 'no section "## 9.9.9 - YYYY-MM-DD"' in done.stderr
    assert release_notes(copy, "9.9.9").returncode == 2


def test_the_hooks_run_the_tools_of_make_lint() -> None:
    """Each program is one that `make lint` runs, or a check that a test runs."""
    (repository,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    lint = (ROOT / "Makefile").read_text().replace("$(BIN)", ".venv/bin")
    for hook in repository["hooks"]:
        entry = hook["entry"].removesuffix(" --force-exclude")
        assert entry in lint or entry.endswith("scripts/reference.py --check"), entry


def test_the_pages_about_the_project_name_no_invented_address() -> None:
    """Reports go through the forge."""
    for name in ("SECURITY.md", "CODE_OF_CONDUCT.md", "GOVERNANCE.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text()
        assert "@" not in text
        assert len(text) > 500


def test_the_changelog_has_a_section_for_what_comes_next_and_for_this_version() -> None:
    """Unreleased stands above the section of the version that the package has."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1].startswith(f"{connection_exporter.__version__} - ")
    done = release_notes(ROOT, f"v{connection_exporter.__version__}")
    assert (done.returncode, done.stderr) == (0, "")
