"""Real Alertmanagers on loopback that notify a webhook, and what arrived there."""

import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml
from connection_exporter.demo.server import Server
from stack_receiver import Notification, receiving
from stack_servers import Alertmanager


@dataclass(frozen=True, slots=True)
class Message:
    """One alert of one notification."""

    at: float
    status: str
    name: str
    labels: dict[str, str]
    text: str


@dataclass
class Inbox:
    """Everything that arrived, in order."""

    messages: list[Message] = field(default_factory=list)

    def take(self, _: str, notification: Notification) -> None:
        for alert in notification["alerts"]:
            labels, text = alert["labels"], alert["annotations"]["description"]
            self.messages.append(Message(time.time(), alert["status"], labels["name"], labels, text))

    def of(self, status: str) -> list[str]:
        """Return the services about which such a message came, in order."""
        return [message.name for message in self.messages if message.status == status]


class PlainAlertmanager(Alertmanager):
    """Alertmanager that sends each change to one webhook within a second."""

    def __init__(self, hook: int) -> None:
        super().__init__(variables={})
        self._hook = hook

    async def prepare(self) -> None:
        config = {
            "route": {
                "receiver": "hook",
                "group_by": ["name"],
                "group_wait": "0s",
                "group_interval": "1s",
                "repeat_interval": "1h",
            },
            "receivers": [
                {
                    "name": "hook",
                    "webhook_configs": [{"url": f"http://127.0.0.1:{self._hook}/", "send_resolved": True}],
                }
            ],
        }
        (self.folder / "alertmanager.yml").write_text(yaml.safe_dump(config))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that it holds as firing."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as reply:
            found: list[dict[str, Any]] = json.load(reply)
        return found


@asynccontextmanager
async def alertmanagers(count: int) -> AsyncIterator[tuple[Sequence[PlainAlertmanager], Sequence[Inbox]]]:
    """Run Alertmanagers, each with an inbox of its own."""
    inboxes = [Inbox() for _ in range(count)]
    hooks = [receiving(inbox.take) for inbox in inboxes]
    servers: list[PlainAlertmanager] = []
    try:
        for hook in hooks:
            servers.append(PlainAlertmanager(hook.__enter__()))
            await servers[-1].start()
        yield servers, inboxes
    finally:
        await close(*servers)
        for hook in hooks[: len(servers)]:
            hook.__exit__(None, None, None)


async def close(*servers: Server) -> None:
    """Stop servers for good."""
    for server in servers:
        await server.close()


async def until(condition: Callable[[], object], *, within: float = 60.0) -> None:
    """Wait for a condition; AssertionError if it does not come true in time."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within:g} s"
        await asyncio.sleep(0.02)
