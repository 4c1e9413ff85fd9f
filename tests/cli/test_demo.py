"""The first minutes: `demo` says what it does and where to look, and slow commands are reported while they run."""

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from connection_exporter.demo.servers import free_port

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_says_where_to_look_and_stops_at_ctrl_c(tmp_path: Path) -> None:
    """Every command on its last screen works."""
    port = free_port()
    command = [sys.executable, "-m", "connection_exporter", "demo", f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as demo:
        try:
            assert demo.stderr is not None
            said = ""
            for line in demo.stderr:
                said += line
                if "Ctrl-C stops everything" in line:
                    break
            assert said.count("is running, pid") == 5
            assert f"http://localhost:{port}/\n" in said
            curls = re.findall(r"curl .*localhost:\S+", said)
            assert len(curls) == 4
            for curl in curls:
                *flags, address = shlex.split(curl)[1:]
                assert f"localhost:{port}/" in address
                url = f"http://{address.replace('localhost', '127.0.0.1')}"
                method = "POST" if flags[-2:] == ["-X", "POST"] else "GET"
                with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as reply:
                    assert reply.status == 200, curl
            demo.send_signal(signal.SIGINT)
            _, rest = demo.communicate(timeout=60)
        finally:
            demo.kill()
    assert demo.returncode == 0
    assert "demo: stopping the servers" in rest
    assert rest.splitlines()[-1] == "demo: stopped"


def test_a_slow_command_is_reported_while_it_runs(tmp_path: Path) -> None:
    """It ends only after the report has been read here. Its output and its exit status are passed on."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    script = [
        str(ROOT / "scripts" / "patiently"),
        "waiting",
        "sh",
        "-c",
        f"read line < {pipe}; echo $line; exit 3",
    ]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as slow:
        try:
            assert slow.stdout is not None
            assert re.fullmatch(r"  still waiting \(\d+ s\)\n", slow.stdout.readline())
            pipe.write_text("done\n")
            out, _ = slow.communicate(timeout=60)
        finally:
            slow.kill()
    assert slow.returncode == 3
    assert "done" in out.splitlines()
