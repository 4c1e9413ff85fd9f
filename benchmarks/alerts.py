"""Measures the time from a transition to the webhook: through push and through the rules, as they ship.

The transition is the moment at which the exporter reports the service as disconnected (`status_since`).
"""

import asyncio
import json
import random
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from connection_exporter.demo.ports import free_port
from stack_receiver import Notification, receiving
from stack_servers import Alertmanager, Exporter, Prometheus, program

from benchmarks.figures import Figure, percentile

_PER_ROUND: Final = 10
"""Services that break in a round."""
_LIMITS: Final = {"push": (100.0, "ms", 1e3), "rules": (10.0, "s", 1.0)}
_QUICK: Final = (
    "interval: 1s, timeout: 1s, retry_delay: 100ms, max_retry_delay: 200ms, retries: 2, canary: off"
)
_WITHIN: Final = 60.0


@dataclass
class Arrivals:
    """When the first firing message about each service arrived, in seconds since the epoch."""

    first: dict[str, float] = field(default_factory=dict)

    def take(self, _: str, notification: Notification) -> None:
        """Note a notification, in the thread of the webhook."""
        if notification["status"] == "firing":
            self.first.setdefault(notification["groupLabels"].get("name", ""), datetime.now(UTC).timestamp())


async def measure(folder: Path, *, rounds: int) -> AsyncIterator[Figure]:
    """Yield the figures of one Alertmanager and of two in a cluster."""
    del folder
    version = await asyncio.to_thread(_version)
    for members in (1, 2):
        for path, (limit, unit, factor) in _LIMITS.items():
            latencies = await _latencies(path, members=members, count=_PER_ROUND * rounds)
            where = f"{path}, {'one Alertmanager' if members == 1 else 'a cluster of two'}"
            note = f"Alertmanager {version}, {len(latencies)} services"
            for share, name in ((0.5, "p50"), (0.9, "p90")):
                value = percentile(latencies, share) * factor
                target = limit if share == 0.5 else None
                yield Figure(f"transition to webhook, {where}, {name}", value, unit, target, note=note)


async def _latencies(path: str, *, members: int, count: int) -> list[float]:
    """Break services one after the other, and return how long each message took, in seconds."""
    arrivals = Arrivals()
    async with AsyncExitStack() as stack:
        hook = stack.enter_context(receiving(arrivals.take))
        listeners = {
            f"s{number}": await _listen() for number in range(count + 1)
        }  # one stays, or all are down
        for listener in listeners.values():
            stack.callback(listener.close)
        receivers = await _start_alertmanagers(stack, hook, members)
        exporter = Exporter(config=_config(listeners, receivers if path == "push" else ()))
        await stack.enter_async_context(exporter)
        targets = {"connection-exporter": f"127.0.0.1:{exporter.port}", "alertmanager": receivers[0]}
        await stack.enter_async_context(Prometheus(targets=targets, alertmanagers=receivers))
        await asyncio.sleep(10)  # for a scrape and an evaluation
        wanted = [f"s{number}" for number in range(count)]
        for name in wanted:
            listeners[name].close()
            await asyncio.sleep(random.uniform(0.5, 1.5))
        async with asyncio.timeout(_WITHIN):
            while not arrivals.first.keys() >= set(wanted):  # noqa: ASYNC110 - another thread fills it
                await asyncio.sleep(0.1)
        return [arrivals.first[name] - await _down_since(exporter.port, name) for name in wanted]


async def _start_alertmanagers(stack: AsyncExitStack, hook: int, count: int) -> list[str]:
    """Start a cluster, wait until it has settled, and return the addresses of its members."""
    variables = {"ALERT_WEBHOOK_URL": f"http://127.0.0.1:{hook}/"}
    if count == 1:
        alone = await stack.enter_async_context(Alertmanager(variables=variables))
        return [f"127.0.0.1:{alone.port}"]
    gossip = [free_port() for _ in range(count)]
    members = [
        await stack.enter_async_context(
            Alertmanager(
                variables=variables,
                cluster=[
                    f"--cluster.listen-address=127.0.0.1:{own}",
                    *(f"--cluster.peer=127.0.0.1:{peer}" for peer in gossip if peer != own),
                ],
            )
        )
        for own in gossip
    ]
    async with asyncio.timeout(_WITHIN):
        while [await member.members() for member in members] != [count] * count:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return [f"127.0.0.1:{member.port}" for member in members]


class Listener:
    """An HTTP server that can be closed with all its connections."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the exporter or we have closed it
        finally:
            self._clients.discard(writer)
            writer.close()


async def _listen() -> Listener:
    listener = Listener()
    await listener.start()
    return listener


def _config(listeners: dict[str, Listener], receivers: Sequence[str]) -> str:
    urls = json.dumps([f"http://{receiver}" for receiver in receivers])
    alerting = f"alerting: {{alertmanagers: {urls}}}\n" if receivers else ""
    services = "".join(
        f'  {name}: {{kind: http, url: "http://127.0.0.1:{listener.port}/"}}\n'
        for name, listener in listeners.items()
    )
    return f"{alerting}defaults: {{{_QUICK}}}\nservices:\n{services}"


async def _down_since(port: int, name: str) -> float:
    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/service/{name}", timeout=10) as answer:
            since: str = json.load(answer)["status_since"]
            return since

    return datetime.fromisoformat(await asyncio.to_thread(read)).timestamp()


def _version() -> str:
    told = subprocess.run([program("alertmanager"), "--version"], capture_output=True, text=True, check=True)
    return (told.stdout or told.stderr).split()[2]
