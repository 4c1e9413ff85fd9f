"""Texts follow docs/style.md, and the check of that finds what it should."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_no_text_breaks_a_rule_of_style() -> None:
    """The same as in `make lint`."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "prose.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "prose: no violations\n")


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("page.md", "All is well.\n\nWhat is\namiss?\n", "page.md:4: Write 'wrong' instead of 'amiss'"),
        ("page.md", "word " * 46 + ".\n", "page.md:1: A sentence of more than 45 words"),
        (
            "exporter/a.py",
            '"""Return what is told."""\n',
            "exporter/a.py:1: Write 'is reported' instead of 'is told'",
        ),
        (
            "tests/a.py",
            "x = 1  # as it were\n",
            "tests/a.py:1: Write '(leave it out)' instead of 'as it were'",
        ),
    ],
)
def test_each_kind_of_text_is_checked(tmp_path: Path, file: str, text: str, problem: str) -> None:
    """In a copy of the rules with one text."""
    for name in ("scripts/prose.py", "styles/Plain/Terms.yml", "styles/Plain/SentenceLength.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "scripts" / "prose.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout.startswith(problem)
