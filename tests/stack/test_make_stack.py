"""`make stack` prints what it starts, and stops everything that it started."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from connection_exporter.demo.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "stack.py"
FREE = ("--exporter-port=0", "--prometheus-port=0", "--alertmanager-port=0")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def allowed_origin(exporter: str, origin: str) -> str | None:
    """Send the browser's preflight of Force check, and return the allowed origin."""
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = urllib.request.Request(f"{exporter}/health/force-check", method="OPTIONS", headers=headers)
    with urllib.request.urlopen(preflight, timeout=10) as reply:
        allowed: str | None = reply.headers["Access-Control-Allow-Origin"]
        return allowed


def test_the_stack_prints_its_addresses_and_stops_at_sigterm(tmp_path: Path) -> None:
    """The Watchdog arrives, Grafana's origin is allowed; then exit status 0, and no process is left."""
    said = tmp_path / "said"
    with said.open("w") as output:
        stack = subprocess.Popen([sys.executable, str(SCRIPT), *FREE], stderr=output, env=ENVIRONMENT)
    try:
        deadline = time.monotonic() + 50
        while "the Watchdog has arrived" not in said.read_text():
            assert stack.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
        exporter = re.findall(r"exporter +(http://localhost:\d+)/", said.read_text())[0]
        assert allowed_origin(exporter, "http://localhost:3000") == "http://localhost:3000"
        family = psutil.Process(stack.pid).children(recursive=True)
        stack.send_signal(signal.SIGTERM)
        assert stack.wait(timeout=20) == 0
    finally:
        stack.kill()
        stack.wait()
    assert len(family) >= 7
    assert not [process for process in family if process.is_running()]
    text = said.read_text()
    assert len(re.findall(r"http://localhost:\d+/", text)) == 3
    assert text.endswith("stack: everything has ended\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--exporter-port=http",), "'http' is not a port: write a number up to 65535"),
        (
            ("--prometheus-port={taken}",),
            "choose another port, or 0 for any: --prometheus-port ({taken} is taken)",
        ),
        (("--prometheus-port={free}", "--exporter-port={free}"), "two of the three ports are the same"),
    ],
)
def test_a_mistake_is_one_clear_line_before_anything_starts(arguments: tuple[str, ...], message: str) -> None:
    """Ports that are not numbers, in use, or equal."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = {"taken": taken.getsockname()[1], "free": free_port()}
        given = [*FREE, *(argument.format(**ports) for argument in arguments)]
        command = [sys.executable, str(SCRIPT), *given]
        ended = subprocess.run(
            command, env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=False
        )
    assert ended.returncode in (1, 2)
    assert message.format(**ports) in ended.stderr
    assert "Traceback" not in ended.stderr
