"""The command ``watch``: reads /events of an exporter, and shows its board or a line per transition."""

import asyncio
import json
import os
import signal
import socket
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
from connection_exporter.monitor.details import printable
from connection_exporter.net.tls import make_context
from connection_exporter.net.tls_options import TlsOptions

if TYPE_CHECKING:
    from rich.console import Console

ATTEMPTS: Final = 5
PAUSE: Final = 5.0
"""Seconds before each attempt to connect again."""

_TIMEOUT: Final = httpx.Timeout(5.0, read=11.0)
"""The exporter sends something every 5 s, so a link that is silent for 11 s is dead."""
_LIVE: Final = "live"
_FINAL: Final = (401, 403, 404, 405)
"""Statuses that another attempt will not change."""


@dataclass(slots=True)
class Seen:
    """The last known board of the exporter, and the state of the link. ``skew``: seconds that its clock is ahead."""

    url: str
    overall: dict[str, Any] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=100))
    link: str = "connecting"
    heard: float | None = None
    last_id: str = ""
    skew: float = 0.0

    @property
    def place(self) -> str:
        """The URL without user and password."""
        return _without_login(self.url)

    @property
    def live(self) -> bool:
        """Whether the board is up to date."""
        return self.link == _LIVE

    def take(self, event: str, data: dict[str, Any]) -> None:
        """Apply an event. Unknown events are ignored, because the exporter may be newer.

        Raises LookupError, TypeError or AttributeError if the other end is no exporter.
        """
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
    if (mistake := _mistake(seen.url)) is not None:
        return _ended(f"{seen.place}: {mistake}")
    console = console_on(sys.stdout, color=color) if sys.stdin.isatty() else None
    if console is not None:
        return await _full_screen(console, seen, pause)
    if is_terminal(sys.stdout) and sys.stdin.isatty():
        print(f"connection-exporter: to see the whole board here: {INSTALL}", file=sys.stderr)
    return _ended(await _follow(seen, Lines(seen), pause))


async def _full_screen(console: "Console", seen: Seen, pause: float) -> int:
    """Show the board until ``q``, SIGTERM, or the last attempt to reach the exporter."""
    from connection_exporter.cli.watch_screen import Screen

    with Screen(console, seen) as screen:
        following = asyncio.ensure_future(_follow(seen, screen, pause))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, following.cancel)
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
                    seen.heard = time.time()
                    if not seen.live:
                        failed, seen.link = 0, _LIVE
                        view.on_link()
                    if event:
                        try:
                            seen.take(event, data)
                            view.on_event(event, data)
                        except (LookupError, TypeError, AttributeError):
                            raise _Refused(
                                f"{seen.place} sends no board: is it a connection-exporter?"
                            ) from None
                why = f"{seen.place} ended the connection"
            except _Refused as refused:
                return str(refused)
            except (httpx.HTTPError, ssl.SSLError, UnicodeError) as error:  # the last: a name in a redirect
                why = _words(error, seen.place)
            failed += 1
            if failed > ATTEMPTS:
                return f"{why}; gave up after {ATTEMPTS} attempts"
            seen.link = f"{why}; attempt {failed} of {ATTEMPTS} to connect again in {pause:g} s"
            view.on_link()
            await asyncio.sleep(pause)


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
        place = _without_login(str(answer.url))
        if answer.status_code in _FINAL:
            raise _Refused(f"{place} responds with {answer.status_code} {answer.reason_phrase}")
        answer.raise_for_status()
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            raise _Refused(f"{place} sends no events: is it a connection-exporter?")
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
                    raise _Refused(
                        f"{place} sends events that are not JSON: is it a connection-exporter?"
                    ) from None
                yield event.get("event", ""), data
                seen.last_id = event.get("id", seen.last_id)
                event = {}
            elif line:
                yield "", {}


def _mistake(url: str) -> str | None:
    """Return what is wrong with an invalid address."""
    try:
        given = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return (
            "not an address: write http://host:port; in a password % : / ? # @ have to be escaped, as in %2F"
        )
    if given.scheme not in ("http", "https") or not given.raw_host or (given.port or 0) > 65535:
        return "not an address: write http://host:port"
    return None


def _without_login(url: str) -> str:
    try:
        return str(httpx.URL(url).copy_with(userinfo=b""))
    except (httpx.InvalidURL, ValueError):
        scheme, separator, rest = url.partition("://")
        return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _words(error: Exception, place: str) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"{place} responds with {error.response.status_code} {error.response.reason_phrase}"
    if isinstance(error, httpx.TimeoutException):
        return f"{place} does not respond"
    if isinstance(error, httpx.ConnectError):
        return f"cannot reach {place}: {_cause(error)}"
    return f"lost the connection to {place}" + (f" ({error})" if str(error) else "")


def _cause(error: BaseException) -> str:
    """Return the error text of the operating system or of OpenSSL."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    errors = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
    words = [os.strerror(one.errno) for one in errors if isinstance(one, OSError) and one.errno]
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, socket.gaierror):
        return error.strerror or "the name does not resolve"
    return words[0].lower() if words else str(error)


def _ended(why: str) -> int:
    print(f"connection-exporter: {printable(why)}", file=sys.stderr)
    return 1
