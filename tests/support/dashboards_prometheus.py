"""Run a real Prometheus with backfilled series on a free loopback port until its block ends."""

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connection_exporter.demo.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a query: series with their samples, and the warnings and infos of Prometheus."""

    series: list[dict[str, Any]]
    remarks: list[str]

    def values(self, label: str = "name") -> dict[str, float]:
        """Return the value of each series by a label: the last one if there are several."""
        return {
            one["metric"].get(label, ""): float((one.get("values") or [one["value"]])[-1][1])
            for one in self.series
        }


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus that answers queries."""

    url: str

    def instant(self, expr: str, at: float) -> Answer:
        """Ask for the value at a moment."""
        return self._ask("query", {"query": expr, "time": str(at)})

    def over(self, expr: str, start: float, end: float, step: int) -> Answer:
        """Ask for the values over a range; like Grafana, from a multiple of the step."""
        first = start // step * step
        last = end // step * step
        return self._ask(
            "query_range",
            {"query": expr, "start": str(first), "end": str(last), "step": str(step)},
        )

    def label_values(self, selector: str, label: str, start: float, end: float) -> list[str]:
        """Return the values of a label, as Grafana asks for those of a variable."""
        form = urllib.parse.urlencode({"match[]": selector, "start": str(start), "end": str(end)})
        with urllib.request.urlopen(f"{self.url}/api/v1/label/{label}/values?{form}", timeout=30) as reply:
            values: list[str] = json.load(reply)["data"]
        return values

    def _ask(self, route: str, form: dict[str, str]) -> Answer:
        body = urllib.parse.urlencode(form).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{route}", body, timeout=30) as reply:
                answer = json.load(reply)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{form['query']}: {error.read().decode()}") from None
        remarks = [*answer.get("warnings", []), *answer.get("infos", [])]
        return Answer(answer["data"]["result"], remarks)


def program(name: str) -> str:
    """Return the path of a program from PATH or .tools/bin."""
    search = os.pathsep.join([os.environ.get("PATH", ""), str(ROOT / ".tools" / "bin")])
    found = shutil.which(name, path=search)
    if found is None:
        raise FileNotFoundError(f"{name} is neither in PATH nor in .tools/bin: run scripts/install-tools")
    return found


@contextmanager
def backfilled(lines: Iterable[str], folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus with these lines of OpenMetrics text, and stop it at the end."""
    source = folder / "series.openmetrics"
    with source.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    data = folder / "data"
    fill = [program("promtool"), "tsdb", "create-blocks-from", "openmetrics"]
    fill += ["--max-block-duration=2000h", "--quiet", str(source), str(data)]
    subprocess.run(fill, check=True, timeout=120, stdout=subprocess.DEVNULL)
    config = folder / "prometheus.yml"
    config.write_text("global: {scrape_interval: 15s}\n", "utf-8")
    port = free_port()
    command = [
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=45d",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process, folder / "log")
            yield Prometheus(url)
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"Prometheus ended: {log.read_text()}")
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=1) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"Prometheus did not become ready: {log.read_text()}")
