"""A network, and files of /etc, of our own: what only a kernel namespace can break without breaking the machine.

`in_namespace` runs one of the scenarios at the end of this file in a child process with a private network and
private mounts, in which packets can really vanish and a resolver can really be silent. It needs root, or a kernel
that gives unprivileged users namespaces; `why_not` says what is missing.

    python inside.py SCENARIO
"""

import asyncio
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import uvloop
from connection_exporter.core.health import Reason, Status
from connection_exporter.demo.servers import PostgreSQL, Redis, WebSocket, free_port
from connection_exporter.kind import Failure
from connection_exporter.net import Network

from support.watched import watching

_ROOT: Final = Path(__file__).resolve().parents[2]

Outcome = dict[str, Any]
DETECTION = """\
# A day, for the second probe comes after a random share of it, and is not to find what keep-alive has to find.
defaults: {interval: 1d, timeout: 500ms, retry_delay: 1s, canary: off}
services:
"""


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


@functools.cache
def why_not(*programs: str) -> str | None:
    """Return what is missing here to run a scenario; ``None`` if nothing is."""
    for program in ("unshare", "ip", "mount", *programs):
        if shutil.which(program, path=_path()) is None:
            return f"there is no {program} here"
    made = subprocess.run(
        [*_unshare(), "true"], capture_output=True, text=True, env=_environment(), check=False
    )
    return None if made.returncode == 0 else f"no namespace can be made here: {made.stderr.strip()}"


def in_namespace(scenario: str, *, within: float = 50.0) -> Outcome:
    """Run a scenario to its end, and return what it saw."""
    command = [*_unshare(), sys.executable, __file__, scenario]
    ran = subprocess.run(
        command, capture_output=True, text=True, env=_environment(), timeout=within, check=False
    )
    assert ran.returncode == 0, f"{scenario} ended with {ran.returncode}: {ran.stderr[-3000:]}"
    outcome: Outcome = json.loads(ran.stdout.splitlines()[-1])
    return outcome


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": _path(), "PYTHONPATH": str(_ROOT / "tests")}


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _replace(path: str, text: str) -> Path:
    """Put a file of our own in the place of one in /etc, for this namespace alone; return it."""
    file = _file(Path(path).name, text)
    _run("mount", "--bind", str(file), path)
    return file


def _file(name: str, text: str) -> Path:
    file = Path(tempfile.mkdtemp(), name)
    file.write_text(text)
    return file


def _serve(config: Path, port: int) -> subprocess.Popen[bytes]:
    flags = [f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    return subprocess.Popen([sys.executable, "-m", "connection_exporter", "serve", *flags])


async def _get(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n".encode())
        return (await reader.read()).partition(b"\r\n\r\n")[2].decode()
    finally:
        writer.close()


async def packets_vanish_in_mid_session() -> Outcome:
    """Hold Redis and PostgreSQL, drop every packet of theirs, and see when that is noticed; then let them pass."""

    async with Redis() as redis, PostgreSQL() as database, WebSocket() as feed, Redis() as other:
        config = f"""{DETECTION}
  redis: {{kind: redis, url: "{redis.url}"}}
  database: {{kind: postgresql, dsn: "{database.dsn()}?sslmode=disable"}}
  feed: {{kind: websocket, url: "{feed.url}"}}
  other: {{kind: redis, url: "{other.url}", interval: 1s, timeout: 1s}}
"""
        seconds = {}
        async with watching(config, read=False) as watched:
            await watched.healthy()
            ports = ",".join(str(server.port) for server in (redis, database, feed))
            drop = ["INPUT", "-p", "tcp", "-m", "multiport", "--ports", ports, "-j", "DROP"]
            _run("iptables", "-A", *drop)
            began = time.monotonic()
            for name in ("redis", "database", "feed"):
                at = await watched.until(name, Status.CONNECTING, Reason.TIMEOUT, since=began, within=15)
                seconds[name] = at - began
            await asyncio.sleep(5.5)  # an attempt into the hole, too
            into_the_hole = watched.record("redis").trouble
            watched.undisturbed("other")
            _run("iptables", "-D", *drop)
            await watched.healthy(within=20)
            return {
                "seconds": seconds,
                "connect": [str(into_the_hole.reason), into_the_hole.message],
                "lost": [watched.record(name).sessions_lost for name in seconds],
            }


async def the_name_leads_elsewhere() -> Outcome:
    """Hold a session to a name, let the name lead to another server, and see the session move."""
    hosts = _replace("/etc/hosts", "127.0.0.1 localhost cache.test\n")
    _replace("/etc/nsswitch.conf", "hosts: files\n")

    _run("ip", "addr", "add", "127.0.0.2/8", "dev", "lo")
    everywhere = ["--bind", "127.0.0.1", "127.0.0.2"]
    async with Redis(arguments=everywhere) as redis:
        config = f"""\
defaults: {{interval: 500ms, timeout: 500ms, retry_delay: 100ms, canary: 1s}}
services:
  cache: {{kind: redis, url: "redis://cache.test:{redis.port}"}}
"""
        async with watching(config) as watched:
            await watched.healthy()
            before = await redis.call("CLIENT", "LIST")
            hosts.write_text("127.0.0.1 localhost\n127.0.0.2 cache.test\n")
            for _ in range(400):
                local = [
                    line.split()[2].decode()
                    for line in await _clients(redis)
                    if b"name=connection-exporter" in line
                ]
                if local and all(part.startswith("laddr=127.0.0.2") for part in local):
                    break
                await asyncio.sleep(0.01)
            record = watched.record("cache")
            canary = (await watched.detailed("cache"))["canary"]["up"]
            return {
                "before": before.decode(),
                "local": local,
                "path": watched.path("cache"),
                "lost": record.sessions_lost,
                "sessions": record.sessions,
                "canary": canary,
            }


async def _clients(redis: Redis) -> list[bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
    try:
        writer.write(b"CLIENT LIST\r\n")
        length = int((await reader.readline())[1:])
        return (await reader.readexactly(length)).splitlines()
    finally:
        writer.close()


async def twenty_stuck_look_ups() -> Outcome:
    """Watch twenty names that a silent resolver never answers, beside a healthy service; then end it."""
    _replace("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n")
    _replace("/etc/nsswitch.conf", "hosts: dns\n")
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 53))

    async with Redis() as redis:
        stuck = "".join(
            f'  stuck_{number}: {{kind: redis, url: "redis://host-{number}.test"}}\n' for number in range(20)
        )
        config = _file(
            "config.yml",
            f"""\
defaults: {{interval: 1s, timeout: 1s, retry_delay: 200ms, max_retry_delay: 1s, retries: 2, canary: off}}
services:
  redis: {{kind: redis, url: "{redis.url}"}}
{stuck}""",
        )
        port = free_port()
        served = _serve(config, port)
        try:
            slowest, services = 0.0, {}
            deadline = time.monotonic() + 12
            while time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                began = time.monotonic()
                try:
                    services = json.loads(await _get(port, "/health/detailed"))["services"]
                except OSError:
                    continue
                slowest = max(slowest, time.monotonic() - began)
                if all(
                    service["status"] == "disconnected"
                    for name, service in services.items()
                    if name != "redis"
                ):
                    break
            reported = json.loads(await _get(port, "/health/service/redis"))["transitions"]
            began = time.monotonic()
            served.send_signal(signal.SIGTERM)
            status = served.wait(10)
            return {
                "status": status,
                "ended": time.monotonic() - began,
                "slowest": slowest,
                "reasons": {
                    name: [service["status"], service["reason"], service["message"]]
                    for name, service in services.items()
                },
                "redis": [transition["to"] for transition in reversed(reported)],
            }
        finally:
            served.kill()
            served.wait()
            silent.close()


async def a_port_that_clients_get() -> Outcome:
    """Connect to a port where nobody listens, and which is one of two that the kernel has for clients."""
    _run("sh", "-c", "echo 40000 40001 > /proc/sys/net/ipv4/ip_local_port_range")
    network, reported = Network(), []
    for _ in range(10):
        try:
            (await network.dial("127.0.0.1", 40000)).sock.close()
            reported.append("connected")
        except Failure as failure:
            reported.append(failure.reason)
    with socket.socket() as service:
        service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        service.bind(("127.0.0.1", 40000))
    return {"reported": reported}


SCENARIOS: Final[dict[str, Callable[[], Awaitable[Outcome]]]] = {
    scenario.__name__: scenario
    for scenario in (
        packets_vanish_in_mid_session,
        the_name_leads_elsewhere,
        twenty_stuck_look_ups,
        a_port_that_clients_get,
    )
}


async def _main(name: str) -> Outcome:
    _run("ip", "link", "set", "lo", "up")
    return await SCENARIOS[name]()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_main(sys.argv[1]))))
