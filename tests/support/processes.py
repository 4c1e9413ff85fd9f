"""Real processes under chosen names, and what the tests of kind process do with them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from connection_exporter.kind import Failure, Observation
from connection_exporter.kinds.process.check import ProcessCheck
from connection_exporter.kinds.process.config import ProcessConfig
from connection_exporter.net import Network

SLEEP = "import time; time.sleep(60)"


class Processes:
    """Starts processes under chosen names, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._all: list[subprocess.Popen[bytes]] = []

    def start(
        self, name: str = "program", *arguments: str | bytes, code: str = SLEEP
    ) -> subprocess.Popen[bytes]:
        program = self.folder / name
        if not program.exists():
            program.symlink_to(sys.executable)
        process = subprocess.Popen([program, "-I", "-S", "-c", code, *arguments], stdin=subprocess.PIPE)
        self._all.append(process)
        wait_until(lambda: runs(program, process.pid))
        return process

    def pidfile(self, pid: int, *, age: float = 0.0) -> Path:
        path = self.folder / "program.pid"
        path.write_text(f"{pid}\n")
        os.utime(path, (time.time() - age,) * 2)
        return path

    def close(self) -> None:
        for process in self._all:
            for child in children(process.pid):
                child.kill()
            process.kill()
            process.communicate()


def runs(program: Path, pid: int) -> bool:
    """Return whether exec is over: until then a new process looks like us, and for a moment like nothing."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(os.fsencode(program))


def children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_until(condition: Callable[[], bool], *, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within:g} s"
        time.sleep(0.002)


def check_of(*, network: Network | None = None, **config: Any) -> ProcessCheck:
    model = ProcessConfig.model_validate({"kind": "process", **config})
    return ProcessCheck(model, network or Network())


async def probe(check: ProcessCheck) -> Observation:
    async with check.connect() as session:
        return await session.probe()


async def failure_of(check: ProcessCheck) -> Failure:
    with pytest.raises(Failure) as raised:
        await probe(check)
    return raised.value
