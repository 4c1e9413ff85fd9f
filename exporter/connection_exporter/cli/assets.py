"""The command ``assets``: writes the rules, dashboards, templates and runbooks that belong to this version.

A wheel contains them in the folder ``assets`` of the package, under the paths that they have in the repository; an
editable installation reads them from there. ``SHA256SUMS`` in the target folder lists what was written, so that the
next version can tell which files have been changed.
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_SHIPPED: Final[Mapping[str, str]] = {
    "prometheus/rules": "prometheus/rules",
    "prometheus/local.yml": "prometheus/prometheus.yml",
    "alertmanager": "alertmanager",
    "grafana/dashboards": "grafana/dashboards",
    "grafana/provisioning": "grafana/provisioning",
    "docs/runbooks": "runbooks",
    "docs/schema.json": "schema.json",
}
"""Files and folders of the repository, and where each is written."""

_STARTING_POINTS: Final = ("prometheus/prometheus.yml", "alertmanager/alertmanager.yml")
"""Files that everybody changes: they are written once."""

_SUMS: Final = "SHA256SUMS"


@dataclass(slots=True)
class Outcome:
    """What has happened to the files, by their paths in the target folder."""

    written: list[str] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """Files that somebody has changed."""
    removed: list[str] = field(default_factory=list)
    """Files that an earlier version has written, and this one does not have."""


def assets(folder: Path, *, force: bool) -> int:
    """Write the files, say what was done and what to do next, and return the exit status."""
    try:
        outcome = write_assets(folder, dict(shipped_files()), force=force)
    except OSError as error:
        print(f"connection-exporter: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    for line in _report(folder, outcome):
        print(line)
    for path in outcome.kept:
        print(f"kept, because it was changed: {folder / path} (--force overwrites it)", file=sys.stderr)
    return 1 if outcome.kept else 0


def shipped_files() -> Iterator[tuple[str, bytes]]:
    """Yield the target path and the content of each file."""
    packaged = Path(__file__).parents[1] / "assets"
    root = packaged if packaged.is_dir() else Path(__file__).parents[3]
    for source, target in _SHIPPED.items():
        start = root / source
        for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
            if path.is_file() and "__pycache__" not in path.parts:
                inside = path.relative_to(start).as_posix()
                yield (f"{target}/{inside}" if start.is_dir() else target), path.read_bytes()


def write_assets(folder: Path, files: Mapping[str, bytes], *, force: bool) -> Outcome:
    """Write ``files`` below ``folder``, but not over a changed file unless ``force`` is set. Raises OSError."""
    outcome = Outcome()
    before = _read_sums(folder)
    sums: dict[str, str] = {}
    for path, content in files.items():
        target = folder / path
        present = target.read_bytes() if target.exists() else None
        is_ours = present is None or (path in before and _sum(present) == before[path])
        if present == content:
            outcome.untouched.append(path)
        elif is_ours or force:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            if content.startswith(b"#!"):
                target.chmod(0o755)
            outcome.written.append(path)
        elif path in _STARTING_POINTS:
            outcome.untouched.append(path)
            continue
        else:
            outcome.kept.append(path)
            sums |= {path: before[path]} if path in before else {}
            continue
        sums[path] = _sum(content)
    for path in before.keys() - files.keys():
        target = folder / path
        if target.exists() and _sum(target.read_bytes()) == before[path]:
            target.unlink()
            outcome.removed.append(path)
    (folder / _SUMS).write_text("".join(f"{digest}  {path}\n" for path, digest in sorted(sums.items())))
    return outcome


def _read_sums(folder: Path) -> dict[str, str]:
    """Return the digest of each file that an earlier run has written. Paths outside the folder are left out."""
    path = folder / _SUMS
    pairs = (line.split("  ", 1) for line in path.read_text().splitlines()) if path.exists() else ()
    sums = {pair[1]: pair[0] for pair in pairs if len(pair) == 2}
    return {name: digest for name, digest in sums.items() if not (name.startswith("/") or ".." in name)}


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _report(folder: Path, outcome: Outcome) -> Iterator[str]:
    counts = {"written": outcome.written, "untouched": outcome.untouched, "removed": outcome.removed}
    yield f"{folder}: " + ", ".join(f"{len(paths)} {word}" for word, paths in counts.items() if paths)
    place = folder.resolve()
    render = f"{sys.executable} {place}/alertmanager/render.py"
    yield f"""
Prometheus    Add to its config:  rule_files: ["{place}/prometheus/rules/*.yml"]
              prometheus/prometheus.yml is a complete config to begin with.
              The flag --web.user-assets={place} serves the runbooks.
Alertmanager  List what you can configure:  {render} --help
              Write its config:             {render} --output {place}/alertmanager/alertmanager.yml
Grafana       Copy grafana/provisioning to /etc/grafana and grafana/dashboards to /etc/grafana/dashboards,
              or import the dashboards one by one in the browser.
Editor        Begin your config with:  # yaml-language-server: $schema={place}/schema.json

After an upgrade, run this command again: it replaces the files that you have not changed."""
