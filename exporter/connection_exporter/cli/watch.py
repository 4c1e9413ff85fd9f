"""The command ``watch``: reads /events of an exporter, and shows its board or a line per transition."""

import asyncio
import json
import signal
import ssl
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx

from connection_exporter.cli.received import check_overall, check_service, check_transition
from connection_exporter.cli.terminal import INSTALL, console_on, is_terminal
from connection_exporter.cli.watch_errors import IS_IT, mistake_in, problem_of, without_login
from connection_exporter.monitor.details import printable
from connection_exporter.net.tls_context import make_context
from connection_exporter.net.tls_options import TlsOptions

if TYPE_CHECKING:
    from rich.console import Console

ATTEMPTS: Final = 5
PAUSE: Final = 5.0
"""Seconds before each attempt to connect again."""

_TIMEOUT: Final = httpx.Timeout(5.0, read=11.0)
"""The exporter sends something every 5 s, so a link that is silent for 11 s is dead."""
_LIVE: Final = "live"


@dataclass(slots=True)
class Seen:
    """The last known board of the exporter, and the state of the link. ``skew``: seconds that its clock is ahead."""

    url: str
    overall: dict[str, Any] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=100))
    link: str = "connecting"
    heard: float | None = None
    """When the exporter has sent something, after its first board."""
    last_id: str = ""
    skew: float = 0.0

    @property
    def place(self) -> str:
        """The URL without user and password."""
        return without_login(self.url)

    @property
    def live(self) -> bool:
        """Whether the board is up to date."""
        return self.link == _LIVE

    def take(self, event: str, data: dict[str, Any]) -> None:
        """Apply an event. Unknown events are ignored, because the exporter may be newer; the board is always the first.

        Raises LookupError, TypeError or AttributeError if the other end is no exporter.
        """
        if event not in ("", "board") and not self.overall:
            raise LookupError(event)
        match event:
            case "board":
                services = data.pop("services")
                for service in services.values():
                    check_service(service)
                check_overall(data)
                self.services, self.overall = services, data
            case "overall":
                check_overall(data)
                self.overall = data
            case "service":
                check_service(data)
                self.services[data["name"]] = data
            case "transition":
                check_transition(data)
                self.changes.appendleft(data)
                if data["name"] in self.services:
                    news = {"status": data["to"], "reason": data["reason"], "message": data["message"]}
                    self.services[data["name"]] |= news | {"status_since": data["at"]}


class View(Protocol):
    """Shows `Seen` to the user."""

    def on_event(self, event: str, data: dict[str, Any]) -> None:
        """Show an event that `Seen` has applied."""

    def on_link(self) -> None:
        """Show a change of the link."""


async def watch(url: str, *, color: bool = True, pause: float = PAUSE) -> int:
    """Show the board of the exporter at ``url``. Return 0 after ``q`` or SIGTERM, 1 if it cannot be reached.

    If the output is not a terminal, or rich is not installed, print a line for each transition. Raises
    KeyboardInterrupt.
    """
    seen = Seen(url if "://" in url else f"http://{url}")
    if (mistake := mistake_in(seen.url)) is not None:
        return _ended(f"{seen.place}: {mistake}")
    console = console_on(sys.stdout, color=color) if sys.stdin.isatty() else None
    if console is not None:
        return await _full_screen(console, seen, pause)
    if is_terminal(sys.stdout) and sys.stdin.isatty():
        print(f"connection-exporter: to see the whole board here: {INSTALL}", file=sys.stderr)
    following = _following(seen, Lines(seen), pause)
    await asyncio.wait({following})
    return 0 if following.cancelled() else _ended(following.result())


def _following(seen: Seen, view: View, pause: float) -> "asyncio.Task[str]":
    """Begin to follow the exporter, until SIGTERM at the latest."""
    following = asyncio.create_task(_follow(seen, view, pause))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, following.cancel)
    return following


async def _full_screen(console: "Console", seen: Seen, pause: float) -> int:
    """Show the board until ``q``, SIGTERM, or the last attempt to reach the exporter."""
    from connection_exporter.cli.watch_screen import Screen

    with Screen(console, seen) as screen:
        following = _following(seen, screen, pause)
        quitting = asyncio.ensure_future(screen.until_quit())
        try:
            done, _ = await asyncio.wait({following, quitting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (following, quitting):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
    if quitting in done or following.cancelled():
        return 0
    return _ended(following.result())


class Lines:
    """Prints a line for each service, and then for each transition. Changes of the link go to stderr."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._known: dict[str, str] = {}

    def on_event(self, event: str, data: dict[str, Any]) -> None:
        """Print a transition, or the statuses of a new board that differ."""
        if event == "transition":
            self._known[data["name"]] = data["to"]
            self._print(data["at"], data["name"], f"{data['from']} -> {data['to']}", data)
        elif event == "board":
            for name, service in self._seen.services.items():
                if self._known.get(name) != service["status"]:
                    self._known[name] = service["status"]
                    self._print(service["status_since"], name, service["status"], service)

    def on_link(self) -> None:
        """Print the state of the link."""
        print(f"connection-exporter: {self._seen.link}", file=sys.stderr, flush=True)

    def _print(self, at: str, name: str, what: str, of: dict[str, Any]) -> None:
        why = ": ".join(str(of[key]) for key in ("reason", "message") if of[key])
        print(printable("  ".join(part for part in (at, name, what, why) if part)), flush=True)


async def _follow(seen: Seen, view: View, pause: float) -> str:
    """Follow the exporter, and reconnect when the link is lost. Return why the last attempt failed."""
    failed = 0
    # With a transport of its own, httpx ignores HTTP_PROXY: an exporter is usually near.
    transport = httpx.AsyncHTTPTransport(verify=make_context(TlsOptions()))
    async with httpx.AsyncClient(transport=transport, timeout=_TIMEOUT) as client:
        while True:
            try:
                async for event, data in _events(client, seen):
                    _apply(seen, view, event, data)
                    failed = 0 if seen.live else failed
                why = f"{seen.place} ended the connection"
                if seen.heard is None:
                    return f"{why} before it sent a board: {IS_IT}"
            except _Refused as refused:
                return str(refused)
            except (httpx.HTTPError, ssl.SSLError, UnicodeError) as error:  # the last: a name in a redirect
                was_live = seen.heard is not None
                problem = problem_of(error, seen.url, was_live=was_live)
                if problem.is_final and not was_live:  # a proxy says the same while the exporter restarts
                    return problem.text
                why = problem.text
            failed += 1
            if failed > ATTEMPTS:
                return f"{why}; gave up after {ATTEMPTS} attempts"
            seen.link = f"{why}; attempt {failed} of {ATTEMPTS} to connect again in {pause:g} s"
            view.on_link()
            await asyncio.sleep(pause)


def _apply(seen: Seen, view: View, event: str, data: dict[str, Any]) -> None:
    """Have ``seen`` take what the exporter has sent, and show it. Raises _Refused."""
    try:
        seen.take(event, data)
    except (LookupError, TypeError, AttributeError):
        raise _Refused(f"{seen.place} sends no board: {IS_IT}") from None
    if not seen.overall:
        return
    seen.heard = time.time()
    if not seen.live:
        seen.link = _LIVE
        view.on_link()
    if event:
        view.on_event(event, data)


class _Refused(Exception):
    """An answer that another attempt will not change."""


async def _events(client: httpx.AsyncClient, seen: Seen) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield each event, and an event without a name for each comment. Raises httpx.HTTPError, _Refused."""
    url = httpx.URL(f"{seen.url.rstrip('/')}/events")
    # httpx would decode the name for the header Host, which fails for names that IDNA 2008 forbids, as with emoji.
    headers = {"Host": url.netloc.decode(), "Accept": "text/event-stream"}
    if seen.last_id:
        headers["Last-Event-ID"] = seen.last_id
    async with client.stream("GET", url, headers=headers) as answer:
        place = without_login(str(answer.url))
        answer.raise_for_status()
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            raise _Refused(f"{place} sends no events: {IS_IT}")
        with suppress(KeyError, ValueError):
            skew = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
            seen.skew = skew if abs(skew) > 3 else 0.0  # the header has a resolution of one second
        event: dict[str, str] = {}
        async for line in answer.aiter_lines():
            name, _, value = line.partition(":")
            if name:
                event[name] = value.removeprefix(" ")
            elif "data" in event:
                try:
                    data = json.loads(event["data"])
                except ValueError:
                    raise _Refused(f"{place} sends events that are not JSON: {IS_IT}") from None
                yield event.get("event", "message"), data
                seen.last_id = event.get("id", seen.last_id)
                event = {}
            elif line:
                yield "", {}


def _ended(why: str) -> int:
    print(f"connection-exporter: {printable(why)}", file=sys.stderr)
    return 1
