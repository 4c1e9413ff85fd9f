"""The tree is what docs/architecture.md says: its layers hold, and its files exist."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGE = ROOT / "exporter" / "connection_exporter"
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]


def test_every_import_contract_holds() -> None:
    """Layers, independent kinds, a pure core, drivers in kinds only; `make lint` runs the same."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program], capture_output=True, text=True, cwd=ROOT, timeout=50, check=False)
    assert done.returncode == 0, done.stdout


def test_the_page_shows_the_layers_that_are_enforced() -> None:
    """In the same order, top to bottom."""
    (layers,) = [one["layers"] for one in LINTER["contracts"] if one["type"] == "layers"]
    enforced = [layer.strip("()").removeprefix("connection_exporter.") for layer in layers]
    shown = [
        line.removesuffix("/").removesuffix(".py")
        for line in re.findall(r"^\| `([\w/.]+)` \|", PAGE, re.MULTILINE)
    ]
    assert [name for name in shown if name in enforced] == [
        name for name in enforced if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()
    ]


def test_every_kind_is_independent_of_the_others() -> None:
    """A new folder in kinds/ is added to the contract."""
    (modules,) = [one["modules"] for one in LINTER["contracts"] if one["type"] == "independence"]
    folders = [path.name for path in (PACKAGE / "kinds").iterdir() if (path / "__init__.py").exists()]
    assert sorted(module.rpartition(".")[2] for module in modules) == sorted(folders)


def test_every_file_that_the_page_names_exists() -> None:
    named = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", PAGE)
    assert named
    assert [name for name in named if not (PACKAGE / name).exists()] == []


def test_everything_that_the_page_names_in_a_module_exists() -> None:
    """As in `net/server_tls.TlsProtocol`."""
    named = re.findall(r"`((?:[a-z_0-9]+/)+[a-z_0-9]+)\.([A-Za-z_]\w*)`", PAGE)
    named = [(place, name) for place, name in named if name != "py"]
    assert ("net/server_tls", "TlsProtocol") in named
    for place, name in named:
        module = import_module("connection_exporter." + place.replace("/", "."))
        assert hasattr(module, name), f"{place}.py has no {name}"


def test_the_page_follows_a_result_in_12_files_and_the_interval_in_6() -> None:
    section = PAGE.partition("\n## Follow one result\n")[2].partition("\n## ")[0]
    result, interval = section.split("\nTo follow ")[1:]
    assert 0 < len(re.findall(r"^\d+\. `[a-z_/0-9]+\.py`", result, re.MULTILINE)) <= 12
    assert 0 < len(re.findall(r"^\d+\. `[a-z_/0-9]+\.py`", interval, re.MULTILINE)) <= 6


def test_only_the_packages_own_names_are_at_its_root() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "app.py", "kind.py"}
