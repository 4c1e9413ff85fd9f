"""The process that runs the tests, for services that have to be healthy without a server."""

import atexit
import os
import tempfile
from functools import cache
from pathlib import Path


@cache
def own_pidfile() -> Path:
    """Return a pidfile of this process, which is removed when it ends.

    By command line, it could not be told from another run of the tests on the same machine.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".pid", delete=False) as file:
        file.write(str(os.getpid()))
    path = Path(file.name)
    atexit.register(path.unlink, missing_ok=True)
    return path
