"""The exporter as a process of its own, which can be frozen, starved and ended."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from connection_exporter.demo.servers import free_port

from support.watched import SLACK

_ROOT = Path(__file__).resolve().parents[2]

_STARVED = """\
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
from connection_exporter.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


class Served:
    """``connection-exporter serve`` on a free port.

    ``files`` limits its file descriptors. ``output`` is its standard output and error, instead of the file ``log``.
    """

    def __init__(
        self,
        config: str,
        folder: Path,
        *,
        files: int | None = None,
        output: int | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self.log = folder / "exporter.log"
        path = folder / "config.yml"
        path.write_text(config)
        begin = ["-m", "connection_exporter"] if files is None else ["-c", _STARVED, str(files)]
        self._command = [sys.executable, *begin, "serve", f"--config.file={path}"]
        self._command += [f"--web.listen-address=127.0.0.1:{self.port}", *flags]
        self._output = output
        self.process: subprocess.Popen[bytes]

    async def __aenter__(self) -> Self:
        self._begin()
        deadline = time.monotonic() + 20
        while True:
            try:
                await self.get("/-/ready")
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, "it does not serve"
                await asyncio.sleep(0.02)
            else:
                return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()

    def _begin(self) -> None:
        with self.log.open("wb") as log:
            environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
            output = log if self._output is None else self._output
            self.process = subprocess.Popen(self._command, stdout=output, stderr=output, env=environment)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, *, within: float) -> int:
        """Return the exit status, and hold that it came in time."""
        deadline = time.monotonic() + within
        while (status := self.process.poll()) is None:
            assert time.monotonic() < deadline, f"it has not ended within {within:g} s"
            await asyncio.sleep(0.01)
        return status

    async def get(self, path: str) -> Any:
        """Return what a route answers: JSON, or text."""
        return await asyncio.to_thread(self._get, path)

    async def until(self, name: str, status: str, *, within: float) -> dict[str, Any]:
        """Wait until ``name`` is in ``status``, and return its JSON."""
        deadline = time.monotonic() + within + SLACK
        while True:
            reported: dict[str, Any] = await self.get(f"/health/service/{name}")
            if reported["status"] == status:
                return reported
            assert time.monotonic() < deadline, f"not {status} but {reported}"
            await asyncio.sleep(0.02)

    def _get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
            return json.loads(body) if "json" in answer.headers.get("Content-Type", "") else body
        finally:
            connection.close()
