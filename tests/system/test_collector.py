"""The garbage collector at the end of a command."""

import subprocess
import sys


def test_nothing_is_collected_when_a_command_has_ended() -> None:
    """All objects are excluded from collections before the interpreter makes its last ones."""
    code = """
import atexit, gc
atexit.register(lambda: print(len(gc.get_objects()) < gc.get_freeze_count()))
from connection_exporter.cli.main import main
main(["--version"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "True"
