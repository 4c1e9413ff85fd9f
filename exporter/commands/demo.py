"""Owns ``connection-exporter demo``: five real services of our own under watch, and the chaos among them."""

import argparse
import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from exporter import logs
from exporter.app import serving
from exporter.config import load_text
from exporter.publish.server import CannotListen, bind
from exporter.stopping import asked_to_stop


async def demo(options: argparse.Namespace) -> int:
    """Start everything, serve until SIGINT or SIGTERM, stop everything, and return the exit status."""
    try:
        from exporter.demo.run import chaos, start_demo
        from exporter.demo.servers import ServerError
    except ModuleNotFoundError as error:
        _say(f"demo: {error.name} is missing: pip install 'connection-exporter[demo]'")
        return 1
    logs.configure(level=options.log_level, format=options.log_format)
    try:
        sockets = bind(options.listen or [":8000"])
    except CannotListen as error:
        _say(f"connection-exporter: {error}")
        return 1
    port = sockets[0].getsockname()[1]
    stop = asked_to_stop()
    _say("demo: starting PostgreSQL, Redis, an HTTP API, a WebSocket feed and a bot, all on 127.0.0.1")
    try:
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
            ):
                _say(f"demo: open http://localhost:{port}/ or try: curl localhost:{port}/health/detailed")
                plot = asyncio.create_task(chaos(cast, _say)) if options.chaos else None
                await stop.wait()
                _say("demo: stopping")
                if plot is not None:
                    plot.cancel()
                    with suppress(asyncio.CancelledError):
                        await plot
    except ServerError as error:
        _say(f"demo: {error}")
        return 1
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
