"""Owns Prometheus, Alertmanager and the exporter as servers on loopback, for `make stack` and the tests of the stack.

Their configs are those of the repository, with other addresses: nothing here decides what is alerted or routed.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from connection_exporter.demo.server import Server, ServerError

ROOT: Final = Path(__file__).resolve().parents[1]
_RENDER: Final = ROOT / "alertmanager" / "render.py"


def program(name: str) -> str:
    """Return the path of a program from PATH, else from .tools/bin. Raises ServerError."""
    search = os.pathsep.join([os.environ.get("PATH", ""), str(ROOT / ".tools" / "bin")])
    found = shutil.which(name, path=search)
    if found is None:
        raise ServerError(f"{name} is neither in PATH nor in .tools/bin: run `make tools`")
    return found


class Prometheus(Server):
    """Prometheus with the rules of the repository.

    ``targets`` are the addresses of the other jobs of prometheus/local.yml, by their names; ``scrape`` replaces
    the intervals of the config, those of the rules stay. ``alertmanagers`` receive its alerts, by default the target
    of that name.
    """

    name = "prometheus"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        targets: Mapping[str, str],
        alertmanagers: Sequence[str] = (),
        scrape: str | None = None,
    ) -> None:
        self._program = program("prometheus")
        super().__init__(folder)
        self._targets = targets
        self._alertmanagers = alertmanagers
        self._scrape = scrape

    @property
    def url(self) -> str:
        """Where people and tests reach it."""
        return f"http://localhost:{self.port}"

    async def prepare(self) -> None:
        """Write its config."""
        targets = {**self._targets, "prometheus": f"127.0.0.1:{self.port}"}
        config = prometheus_config(targets, alertmanagers=self._alertmanagers, scrape=self._scrape)
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config, sort_keys=False))

    def command(self) -> Sequence[str]:
        """Return Prometheus with the flags that prometheus/prometheus.yml asks for."""
        return [
            self._program,
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            "--storage.tsdb.retention.time=45d",
            "--rules.alert.resend-delay=15s",
            "--rules.alert.for-grace-period=10s",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--web.external-url={self.url}",
            f"--web.user-assets={ROOT / 'docs'}",
            "--log.level=warn",
        ]

    async def ready(self) -> bool:
        """Tell whether it answers queries."""
        return await _answers(self.port, "/-/ready")


class Alertmanager(Server):
    """Alertmanager with the config that alertmanager/render.py writes from ``variables``.

    ``cluster`` are the flags of its cluster; by default, it is alone.
    """

    name = "alertmanager"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        variables: Mapping[str, str],
        cluster: Sequence[str] = ("--cluster.listen-address=",),
    ) -> None:
        self._program = program("alertmanager")
        super().__init__(folder)
        self._variables = variables
        self._cluster = cluster

    @property
    def url(self) -> str:
        """Where people and tests reach it."""
        return f"http://localhost:{self.port}"

    async def prepare(self) -> None:
        """Have its config rendered. Raises ServerError with what render.py finds wrong."""
        templates = ROOT / "alertmanager" / "templates" / "*.tmpl"
        output = ("--output", str(self.folder / "alertmanager.yml"), "--templates", str(templates))
        rendered = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, str(_RENDER), *output],
            env={"PATH": os.environ.get("PATH", ""), **self._variables},
            capture_output=True,
            text=True,
            check=False,
        )
        if rendered.returncode:
            raise ServerError(f"alertmanager: {rendered.stderr.strip()}")

    def command(self) -> Sequence[str]:
        """Return Alertmanager with the flags of its cluster."""
        return [
            self._program,
            f"--config.file={self.folder / 'alertmanager.yml'}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--web.external-url={self.url}",
            "--log.level=warn",
            *self._cluster,
        ]

    async def ready(self) -> bool:
        """Tell whether it takes alerts."""
        return await _answers(self.port, "/-/ready")

    async def members(self) -> int:
        """Return the number of members of its cluster that it knows; 0 while the cluster settles."""
        status = await asyncio.to_thread(self._status)
        return len(status["peers"]) if status["status"] == "ready" else 0

    def _status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v2/status", timeout=10) as reply:
            status: dict[str, Any] = json.load(reply)["cluster"]
        return status


class Exporter(Server):
    """The exporter in a process of its own, so that it can be killed; ``config`` is its file's text."""

    name = "exporter"

    def __init__(self, folder: Path | None = None, *, config: str, flags: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self._config = config
        self._flags = flags

    @property
    def url(self) -> str:
        """Where people and tests reach it."""
        return f"http://localhost:{self.port}"

    async def prepare(self) -> None:
        """Write its config."""
        (self.folder / "connection-exporter.yml").write_text(self._config)

    def command(self) -> Sequence[str]:
        """Return the exporter of this checkout."""
        config = f"--config.file={self.folder / 'connection-exporter.yml'}"
        return [
            sys.executable,
            "-m",
            "connection_exporter",
            config,
            f"--web.listen-address=127.0.0.1:{self.port}",
            *self._flags,
        ]

    async def ready(self) -> bool:
        """Tell whether it watches and serves."""
        return await _answers(self.port, "/-/ready")


def prometheus_config(
    targets: Mapping[str, str], *, alertmanagers: Sequence[str] = (), scrape: str | None = None
) -> dict[str, Any]:
    """Return prometheus/local.yml with other addresses; ``targets`` has one for each of its jobs."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "prometheus" / "local.yml").read_text())
    config["rule_files"] = [str(ROOT / "prometheus" / "rules" / "*.yml")]
    receivers = list(alertmanagers) or [targets["alertmanager"]]
    config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": receivers}]
    for job in config["scrape_configs"]:
        target = targets[job["job_name"]]
        job["static_configs"] = [{"targets": [target], **_addresses(job, target, targets["prometheus"])}]
        if scrape is not None:
            job["scrape_interval"] = job["scrape_timeout"] = scrape
    if scrape is not None:
        config["global"] |= dict.fromkeys(
            ("scrape_interval", "scrape_timeout", "evaluation_interval"), scrape
        )
    return config


def _addresses(job: Mapping[str, Any], target: str, prometheus: str) -> dict[str, dict[str, str]]:
    """Return the target labels with addresses for a browser, for a job that has them."""
    if "labels" not in job["static_configs"][0]:
        return {}
    return {
        "labels": {"browser_url": f"http://{target}", "runbooks_url": f"http://{prometheus}/user/runbooks"}
    }


async def _answers(port: int, path: str) -> bool:
    """Tell whether ``path`` is answered with 200."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return b" 200 " in await reader.readline()
    finally:
        writer.close()
