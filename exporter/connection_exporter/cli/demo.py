"""The command ``demo``: starts five real services, monitors them, and breaks them in turn if asked to."""

import argparse
import asyncio
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from connection_exporter.app import serving
from connection_exporter.kinds import load_text
from connection_exporter.system.signals import asked_to_stop
from connection_exporter.web.server import CannotListen, bind

_FIRST_ROUND: Final = 2.5
"""Seconds until each service has been checked once: first attempts are spread over two seconds."""


async def demo(options: argparse.Namespace) -> int:
    """Start everything, serve until SIGINT or SIGTERM, stop everything, and return the exit status."""
    try:
        from connection_exporter.demo.servers import ServerError
    except ModuleNotFoundError as error:
        _say(f"demo: {error.name} is missing: pip install 'connection-exporter[demo]'")
        return 1
    try:
        sockets = bind(options.listen or [":8000"])
    except CannotListen as error:
        _say(f"connection-exporter: {error}")
        return 1
    stop = asked_to_stop()
    work = asyncio.ensure_future(_serve(options, sockets))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not work.done():
        _say("demo: stopping the servers")
        work.cancel()
    try:
        await work
    except asyncio.CancelledError:
        _say("demo: stopped")
        return 0
    except ServerError as error:
        _say(f"demo: {error}")
    return 1


async def _serve(options: argparse.Namespace, sockets: list[socket.socket]) -> None:
    """Start the servers and monitor them until cancelled."""
    from connection_exporter.demo.run import chaos, start_demo

    port = sockets[0].getsockname()[1]
    _say("demo: starting PostgreSQL, Redis, an HTTP API, a WebSocket feed and a bot, all on 127.0.0.1")
    with TemporaryDirectory(prefix="connection-exporter-") as storage:
        async with (
            start_demo(_say) as cast,
            serving(
                load_text(cast.config, source="demo"),
                sockets,
                telemetry_path=options.telemetry_path,
                origins=options.origins,
                storage=Path(storage),
            ),
            asyncio.TaskGroup() as tasks,
        ):
            _say("demo: checking each service")
            await asyncio.sleep(_FIRST_ROUND)
            _say(_welcome(port, redis=cast.redis.pid, chaos=options.chaos))
            if options.chaos:
                tasks.create_task(chaos(cast, _say))
            await asyncio.Event().wait()


def _welcome(port: int, *, redis: int, chaos: bool) -> str:
    """Return where to look, and what to try."""
    program = Path(sys.argv[0])
    shown = program if program.name == "connection-exporter" else "connection-exporter"
    hint = "a fault every 20 s" if chaos else f"kill -9 {redis}     # redis; or start again with --chaos"
    return f"""
  Five services are running, and each is monitored. Every change of a status is a line here.

  status page    http://localhost:{port}/
  everything     curl localhost:{port}/health/detailed
  one service    curl localhost:{port}/health/service/redis
  check now      curl -X POST localhost:{port}/health/force-check
  metrics        curl localhost:{port}/metrics
  in a terminal  {shown} watch http://localhost:{port}
  break one      {hint}

  Ctrl-C stops everything.
"""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
