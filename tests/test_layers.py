"""The layers of docs/architecture.md hold: who may import whom, read from the source."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "exporter").rglob("*.py"))
CORE = {"exporter.core"}
PUBLISHED = {
    *CORE,
    "exporter.board",
    "exporter.bounds",
    "exporter.check",
    "exporter.histogram",
    "exporter.record",
}
WATCHED = {*CORE, "exporter.board", "exporter.check", "exporter.record", "exporter.turnstile"}

ALLOWED: dict[str, set[str]] = {
    "exporter.core": CORE,
    "exporter.aside": set(),
    "exporter.clock": set(),
    "exporter.histogram": set(),
    "exporter.garbage": set(),
    "exporter.logs": set(),
    "exporter.room": set(),
    "exporter.stopping": set(),
    "exporter.check": CORE,
    "exporter.bounds": {*CORE, "exporter.check"},
    "exporter.net": {*CORE, "exporter.net", "exporter.check"},
    "exporter.config": {*CORE, "exporter.config", "exporter.net.tls", "exporter.net.server_tls"},
    "exporter.checks": {*CORE, "exporter.checks", "exporter.check", "exporter.config", "exporter.net"},
    "exporter.record": {*CORE, "exporter.check", "exporter.histogram"},
    "exporter.board": {*CORE, "exporter.check", "exporter.clock", "exporter.histogram", "exporter.record"},
    "exporter.listeners": {"exporter.record"},
    "exporter.bell": set(),
    "exporter.attempt": {*CORE, "exporter.check"},
    "exporter.canary": {*CORE, "exporter.attempt", "exporter.check", "exporter.record"},
    "exporter.turnstile": set(),
    "exporter.watch": {
        *WATCHED,
        "exporter.attempt",
        "exporter.bell",
        "exporter.canary",
        "exporter.turnstile",
    },
    "exporter.monitor": {*WATCHED, "exporter.turnstile", "exporter.watch"},
    "exporter.snapshot": {*CORE, "exporter.board", "exporter.record"},
    "exporter.storage": {*CORE, "exporter.aside", "exporter.board", "exporter.record"},
    "exporter.publish": {*PUBLISHED, "exporter.publish", "exporter.snapshot", "exporter.aside"},
    "exporter.reload": {"exporter.aside", "exporter.config"},
    "exporter.rotation": {"exporter.aside", "exporter.config"},
    "exporter.demo": {"exporter.demo"},
}
"""What each may import of the exporter."""

COMPOSERS = {
    *("exporter", "exporter.__main__", "exporter.app", "exporter.building", "exporter.cli"),
    "exporter.commands",
}
"""They put the parts together, and may import all."""
DRIVERS = {"asyncpg", "httptools", "httpx", "psutil", "redis", "websockets"}
DRIVERS_MAY = ("exporter.checks", "exporter.demo", "exporter.commands.watch")
"""The demo's servers are the other end of the wire; `watch` is a client of our own API."""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES}


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what is imported"
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in below)


def within(name: str, places: set[str] | tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def layer_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    """Of the exporter by the table (the package itself, for its version, is free); drivers in checks only."""
    found = {name for name in imports(MODULES[module]) if name != "exporter"}
    if module not in COMPOSERS and layer_of(module) not in COMPOSERS:
        own = {name for name in found if within(name, ("exporter",))}
        assert {name for name in own if not within(name, ALLOWED[layer_of(module)])} == set()
    if within(module, ("exporter.core",)):
        assert {
            name for name in found if name.split(".")[0] not in {*sys.stdlib_module_names, "exporter"}
        } == set()
    if not within(module, DRIVERS_MAY):
        assert {name for name in found if name.split(".")[0] in DRIVERS} == set()


def test_only_the_entrances_import_the_composition_root() -> None:
    """Nobody below knows `app` or `cli`, and nobody but `app` knows a concrete part of everything."""
    importers = {
        root: {module for module, path in MODULES.items() if root in set(imports(path))}
        for root in ("exporter.app", "exporter.cli")
    }
    assert {layer_of(module) for module in importers["exporter.app"]} <= {
        "exporter",
        "exporter.cli",
        "exporter.commands",
    }
    assert importers["exporter.cli"] == {"exporter.__main__"}


def test_a_concrete_check_is_imported_by_nobody_but_checks() -> None:
    """The map of kinds names each by a string: its driver is imported only where it is in use."""
    for module, path in MODULES.items():
        if not within(module, ("exporter.checks",)):
            assert [name for name in imports(path) if within(name, ("exporter.checks",))] == [], module


def test_every_driver_is_imported_somewhere() -> None:
    """The list of drivers is not out of date, so that the test above tests something."""
    used = {name.split(".")[0] for module in MODULES for name in imports(MODULES[module])}
    assert used >= DRIVERS


def test_the_table_names_what_exists() -> None:
    """A layer that is renamed or removed goes from the table too, and a new one comes into it."""
    assert {*ALLOWED, *COMPOSERS} == {layer_of(module) for module in MODULES}
