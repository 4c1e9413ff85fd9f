"""What is logged where: by the program on standard error, by the library where its host wants it."""

import subprocess
import sys

USE = """
import asyncio, logging, sys
from exporter import Monitor
from exporter.config import load_text
from exporter.demo.servers import HttpApi
logging.basicConfig(level=getattr(logging, sys.argv[1]), stream=sys.stderr)
async def main():
    async with HttpApi() as api:
        config = load_text(f"services: {{api: {{kind: http, url: '{api.url}', canary: off}}}}")
        async with Monitor(config) as monitor:
            await monitor.force_check()
asyncio.run(main())
"""


def use(level: str) -> subprocess.CompletedProcess[str]:
    """Use the library in a program of its own, whose logging is at ``level``."""
    return subprocess.run(
        (sys.executable, "-c", USE, level), capture_output=True, text=True, timeout=30, check=True
    )


def test_a_library_says_nothing_that_its_host_has_not_asked_for() -> None:
    """No line per probe on somebody else's standard output."""
    silent = use("WARNING")
    assert (silent.stdout, silent.stderr) == ("", "")


def test_a_host_that_asks_gets_the_lines_by_its_own_logging() -> None:
    """Under the names of our modules."""
    assert "DEBUG:exporter.watch:event=probe name=api" in use("DEBUG").stderr
