"""The documentation builds as a site without a warning, and its search finds what people look for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it, in strict mode: a broken link or a page outside of the navigation is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", f"--site-dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    # With --quiet, strict mode would not see a warning.
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    """And the start page is the index."""
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.relative_to(site).with_suffix(".md") for path in site.rglob("*.html")}
    indexes = {page for page in pages if page.name == "README.md"}
    assert pages - indexes <= built
    assert {page.with_name("index.md") for page in indexes} <= built


@pytest.mark.parametrize(
    ("words", "page"),
    [
        (("two", "databases"), "how-to/two-databases.html"),
        (("telegram", "botfather"), "how-to/telegram.html"),
        (("idle_closed",), "faq.html"),
        (("pgbouncer",), "kinds/postgresql.html"),
        (("connection_up",), "metrics.html"),
    ],
)
def test_the_search_index_contains_what_people_look_for(
    site: Path, words: tuple[str, ...], page: str
) -> None:
    """The page about it is among the results."""
    entries = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    texts: dict[str, str] = {}
    for entry in entries:
        location = entry["location"].partition("#")[0]
        texts[location] = texts.get(location, "") + f"{entry['title']} {entry['text']} ".lower()
    assert all(word in texts[page] for word in words)


def test_no_page_of_the_site_asks_another_host_for_anything(site: Path) -> None:
    """No font, no script, no picture: the site works without the internet."""
    for path in (site / "index.html", site / "kinds" / "redis.html"):
        text = path.read_text()
        assert '<script src="http' not in text
        assert "fonts.googleapis" not in text
