"""Fixtures for the tests of kind process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import Processes


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Start processes; all of them are ended after the test."""
    started = Processes(tmp_path)
    yield started
    started.close()
