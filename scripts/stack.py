#!/usr/bin/env python3
"""Runs the demo under Prometheus and Alertmanager, all on loopback, and says each notification in plain words.

`make stack` starts it; Ctrl-C or SIGTERM ends everything. Exit status: 0 stopped by a signal, 1 something could not
start or ended by itself, 2 wrong usage.
"""

import argparse
import asyncio
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress

from connection_exporter.app import serving
from connection_exporter.demo.ports import free_port, is_free
from connection_exporter.demo.run import chaos, start_demo
from connection_exporter.demo.server import Server, ServerError
from connection_exporter.kinds import load_text
from connection_exporter.runtime.logs import log_to_stderr
from connection_exporter.web.server import CannotListen, bind
from stack_receiver import Notification, in_words, receiving
from stack_servers import Alertmanager, Prometheus


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stack until SIGINT or SIGTERM, and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        with log_to_stderr(level="error"):  # the notifications report what happens
            return asyncio.run(_until_told(options))
    except KeyboardInterrupt:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make stack",
        description="Run the demo under Prometheus and Alertmanager, all on loopback, and say each notification.",
        epilog='With make, the options go into ARGS: make stack ARGS="--chaos --prometheus-port=0"',
    )
    parser.add_argument("--chaos", action="store_true", help="break the services in turn")
    parser.add_argument(
        "--pace",
        type=float,
        default=45.0,
        metavar="SECONDS",
        help="how long a fault of the chaos lasts, and the peace after it (default: %(default)g)",
    )
    for name, port in (("exporter", 8000), ("prometheus", 9090), ("alertmanager", 9093)):
        parser.add_argument(
            f"--{name}-port",
            type=_port,
            default=port,
            metavar="PORT",
            help="default: %(default)s; 0 is any that is free",
        )
    parser.add_argument(
        "--grafana",
        default="http://localhost:3000",
        metavar="ORIGIN",
        help="the origin of a Grafana of yours, so that its Force check works (default: %(default)s)",
    )
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: write a number up to 65535")
    return int(text) or free_port()


async def _until_told(options: argparse.Namespace) -> int:
    """Run until a signal comes. The signal cancels, wherever we are, and each block stops what it began."""
    work = asyncio.ensure_future(_run(options))

    def stop() -> None:
        _say("stack: stopping everything")
        work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        return await work
    except asyncio.CancelledError:
        _say("stack: everything has ended")
        return 0
    except (CannotListen, ServerError) as error:
        _say(f"stack: {error}")
        return 1


async def _run(options: argparse.Namespace) -> int:
    ports = {name: getattr(options, f"{name}_port") for name in ("exporter", "prometheus", "alertmanager")}
    _check_ports(ports)
    async with AsyncExitStack() as stack:
        port = stack.enter_context(receiving(_Teller().take))
        hook = f"http://127.0.0.1:{port}"
        variables = {"ALERT_WEBHOOK_URL": f"{hook}/", "ALERT_WATCHDOG_URL": f"{hook}/watchdog"}
        targets = {name: f"127.0.0.1:{number}" for name, number in ports.items() if name != "exporter"}
        alertmanager = Alertmanager(variables=variables)
        prometheus = Prometheus(targets={**targets, "connection-exporter": f"127.0.0.1:{ports['exporter']}"})
        _say(
            "stack: starting PostgreSQL, Redis, an HTTP API, a WebSocket feed, a bot, Alertmanager and Prometheus"
        )
        cast = await stack.enter_async_context(start_demo(_say))
        sockets = bind([f"127.0.0.1:{ports['exporter']}"])
        config = load_text(with_push(cast.config, ports), source="demo")
        await stack.enter_async_context(serving(config, sockets, origins=[options.grafana]))
        for server, name in ((alertmanager, "alertmanager"), (prometheus, "prometheus")):
            server.port = ports[name]
            _say(f"stack: starting {name}")
            await stack.enter_async_context(server)
            _say(f"stack: {name} is running, pid {server.pid}")
        _say(_welcome(ports, chaos=options.chaos))
        if options.chaos:
            plot = asyncio.create_task(chaos(cast, _say, pace=options.pace))
            stack.push_async_callback(_cancel, plot)
        ended = await _first_to_end(prometheus, alertmanager)
        raise ServerError(f"{ended.name} has ended by itself; the end of its log: {_tail(ended)}")


def with_push(config: str, ports: Mapping[str, int]) -> str:
    """Return the config with `alerting`; `external_url` has the `instance` of the scrape target."""
    return f"""{config}
alerting:
  alertmanagers: [http://127.0.0.1:{ports["alertmanager"]}]
  external_url: http://127.0.0.1:{ports["exporter"]}
"""


def _check_ports(ports: dict[str, int]) -> None:
    """Say every port that is taken at once. Raises ServerError."""
    taken = [f"--{name}-port ({port} is taken)" for name, port in ports.items() if not is_free(port)]
    if taken:
        raise ServerError(f"choose another port, or 0 for any: {', '.join(taken)}")
    if len(set(ports.values())) < len(ports):
        raise ServerError("two of the three ports are the same: choose different ones")


class _Teller:
    """Says notifications, and of the Watchdog, which comes each minute, only that it came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alive = False

    def take(self, path: str, notification: Notification) -> None:
        with self._lock:
            now = time.strftime("%H:%M:%S", time.gmtime())
            if path != "/watchdog":
                _say(f"\n{now} notification\n{in_words(notification)}\n")
            elif not self._alive:
                self._alive = True
                _say(f"stack: {now} the Watchdog has arrived: alerting works from end to end")


def _welcome(ports: dict[str, int], *, chaos: bool) -> str:
    hint = "a fault at a time" if chaos else "kill -9 a pid from above; or: make stack ARGS=--chaos"
    return "\n".join(
        (
            "",
            "  Everything is running. Every notification is shown here.",
            "",
            f"  exporter      http://localhost:{ports['exporter']}/",
            f"  Prometheus    http://localhost:{ports['prometheus']}/alerts",
            f"  Alertmanager  http://localhost:{ports['alertmanager']}/",
            "",
            f"  everything    curl localhost:{ports['exporter']}/health/detailed",
            f"  the alerts    curl localhost:{ports['alertmanager']}/api/v2/alerts",
            f"  break one     {hint}",
            "",
            "  Ctrl-C stops everything.",
            "",
        )
    )


async def _first_to_end(*servers: Server) -> Server:
    while True:
        for server in servers:
            if not server.running:
                return server
        await asyncio.sleep(0.5)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _tail(server: Server) -> str:
    return " | ".join(server.log.read_text(errors="replace").strip().splitlines()[-3:])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
