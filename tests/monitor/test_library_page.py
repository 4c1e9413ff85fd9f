"""docs/library.md: its program runs as it is written, and its tables name what is exported."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import connection_exporter

PAGE = (Path(__file__).parents[2] / "docs" / "library.md").read_text()


def program() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def test_the_program_of_the_page_runs_until_ctrl_c(tmp_path: Path) -> None:
    """Unchanged, with a config of its own. It prints transitions and the summary, and stops."""
    (tmp_path / "ours.pid").write_text(str(os.getpid()))
    config = "services: {database: {kind: process, pidfile: ours.pid}}\n"
    (tmp_path / "connection-exporter.yml").write_text(config)
    with subprocess.Popen(
        (sys.executable, "-c", program()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        try:
            assert process.stdout is not None
            text = ""
            # Callbacks run in a thread: they may print the last transition after the summary.
            while not all(part in text for part in (" {", "}", "connecting -> healthy")):
                line = process.stdout.readline()
                assert line, process.communicate()
                text += line
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")
    assert out.splitlines()[-1] == "stopped"
    assert "'total': 1, 'healthy': 1" in text


def test_the_program_of_the_page_reports_a_bad_config(tmp_path: Path) -> None:
    """Without a traceback."""
    (tmp_path / "connection-exporter.yml").write_text("services: {database: {kind: redi}}\n")
    done = subprocess.run(
        (sys.executable, "-c", program()),
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("connection-exporter.yml:1: services.database.kind: unknown kind 'redi'")
    assert "Traceback" not in done.stderr


def test_every_error_of_the_page_is_exported() -> None:
    """And every exported one is on the page, with its attributes."""
    errors = PAGE.partition("## Errors")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*?) ?\|$", errors, re.MULTILINE))
    exported = {
        name
        for name in connection_exporter.__all__
        if isinstance(thing := getattr(connection_exporter, name), type) and issubclass(thing, BaseException)
    }
    assert rows.keys() == exported
    assert re.findall(r"`(\w+)`", rows["ConfigError"]) == ["source", "lines"]


def test_every_exported_name_is_on_the_page() -> None:
    missing = {name for name in connection_exporter.__all__ if not re.search(rf"\b{name}\b", PAGE)}
    assert missing == set()
