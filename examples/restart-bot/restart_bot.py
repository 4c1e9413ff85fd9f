#!/usr/bin/env python3
"""Restart systemd units when Alertmanager says that a service is disconnected; do nothing else.

It listens on the loopback only, takes a bearer token, and restarts no unit that is not named on its command
line. Each unit has a cooldown and a limit for each hour. docs/restarting-the-bot.md says when to use it.
"""

import argparse
import hmac
import ipaddress
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock
from typing import Any, Final

HOUR: Final = 3600.0
BODY_LIMIT: Final = 1024 * 1024
REQUEST_TIMEOUT: Final = 10.0
"""Seconds that a client may stay silent in the middle of a request."""

COMMAND_TIMEOUT: Final = 10.0
"""Seconds for systemctl, which only hands over a job (--no-block)."""

_SERVICE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_UNIT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@\\-]*\.service")
_DURATION: Final = re.compile(r"(\d{1,6})(s|m|h)")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": HOUR}


class Outcome(StrEnum):
    """What came of an alert for a unit."""

    RESTARTED = "restarted"
    FAILED = "failed"
    COOLDOWN = "cooldown"
    LIMIT = "limit"
    INACTIVE = "inactive"
    UNDER_WAY = "under_way"


class CommandError(Exception):
    """systemctl could not do what it was asked; the text says why."""


class Refused(Exception):
    """A request that is not taken: the status to answer with, and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Systemctl:
    """The two commands that are ever run; ``program`` is the path of systemctl."""

    def __init__(self, program: str) -> None:
        self._program = program

    def state(self, unit: str) -> str:
        """Return systemd's ActiveState of ``unit``, such as ``failed``. Raises `CommandError`."""
        return self._run("show", "--property=ActiveState", "--value", "--", unit).strip()

    def restart(self, unit: str) -> None:
        """Hand over the job of restarting ``unit``. Raises `CommandError`."""
        self._run("restart", "--no-block", "--no-ask-password", "--", unit)

    def _run(self, *arguments: str) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - a unit comes from our own command line, never from a request
                (self._program, *arguments),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMMAND_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CommandError(f"{arguments[0]} took more than {COMMAND_TIMEOUT:g} s") from None
        except OSError as error:
            raise CommandError(f"{self._program} cannot be run: {error.strerror}") from None
        if done.returncode:
            said = done.stderr.strip().partition("\n")[0] or "nothing"
            raise CommandError(f"{arguments[0]} ended with status {done.returncode} and said: {said}")
        return done.stdout


@dataclass
class Restarter:
    """Decides whether a unit is restarted now, and remembers when it was.

    A unit that is `inactive` was stopped by somebody, or has ended of its own will: it stays as it is. One that
    is on its way up or down is systemd's to finish. ``cooldown`` is in seconds, ``limit`` the restarts of a
    unit within an hour; an attempt that failed counts as one.
    """

    systemctl: Systemctl
    cooldown: float
    limit: int
    now: Callable[[], float] = time.monotonic
    _lock: Lock = field(default_factory=Lock)
    _past: dict[str, deque[float]] = field(default_factory=dict)

    def consider(self, unit: str) -> tuple[Outcome, str]:
        """Restart ``unit`` if that is allowed now; return what came of it, and why."""
        with self._lock:  # two alerts for one unit at once are one restart
            past = self._past.setdefault(unit, deque())
            now = self.now()
            while past and now - past[0] >= HOUR:
                past.popleft()
            if past and now - past[-1] < self.cooldown:
                return Outcome.COOLDOWN, f"again in {self.cooldown - (now - past[-1]):.0f}s"
            if len(past) >= self.limit:
                return Outcome.LIMIT, f"again in {HOUR - (now - past[0]):.0f}s; somebody has to look"
            try:
                state = self.systemctl.state(unit)
                if state == "inactive":
                    return Outcome.INACTIVE, "it was stopped, and stays so"
                if state not in ("active", "failed", "reloading"):
                    return Outcome.UNDER_WAY, f"systemd says: {state}"
                past.append(now)
                self.systemctl.restart(unit)
            except CommandError as error:
                return Outcome.FAILED, str(error)
            return Outcome.RESTARTED, f"it was {state}; {len(past)} of {self.limit} within the hour"


@dataclass(frozen=True)
class Settings:
    """What the command line says: which alerts count, and which unit belongs to which service."""

    alerts: frozenset[str]
    units: Mapping[str, str]
    token_file: Path


class Handler(BaseHTTPRequestHandler):
    """One connection of Alertmanager."""

    server: "Server"
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_TIMEOUT
    server_version = "restart-bot"
    sys_version = ""

    def do_GET(self) -> None:
        """Tell that we are there; this alone needs no token."""
        if self.path == "/-/healthy":
            self._answer(HTTPStatus.OK, {"status": "healthy"})
        else:
            self._answer(HTTPStatus.NOT_FOUND, {"error": "POST /alerts, or GET /-/healthy"})

    def do_POST(self) -> None:
        """Take a notification of Alertmanager."""
        self.close_connection = True  # whatever of the body is not read would be taken for the next request
        if self.path != "/alerts":
            self._answer(HTTPStatus.NOT_FOUND, {"error": "POST /alerts"})
            return
        try:
            self._check_token()
            alerts = self._alerts()
        except Refused as refused:
            log("refused", why=refused.why)
            self._answer(refused.status, {"error": refused.why})
        else:
            self._answer(HTTPStatus.OK, {"results": [self._consider(*alert) for alert in alerts]})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Say nothing: what matters is logged where it happens."""

    def _check_token(self) -> None:
        """Compare the token in constant time; its file is read each time, so it can be changed. Raises `Refused`."""
        try:
            token = read_token(self.server.settings.token_file)
        except ValueError as error:
            raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from None
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        if not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise Refused(HTTPStatus.UNAUTHORIZED, "the bearer token is wrong or missing")

    def _alerts(self) -> list[tuple[str, str]]:
        """Return alert and service of each alert that fires and is ours. Raises `Refused`."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        if len(length) > 9 or int(length) > BODY_LIMIT:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {BODY_LIMIT} bytes")
        try:
            return list(dict.fromkeys(self._ours(json.loads(self.rfile.read(int(length))))))
        except TimeoutError:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the body did not come") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise Refused(HTTPStatus.BAD_REQUEST, "this is no notification of Alertmanager") from None

    def _ours(self, notification: dict[str, Any]) -> list[tuple[str, str]]:
        """Pick what is ours from a notification.

        https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
        """
        settings = self.server.settings
        firing = [alert["labels"] for alert in notification["alerts"] if alert["status"] == "firing"]
        return [
            (labels["alertname"], labels["name"])
            for labels in firing
            if labels.get("alertname") in settings.alerts and labels.get("name") in settings.units
        ]

    def _consider(self, alert: str, service: str) -> dict[str, str]:
        unit = self.server.settings.units[service]
        outcome, why = self.server.restarter.consider(unit)
        log(outcome, unit=unit, service=service, alert=alert, why=why)
        return {"service": service, "unit": unit, "outcome": outcome, "why": why}

    def _answer(self, status: HTTPStatus, content: Mapping[str, object]) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingMixIn, TCPServer):
    """Listens on a loopback address; a client that dawdles holds up nobody but itself."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], restarter: Restarter, settings: Settings) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.restarter = restarter
        self.settings = settings
        super().__init__(address, Handler)

    def handle_error(self, *_: object) -> None:
        """Log what went wrong with one connection in one line; most often the client has gone."""
        error = sys.exc_info()[1]
        log("connection_failed", why=f"{type(error).__name__}: {error}")


def read_token(path: Path) -> str:
    """Return what the file holds, without the white space around it. Raises ValueError."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "not ASCII"
        raise ValueError(f"{path} cannot be read: {what}") from None
    if len(token) < 16:
        raise ValueError(
            f"{path} holds less than 16 characters: write a token into it (openssl rand -hex 32)"
        )
    return token


def log(event: str, **values: str) -> None:
    """Write one line of key=value to standard error; a value with anything odd in it is quoted."""
    plain = re.compile(r"[\w.:/@%+,-]+", re.ASCII)
    fields = [
        f"{key}={value if plain.fullmatch(value) else json.dumps(value)}" for key, value in values.items()
    ]
    print(" ".join((f"event={event}", *fields)), file=sys.stderr, flush=True)


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="restart_bot.py",
        description="Restart systemd units when Alertmanager says that a service is disconnected.",
        epilog="Exit status: 0 ended by a signal, 1 cannot listen, 2 wrong arguments.",
    )
    parser.add_argument(
        "--unit",
        dest="units",
        action="append",
        required=True,
        type=_pair,
        metavar="SERVICE=UNIT",
        help="the unit that belongs to a service of the exporter, as bot_process=bot.service; repeatable",
    )
    parser.add_argument(
        "--token-file", required=True, type=Path, metavar="FILE", help="file that holds the bearer token"
    )
    parser.add_argument(
        "--alert",
        dest="alerts",
        action="append",
        metavar="NAME",
        help="alert that asks for a restart; repeatable (default: ConnectionDisconnected, ConnectionDown)",
    )
    parser.add_argument(
        "--listen",
        default="127.0.0.1:9095",
        type=_loopback,
        metavar="ADDRESS",
        help="loopback address and port (default: %(default)s)",
    )
    parser.add_argument(
        "--cooldown",
        default="5m",
        type=_duration,
        metavar="TIME",
        help="time between two restarts of a unit, as 90s, 5m or 1h (default: %(default)s)",
    )
    parser.add_argument(
        "--limit",
        default=3,
        type=_count,
        metavar="N",
        help="restarts of a unit in an hour (default: %(default)s)",
    )
    parser.add_argument(
        "--systemctl", default="systemctl", metavar="PROGRAM", help="what to run (default: %(default)s)"
    )
    return parser


def _pair(text: str) -> tuple[str, str]:
    service, _, unit = text.partition("=")
    if not (_SERVICE.fullmatch(service) and _UNIT.fullmatch(unit)):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form bot_process=bot.service")
    return service, unit


def _loopback(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise argparse.ArgumentTypeError(f"{text!r} is no loopback address such as 127.0.0.1:9095")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} has no port from 0 to 65535")
    return host, int(port)


def _duration(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 5m or 1h")
    return int(found[1]) * _SECONDS[found[2]]


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 100):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 100")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until a signal; return the exit status."""
    parser = arguments()
    options = parser.parse_args(argv)
    units = dict(options.units)
    if len(units) != len(options.units):
        parser.error("--unit: a service is given twice")
    try:
        read_token(options.token_file)
    except ValueError as error:
        parser.error(f"--token-file: {error}")
    settings = Settings(
        frozenset(options.alerts or ["ConnectionDisconnected", "ConnectionDown"]), units, options.token_file
    )
    restarter = Restarter(Systemctl(options.systemctl), options.cooldown, options.limit)
    try:
        server = Server(options.listen, restarter, settings)
    except OSError as error:
        host, port = options.listen
        print(f"restart_bot.py: cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)
        return 1
    with server:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        host, port = server.server_address[:2]
        log("listening", address=f"{host!s}:{port}", units=",".join(f"{s}:{u}" for s, u in units.items()))
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
