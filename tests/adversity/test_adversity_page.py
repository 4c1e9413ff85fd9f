"""docs/adversity.md says which test shows what; this holds that it is true."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "adversity.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
DEFINED = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)


def test_every_test_that_the_page_names_exists() -> None:
    """A path and a name each, and the name is defined in that file."""
    named = NAMED.findall(PAGE.read_text())
    assert len(named) > 70
    missing = [f"{path}::{name}" for path, name in named if name not in _defined(ROOT / path)]
    assert not missing


def test_every_row_names_a_test_or_says_why_there_is_none() -> None:
    """No row is left without either."""
    rows = [
        line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "shown by" not in line
    ]
    assert len(rows) > 60
    bare = [row for row in rows if not NAMED.search(row) and "not done: " not in row]
    assert not bare


def test_every_test_of_the_suite_is_on_the_page() -> None:
    """What the suite shows can be found from the page."""
    named = set(NAMED.findall(PAGE.read_text()))
    suite = [
        (str(path.relative_to(ROOT)), name)
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
        if path.name != Path(__file__).name
        for name in _defined(path)
    ]
    assert [test for test in suite if test not in named] == []


def _defined(path: Path) -> list[str]:
    return DEFINED.findall(path.read_text())
