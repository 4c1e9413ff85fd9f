"""The recipe of docs/restarting-the-bot.md, run as a user would, called by HTTP and by a real Alertmanager."""

import asyncio
import http.client
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from stack_servers import Alertmanager, program

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "restart-bot"
SCRIPT = EXAMPLE / "restart_bot.py"
TOKEN = "0123456789abcdef-token"
SYSTEMCTL = """\
#!/bin/sh
# Writes down what it was asked, and answers as the files beside it say.
here=$(dirname "$0")
echo "$*" >> "$here/calls"
case "$1" in
  show) cat "$here/state" ;;
  restart) if [ -f "$here/error" ]; then cat "$here/error" >&2; exit 1; fi ;;
esac
"""


def load_module() -> ModuleType:
    """Import the script from where it is."""
    spec = importlib.util.spec_from_file_location("restart_bot", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["restart_bot"] = module
    spec.loader.exec_module(module)
    return module


restart_bot = load_module()


class Systemctl:
    """A small program of our own in systemctl's place."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / "systemctl"
        self.path.write_text(SYSTEMCTL)
        self.path.chmod(0o755)
        self.is_in("failed")

    def is_in(self, state: str) -> None:
        """Have each unit be in this state."""
        (self.path.parent / "state").write_text(f"{state}\n")

    def fails(self, why: str) -> None:
        """Have each restart fail."""
        (self.path.parent / "error").write_text(f"{why}\n")

    @property
    def restarts(self) -> list[str]:
        """The restarts it was asked for."""
        calls = self.path.parent / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line for line in lines if line.startswith("restart")]


@dataclass
class Running:
    """The script in a process of its own."""

    process: "subprocess.Popen[str]"
    port: int
    log: Path

    def post(
        self, body: bytes, *, token: str | None = TOKEN, path: str = "/alerts", **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Send a notification; return status and answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        authorization = {"Authorization": f"Bearer {token}"} if token is not None else {}
        try:
            connection.request("POST", path, body, {**authorization, **headers})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def outcomes(self, body: bytes) -> list[str]:
        """Send a notification that is taken; return what came of each alert."""
        status, answer = self.post(body)
        assert status == 200, answer
        return [result["outcome"] for result in answer["results"]]


@pytest.fixture
def systemctl(tmp_path: Path) -> Systemctl:
    return Systemctl(tmp_path / "bin")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.fixture
def bot(tmp_path: Path, systemctl: Systemctl, token_file: Path) -> Iterator[Running]:
    """Run the script on a port of its own, for two services, with a limit of two."""
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            (
                *(sys.executable, str(SCRIPT), "--listen=127.0.0.1:0", f"--token-file={token_file}"),
                *("--unit=bot_process=bot.service", "--unit=worker=worker@1.service"),
                *(f"--systemctl={systemctl.path}", "--cooldown=1s", "--limit=2"),
            ),
            stderr=stderr,
            text=True,
        )
    try:
        yield Running(process, listening_port(log), log)
    finally:
        process.kill()
        process.wait(timeout=10)


def listening_port(log: Path) -> int:
    """Wait until the script says where it listens."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if found := re.search(r"event=listening address=127\.0\.0\.1:(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.02)
    pytest.fail(f"it does not listen: {log.read_text()}")


def wait_for_a_restart(systemctl: Systemctl) -> None:
    """Wait until there was one, or for long enough."""
    deadline = time.monotonic() + 30
    while not systemctl.restarts and time.monotonic() < deadline:
        time.sleep(0.05)


def notification(*names: str, alert: str = "ConnectionDisconnected", status: str = "firing") -> bytes:
    """Write what Alertmanager sends to a webhook: version 4 of its format."""
    alerts = [
        {
            "status": status,
            "labels": {"alertname": alert, "name": name, "kind": "process", "severity": "critical"},
            "annotations": {"summary": "A service is disconnected."},
            "startsAt": "2026-01-01T12:00:00.123Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://localhost:9090/graph",
            "fingerprint": f"{number:016x}",
        }
        for number, name in enumerate(names)
    ]
    content = {
        "receiver": "restart-bot",
        "status": status,
        "alerts": alerts,
        "groupLabels": {"name": names[0] if names else ""},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://localhost:9093",
        "version": "4",
        "groupKey": '{}:{name="bot_process"}',
        "truncatedAlerts": 0,
    }
    return json.dumps(content).encode()


@pytest.mark.parametrize("alert", ["ConnectionDisconnected", "ConnectionDown"])
def test_an_alert_for_a_service_restarts_its_unit_and_is_logged(
    alert: str, bot: Running, systemctl: Systemctl
) -> None:
    """By the unit's name from the command line, as a job that is not waited for."""
    assert bot.outcomes(notification("bot_process", alert=alert)) == ["restarted"]
    assert systemctl.restarts == ["restart --no-block --no-ask-password -- bot.service"]
    log = bot.log.read_text()
    assert f"event=restarted unit=bot.service service=bot_process alert={alert}" in log
    assert TOKEN not in log


def test_other_services_other_alerts_and_resolves_restart_nothing(bot: Running, systemctl: Systemctl) -> None:
    """What is not on the command line is no business of ours, and neither is an end."""
    assert bot.outcomes(notification("database", "bot.service", "--version", "../bot")) == []
    assert bot.outcomes(notification("bot_process", alert="ConnectionUnhealthy")) == []
    assert bot.outcomes(notification("bot_process", status="resolved")) == []
    assert systemctl.restarts == []


def test_two_services_in_one_notification_are_two_units(bot: Running, systemctl: Systemctl) -> None:
    """Each has a cooldown of its own; the same twice is once."""
    assert bot.outcomes(notification("bot_process", "worker", "bot_process")) == ["restarted", "restarted"]
    assert [line.split()[-1] for line in systemctl.restarts] == ["bot.service", "worker@1.service"]


def test_a_cooldown_lies_between_two_restarts_and_a_limit_ends_them(
    bot: Running, systemctl: Systemctl
) -> None:
    """One restart, the next only after the cooldown of a second, and no third within the hour."""
    assert bot.outcomes(notification("bot_process")) == ["restarted"]
    assert bot.outcomes(notification("bot_process")) == ["cooldown"]
    time.sleep(1.05)
    assert bot.outcomes(notification("bot_process")) == ["restarted"]
    time.sleep(1.05)
    assert bot.outcomes(notification("bot_process")) == ["limit"]
    assert len(systemctl.restarts) == 2
    assert "event=limit" in bot.log.read_text()


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("failed", "restarted"),
        ("active", "restarted"),
        ("inactive", "inactive"),
        ("activating", "under_way"),
        ("deactivating", "under_way"),
    ],
)
def test_what_somebody_stopped_stays_stopped(
    bot: Running, systemctl: Systemctl, state: str, outcome: str
) -> None:
    """And what systemd is about to start or stop is left to it."""
    systemctl.is_in(state)
    assert bot.outcomes(notification("bot_process")) == [outcome]
    assert bool(systemctl.restarts) == (outcome == "restarted")


def test_a_failed_restart_is_reported_with_its_reason_and_counts(bot: Running, systemctl: Systemctl) -> None:
    """Or a unit that cannot start would be tried with each notification."""
    systemctl.fails("Access denied\nSee the manual")
    assert bot.outcomes(notification("bot_process")) == ["failed"]
    assert bot.outcomes(notification("bot_process")) == ["cooldown"]
    log = bot.log.read_text()
    assert "event=failed" in log
    assert "ended with status 1 and said: Access denied" in log


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", "é" * 20])
def test_without_the_token_nothing_happens(bot: Running, systemctl: Systemctl, token: str | None) -> None:
    """401, whatever was sent instead."""
    encoded = token.encode().decode("latin-1") if token is not None else None
    status, answer = bot.post(notification("bot_process"), token=encoded)
    assert (status, set(answer)) == (401, {"error"})
    assert systemctl.restarts == []


def test_a_new_token_counts_at_once_and_the_old_no_more(bot: Running, token_file: Path) -> None:
    """The file is read at each request; one that cannot be read lets nobody in, and Alertmanager tries again."""
    token_file.write_text("another-token-of-some-length")
    assert bot.post(notification())[0] == 401
    assert bot.post(notification(), token="another-token-of-some-length")[0] == 200
    token_file.unlink()
    assert bot.post(notification(), token="another-token-of-some-length")[0] == 500


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"{", 400),
        (b'{"alerts": 1}', 400),
        (b'{"alerts": [{"status": "firing", "labels": []}]}', 400),
        (b'{"alerts": [{"status": "firing", "labels": {"alertname": [], "name": {}}}]}', 400),
        (b"[" * 100_000, 400),
        (b"\xff\xfe", 400),
        (b" " * (1024 * 1024 + 1), 413),
    ],
)
def test_what_is_no_notification_is_refused(bot: Running, body: bytes, status: int) -> None:
    """And the next good one is taken all the same."""
    try:
        assert bot.post(body)[0] == status
    except (ConnectionResetError, BrokenPipeError):
        assert status == 413  # it had answered, and closed before all of the body was sent
    assert bot.outcomes(notification("bot_process")) == ["restarted"]


def test_a_body_of_unknown_length_is_refused(bot: Running) -> None:
    """Alertmanager says how long its body is."""
    with socket.create_connection(("127.0.0.1", bot.port), timeout=20) as client:
        head = f"POST /alerts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        client.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 411 ")


def test_a_client_that_dawdles_holds_up_nobody(bot: Running) -> None:
    """One with half a request is open while another is answered."""
    with socket.create_connection(("127.0.0.1", bot.port), timeout=20) as client:
        client.sendall(b"POST /alerts HTTP/1.1\r\nHost: x\r\n")
        assert bot.outcomes(notification("bot_process")) == ["restarted"]


def test_it_says_that_it_is_there_without_a_token(bot: Running) -> None:
    """So that the exporter can watch it; every other route is 404."""
    with urllib.request.urlopen(f"http://127.0.0.1:{bot.port}/-/healthy", timeout=20) as response:
        assert json.loads(response.read()) == {"status": "healthy"}
    assert bot.post(b"{}", path="/")[0] == 404


def test_sigterm_ends_it_with_status_0(bot: Running) -> None:
    """As systemd wants it."""
    bot.process.send_signal(signal.SIGTERM)
    assert bot.process.wait(timeout=10) == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--listen=0.0.0.0:9095"], "is no loopback address"),
        (["--listen=:9095"], "is no loopback address"),
        (["--listen=192.0.2.1:9095"], "is no loopback address"),
        (["--listen=127.0.0.1:http"], "has no port"),
        (["--unit=bot_process=bot"], "is not of the form"),
        (["--unit=bot_process=--force.service"], "is not of the form"),
        (["--unit=bot_process=a.service", "--unit=bot_process=b.service"], "given twice"),
        (["--limit=0"], "is no number"),
        (["--cooldown=5"], "is no time"),
        (["--token-file=/nowhere"], "cannot be read"),
        (["--token-file=/dev/null"], "less than 16 characters"),
    ],
)
def test_wrong_arguments_are_reported_and_nothing_starts(
    token_file: Path, flags: list[str], says: str
) -> None:
    """Exit status 2, and a line that says what is wrong."""
    command = [
        sys.executable,
        str(SCRIPT),
        f"--token-file={token_file}",
        "--unit=worker=worker.service",
        *flags,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_the_limit_is_of_an_hour_that_moves(systemctl: Systemctl) -> None:
    """By a clock of the test's own: the third comes when the first is an hour ago, not before."""
    clock = [0.0]
    bot = restart_bot.Restarter(
        restart_bot.Systemctl(str(systemctl.path)), cooldown=300.0, limit=2, now=lambda: clock[0]
    )
    restarted = []
    for clock[0] in (0.0, 299.0, 300.0, 900.0, 3599.0, 3600.0, 3899.0, 3900.0):
        if bot.consider("bot.service")[0] == "restarted":
            restarted.append(clock[0])
    assert restarted == [0.0, 300.0, 3600.0, 3900.0]


def test_a_log_line_cannot_be_forged(capsys: pytest.CaptureFixture[str]) -> None:
    """A line break in a value is written as an escape."""
    restart_bot.log("refused", why="a\nevent=restarted")
    assert capsys.readouterr().err == 'event=refused why="a\\nevent=restarted"\n'


class Routed(Alertmanager):
    """Alertmanager with the parts of the example put into the config of the repository."""

    def __init__(self, folder: Path, *, port: int, token_file: Path) -> None:
        super().__init__(folder, variables={})
        self._webhook, self._token_file = f"http://127.0.0.1:{port}/alerts", token_file

    async def prepare(self) -> None:
        """Merge, with another port and another path of the token."""
        await super().prepare()
        path = self.folder / "alertmanager.yml"
        path.write_text(
            yaml.safe_dump(merged(yaml.safe_load(path.read_text()), self._webhook, self._token_file))
        )


def merged(config: dict[str, Any], webhook: str, token_file: Path) -> dict[str, Any]:
    """Do by hand what the head of the example says."""
    example = yaml.safe_load((EXAMPLE / "alertmanager.yml").read_text())
    config["route"]["routes"][:0] = example["route"]["routes"]
    config["receivers"] += example["receivers"]
    (receiver,) = example["receivers"][0]["webhook_configs"]
    assert receiver["url"] == "http://127.0.0.1:9095/alerts"
    receiver["url"] = webhook
    receiver["http_config"]["authorization"]["credentials_file"] = str(token_file)
    return config


@pytest.mark.parametrize("alert", ["ConnectionDisconnected", "ConnectionDown"])
async def test_a_real_alertmanager_has_the_unit_restarted(
    alert: str, bot: Running, systemctl: Systemctl, token_file: Path, tmp_path: Path
) -> None:
    """Routed by the example's own lines, with the token from its file; another service restarts nothing."""
    folder = tmp_path / "alertmanager"
    folder.mkdir()
    alertmanager = Routed(folder, port=bot.port, token_file=token_file)
    await alertmanager.start()
    try:
        now = datetime.now(UTC).isoformat()
        labels = {"alertname": alert, "severity": "critical", "kind": "process"}
        alerts = [
            {"labels": {**labels, "name": name}, "startsAt": now} for name in ("database", "bot_process")
        ]
        request = urllib.request.Request(
            f"http://127.0.0.1:{alertmanager.port}/api/v2/alerts",
            json.dumps(alerts).encode(),
            {"Content-Type": "application/json"},
        )
        with await asyncio.to_thread(urllib.request.urlopen, request, timeout=20):
            pass
        await asyncio.to_thread(wait_for_a_restart, systemctl)
    finally:
        await alertmanager.close()
    assert [line.split()[-1] for line in systemctl.restarts] == ["bot.service"], bot.log.read_text()


def test_people_receive_the_same_alert(tmp_path: Path, token_file: Path) -> None:
    """The example's route goes on to the page; of other alerts it takes none."""
    config = merged(
        yaml.safe_load((ROOT / "alertmanager" / "alertmanager.yml").read_text()),
        "http://[::1]:1/",
        token_file,
    )
    config["templates"] = []
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config))

    def receivers(*labels: str) -> str:
        command = [program("amtool"), "config", "routes", "test", f"--config.file={file}", *labels]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    for alert in ("ConnectionDisconnected", "ConnectionDown"):
        page = (f"alertname={alert}", "severity=critical")
        assert receivers(*page, "name=bot_process") == "restart-bot,page"
        assert receivers(*page, "name=database") == "page"
    assert receivers("alertname=ConnectionUnhealthy", "severity=warning", "name=bot_process") == "ticket"


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, systemd_analyze: str) -> None:
    """With the program where it would be installed."""
    unit = tmp_path / "restart-bot.service"
    unit.write_text((EXAMPLE / "restart-bot.service").read_text().replace("/usr/bin/python3", sys.executable))
    done = subprocess.run(
        (systemd_analyze, "verify", "--man=no", str(unit)),
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if "restart-bot" in line]) == (0, [])


def test_the_rights_are_for_the_unit_and_the_account_of_the_example() -> None:
    """The polkit rule, the unit and the route name the same things, and no other."""
    rule = (EXAMPLE / "50-restart-bot.rules").read_text()
    unit = (EXAMPLE / "restart-bot.service").read_text()
    allowed = dict(re.findall(r'(unit|verb|user)(?:"\))? === "([^"]+)"', rule))
    assert allowed == {"unit": "bot.service", "verb": "restart", "user": "restart-bot"}
    assert re.findall(r"--unit=(\S+)", unit) == ["bot_process=bot.service"]
    assert "\nUser=restart-bot\n" in unit
