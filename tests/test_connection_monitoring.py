"""A tour of a running exporter: every endpoint, the statuses, a live demonstration, error handling.

By itself, ``python tests/test_connection_monitoring.py [URL]`` walks through the exporter at URL
(http://localhost:8000 if not given; `make run` starts one), tells what it sees in plain lines, and exits
0, or 1 if anything is not as it should be. Under pytest it walks through the demo, and breaks it as well.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

STATUSES = ("unknown", "healthy", "connecting", "unhealthy", "disconnected")
OVERALL = ("unknown", "healthy", "degraded", "partial")
FIELDS = {
    *("name", "kind", "status", "critical", "reason", "message", "retry_count", "retries", "next_attempt"),
    *("last_check", "last_success", "status_since", "latency_seconds", "session", "canary", "details"),
    *("group", "description", "links", "depends_on", "causes"),
}


class Tour:
    """Walks through an exporter, telling what it sees; remembers what was not as it should be."""

    def __init__(self, url: str, say: Callable[[str], None] = print) -> None:
        self.http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self.say = say
        self.wrong: list[str] = []

    def run(self) -> int:
        """Take the whole tour; return the exit status."""
        with self.http:
            try:
                for part in (self.endpoints, self.statuses, self.metrics, self.demonstration, self.errors):
                    self.say(f"\n{(part.__doc__ or '').strip()}")
                    part()
            except httpx.TransportError as error:
                self.say(f"  no answer from {self.http.base_url}: {error}; `make run` starts an exporter")
                return 1
            except (KeyError, TypeError, ValueError) as error:
                reported = f"{type(error).__name__}: {error}"
                self.say(f"  {self.http.base_url} does not answer as an exporter does ({reported})")
                return 1
        self.say(
            f"\n{len(self.wrong)} thing(s) not as they should be" if self.wrong else "\nall as it should be"
        )
        return 1 if self.wrong else 0

    def check(self, right: bool, what: str) -> None:
        """Tell whether ``what`` holds."""
        self.say(f"  {'ok ' if right else 'NOT'} {what}")
        if not right:
            self.wrong.append(what)

    def endpoints(self) -> None:
        """Every endpoint answers, from memory"""
        for path in ("/", "/health/detailed", "/metrics", "/-/healthy", "/-/ready"):
            answer = self.http.get(path)
            took = answer.elapsed.total_seconds() * 1000
            self.check(answer.status_code == 200, f"GET {path}: {answer.status_code} in {took:.1f} ms")
        health = self.http.get("/health")
        body = health.json()
        expected = 200 if body["status"] in ("healthy", "degraded") else 503
        self.check(health.status_code == expected, f"GET /health: {health.status_code}, {body['status']}")
        self.check(
            set(body) == {"status", "monitoring_active", "last_update"}, "it has exactly its three fields"
        )

    def statuses(self) -> None:
        """Each service, as /health/detailed shows it"""
        board = self.http.get("/health/detailed").json()
        self.check(board["status"] in OVERALL, f"overall: {board['status']}")
        self.check(board["summary"]["total"] == len(board["services"]), f"{len(board['services'])} services")
        for name, service in board["services"].items():
            why = f" ({service['reason']}: {service['message']})" if service["reason"] else ""
            self.check(
                set(service) == FIELDS and service["status"] in STATUSES,
                f"{name}, {service['kind']}: {service['status']}{why}",
            )
            one = self.http.get(f"/health/service/{name}").json()
            self.check(
                one["transitions"] is not None and set(one) == FIELDS | {"transitions"},
                f"{name}: {len(one['transitions'])} transition(s), each with its time and reason",
            )

    def metrics(self) -> None:
        """The metrics, in both formats"""
        text = self.http.get("/metrics", headers={"Accept": "text/plain"})
        families = {family.name: family for family in parse_text(text.text)}
        self.check("connection_up" in families, f"text: {len(families)} families")
        openmetrics = self.http.get(
            "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )
        parsed = list(parse_openmetrics(openmetrics.text))  # type: ignore[no-untyped-call]
        self.check(
            openmetrics.text.endswith("# EOF\n"), f"OpenMetrics: {len(parsed)} families, strictly parsed"
        )
        board = self.http.get("/health/detailed").json()["services"]
        named = {sample.labels["name"] for sample in families["connection_status"].samples}
        self.check(named == set(board), "every service has its series")

    def demonstration(self) -> None:
        """Live: a forced check, and what it changes"""
        before = self._checks()
        answer = self.http.post("/health/force-check")
        if answer.status_code == 429:
            time.sleep(float(answer.headers["Retry-After"]))
            answer = self.http.post("/health/force-check")
        self.check(answer.status_code == 200, f"POST /health/force-check: {answer.status_code}")
        after = self._checks()
        for name in before:
            risen = after.get(name, 0) - before[name]
            self.check(risen >= 1, f"{name}: checks_total rose by {risen:g}")
        for _ in range(3):
            services = self.http.get("/health/detailed").json()["services"]
            self.say("  " + ", ".join(f"{name} {service['status']}" for name, service in services.items()))
            time.sleep(0.5)

    def errors(self) -> None:
        """What is wrong is said clearly"""
        missing = self.http.get("/health/service/no-such-service")
        self._problem(missing, 404)
        known = next(iter(self.http.get("/health/detailed").json()["services"]))
        self.check(known in missing.json()["detail"], "it names the services that there are")
        self._problem(self.http.get("/no-such-page"), 404)
        self._problem(self.http.get("/health/force-check"), 405)
        foreign = {"Origin": "https://elsewhere.example"}
        self._problem(self.http.post("/health/force-check", headers=foreign), 403)
        self._problem(self.http.post("/health/force-check?service=no-such-service"), 404)

    def _problem(self, answer: httpx.Response, status: int) -> None:
        is_problem = answer.headers["content-type"] == "application/problem+json"
        detail = answer.json()["detail"] if is_problem else answer.text[:60]
        request = f"{answer.request.method} {answer.request.url.raw_path.decode()}"
        self.check(
            answer.status_code == status and is_problem, f"{request}: {answer.status_code}, {detail!r}"
        )

    def _checks(self) -> dict[str, float]:
        text = self.http.get("/metrics").text
        found = re.findall(r'^connection_checks_total\{.*?name="([^"]+)".*?\} (\S+)$', text, re.MULTILINE)
        return {name: float(value) for name, value in found}


@contextmanager
def demo() -> Iterator[tuple[str, dict[str, int]]]:
    """Run the demo on a free port; give its URL, and the process ids of its servers by name."""
    process = subprocess.Popen(
        (sys.executable, "-u", "-m", "connection_exporter", "demo", "--web.listen-address=127.0.0.1:0"),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    pids: dict[str, int] = {}
    try:
        for line in process.stderr:
            if found := re.match(r"demo: (\w+) is running, pid (\d+)", line):
                pids[found[1]] = int(found[2])
            if found := re.search(r"status page +(http://localhost:\d+)/", line):
                yield found[1].replace("localhost", "127.0.0.1"), pids
                break
        else:
            raise AssertionError("the demo ended before it began")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert not [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()]


def wait_until(read: Callable[[], Any], *, seconds: float = 20) -> Any:
    """Poll until ``read`` gives something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := read()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


def test_the_tour_of_a_running_demo_finds_all_as_it_should_be() -> None:
    """Five real services become healthy, every endpoint is right, and the end leaves no process behind."""
    lines: list[str] = []
    with demo() as (url, _):
        wait_until(lambda: httpx.get(f"{url}/health").json()["status"] == "healthy")
        tour = Tour(url, lines.append)
        assert tour.run() == 0, "\n".join(lines)
    assert not tour.wrong


def test_a_killed_redis_is_noticed_reported_and_counted_while_everything_else_stays_healthy() -> None:
    """The transition is in the JSON and the loss in the metrics, before any probe was due."""
    with demo() as (url, pids):
        wait_until(lambda: httpx.get(f"{url}/health").json()["status"] == "healthy")
        os.kill(pids["redis"], signal.SIGKILL)
        redis = wait_until(
            lambda: (one := httpx.get(f"{url}/health/service/redis").json())["status"] != "healthy" and one
        )
        assert redis["transitions"][0]["from"] == "healthy"
        assert redis["reason"] in {"idle_closed", "eof", "reset", "refused"}
        lost = re.search(
            r'connection_sessions_lost_total\{kind="redis",name="redis"\} (\S+)',
            httpx.get(f"{url}/metrics").text,
        )
        assert lost is not None
        assert float(lost[1]) == 1
        others = httpx.get(f"{url}/health/detailed").json()["services"]
        assert {s["status"] for n, s in others.items() if n != "redis"} == {"healthy"}
        wait_until(lambda: httpx.get(f"{url}/health").status_code == 503)
        assert httpx.get(f"{url}/health").json()["status"] == "partial"


def test_the_tour_of_nothing_says_so_and_exits_1(capsys: Any) -> None:
    """Where no exporter answers, the tour says how to start one."""
    assert Tour("http://127.0.0.1:9").run() == 1
    assert "make run" in capsys.readouterr().out


def test_the_tour_of_something_else_says_so_and_exits_1(capsys: Any) -> None:
    """An address that is another program's ends in a sentence, not in a traceback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:  # answers 501
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{other.server_port}"
        assert Tour(url).run() == 1
        other.shutdown()
    assert f"{url} does not answer as an exporter does" in capsys.readouterr().out


def test_the_tour_finds_what_is_wrong() -> None:
    """A tour that cannot fail would be worth nothing."""
    tour = Tour("http://127.0.0.1:9", say=lambda _: None)
    tour.check(False, "this")
    assert tour.wrong == ["this"]


if __name__ == "__main__":
    sys.exit(Tour(sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000").run())
