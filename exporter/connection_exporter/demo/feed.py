"""The WebSocket server of the demo: it sends an invented price to every client each second."""

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import signal

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed


async def stream(connection: ServerConnection, *, every: float) -> None:
    """Send a price every ``every`` seconds until the client has gone; the library answers pings."""
    with contextlib.suppress(ConnectionClosed):
        for number in itertools.count():
            price = 100.0 + 5.0 * math.sin(number / 10.0)
            await connection.send(json.dumps({"type": "price", "symbol": "DEMO", "price": round(price, 2)}))
            await asyncio.sleep(every)


async def run(host: str, port: int, *, every: float) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with serve(lambda connection: stream(connection, every=every), host, port, close_timeout=1):
        await stopped.wait()


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m connection_exporter.demo.feed", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two prices")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.host, arguments.port, every=arguments.every))


if __name__ == "__main__":
    main()
