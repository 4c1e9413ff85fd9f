"""Owns ``connection-exporter watch``: follows /events of an exporter, and shows the board or a line per transition."""

import asyncio
import json
import os
import signal
import ssl
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

import httpx

from exporter.commands.watch_screen import Screen
from exporter.record import printable

ATTEMPTS: Final = 5
PAUSE: Final = 5.0
"""Seconds before each attempt to connect again."""

_TIMEOUT: Final = httpx.Timeout(5.0, read=11.0)
"""The exporter breaks every silence after 5 s: one of 11 s is a dead link."""
_LIVE: Final = "live"
_FINAL: Final = (401, 403, 404, 405)
"""Answers that another attempt will not change."""


@dataclass(slots=True)
class Seen:
    """What is known of the exporter's board, and of the link to it. ``skew``: how far its clock is ahead."""

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
        """The address as it may be shown: the URL without user and password."""
        return _without_login(self.url)

    @property
    def live(self) -> bool:
        """Whether what is seen is true now."""
        return self.link == _LIVE

    def take(self, event: str, data: dict[str, Any]) -> None:
        """Take in an event; unknown ones are left alone, for the exporter may be newer."""
        match event:
            case "board":
                self.services = data.pop("services")
                self.overall = data
            case "overall":
                self.overall = data
            case "service":
                self.services[data["name"]] = data
            case "transition":
                self.changes.appendleft(data)
                if data["name"] in self.services:
                    news = {"status": data["to"], "reason": data["reason"], "message": data["message"]}
                    self.services[data["name"]] |= news | {"status_since": data["at"]}


class View(Protocol):
    """Who shows what is seen: told after each event, linked after each change of the link."""

    def told(self, event: str, data: dict[str, Any]) -> None:
        """Show what has come."""

    def linked(self) -> None:
        """Show how the link is."""


async def watch(url: str, *, pause: float = PAUSE) -> int:
    """Show the board of the exporter at ``url`` until told to stop; return 0, or 1 after giving up on it.

    On a terminal it is the board, and ``q`` ends it; elsewhere a line for each transition. Raises KeyboardInterrupt.
    """
    full = sys.stdout.isatty() and sys.stdin.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    seen = Seen(url if "://" in url else f"http://{url}")
    if (mistake := _mistake(seen.url)) is not None:
        return _ended(seen, mistake)
    if not full:
        return _ended(seen, await _follow(seen, Lines(seen), pause))
    with Screen(seen) as screen:
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
    return _ended(seen, following.result())


class Lines:
    """Prints a line for each service at first, and then for each transition. The link's troubles go to stderr."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._known: dict[str, str] = {}

    def told(self, event: str, data: dict[str, Any]) -> None:
        """Print what is new."""
        if event == "transition":
            self._known[data["name"]] = data["to"]
            self._print(data["at"], data["name"], f"{data['from']} -> {data['to']}", data)
        elif event == "board":
            for name, service in self._seen.services.items():
                if self._known.get(name) != service["status"]:
                    self._known[name] = service["status"]
                    self._print(service["status_since"], name, service["status"], service)

    def linked(self) -> None:
        """Say how the link is."""
        print(f"connection-exporter: {self._seen.link}", file=sys.stderr, flush=True)

    def _print(self, at: str, name: str, what: str, of: dict[str, Any]) -> None:
        why = ": ".join(str(of[key]) for key in ("reason", "message") if of[key])
        print(printable("  ".join(part for part in (at, name, what, why) if part)), flush=True)


async def _follow(seen: Seen, view: View, pause: float) -> str:
    """Follow the exporter, connecting again and again; return why it was given up in the end."""
    failed = 0
    # A transport of our own, since HTTP_PROXY is not meant for the exporter next door.
    transport = httpx.AsyncHTTPTransport(verify=ssl.create_default_context())
    async with httpx.AsyncClient(transport=transport, timeout=_TIMEOUT) as client:
        while True:
            try:
                async for event, data in _events(client, seen):
                    seen.heard = time.time()
                    if not seen.live:
                        failed, seen.link = 0, _LIVE
                        view.linked()
                    if event:
                        try:
                            seen.take(event, data)
                            view.told(event, data)
                        except (LookupError, TypeError, AttributeError):
                            raise _Refused(
                                f"{seen.place} sends no board: is a connection-exporter there?"
                            ) from None
                why = "the exporter has ended the connection"
            except _Refused as refused:
                return str(refused)
            except (httpx.HTTPError, ssl.SSLError) as error:
                why = _words(error)
            failed += 1
            if failed > ATTEMPTS:
                return f"{why}; gave up after {ATTEMPTS} attempts"
            seen.link = f"{why}; attempt {failed} of {ATTEMPTS} to connect again in {pause:g} s"
            view.linked()
            await asyncio.sleep(pause)


class _Refused(Exception):
    """An answer after which it is of no use to ask again."""


async def _events(client: httpx.AsyncClient, seen: Seen) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield each event; for a comment one of no name. Raises httpx.HTTPError, _Refused."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": seen.last_id} if seen.last_id else {})
    async with client.stream("GET", f"{seen.url.rstrip('/')}/events", headers=headers) as answer:
        place = _without_login(str(answer.url))
        if answer.status_code in _FINAL:
            raise _Refused(f"{place} answers {answer.status_code} {answer.reason_phrase}")
        answer.raise_for_status()
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            raise _Refused(f"{place} is no stream of events: is a connection-exporter there?")
        with suppress(KeyError, ValueError):
            skew = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
            seen.skew = skew if abs(skew) > 3 else 0.0  # the header has whole seconds only
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
                        f"{place}: what it sends is not JSON: is a connection-exporter there?"
                    ) from None
                yield event.get("event", ""), data
                seen.last_id = event.get("id", seen.last_id)
                event = {}
            elif line:
                yield "", {}


def _mistake(url: str) -> str | None:
    """Say what is wrong with an address that can never be followed."""
    try:
        given = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return (
            "not an address: write http://host:port; in a password % : / ? # @ have to be escaped, as in %2F"
        )
    if given.scheme not in ("http", "https") or not given.host or (given.port or 0) > 65535:
        return "not an address: write http://host:port"
    return None


def _without_login(url: str) -> str:
    try:
        return str(httpx.URL(url).copy_with(userinfo=b""))
    except (httpx.InvalidURL, ValueError):
        scheme, separator, rest = url.partition("://")
        return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _words(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"the exporter answers {error.response.status_code} {error.response.reason_phrase}"
    if isinstance(error, httpx.TimeoutException):
        return "no word from the exporter"
    return f"cut off ({error})" if str(error) else "cut off"


def _ended(seen: Seen, why: str) -> int:
    print(f"connection-exporter: {printable(seen.place)}: {printable(why)}", file=sys.stderr)
    return 1
