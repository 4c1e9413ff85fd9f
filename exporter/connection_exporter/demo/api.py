"""The HTTP API of the demo: /health, and /sick and /well to change what it answers."""

import argparse
import time

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m connection_exporter.demo.api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument(
        "--keep-alive",
        type=int,
        default=5,
        help="seconds until it closes an idle connection (default: %(default)s)",
    )
    arguments = parser.parse_args()
    uvicorn.run(
        build(),
        host=arguments.host,
        port=arguments.port,
        log_level="warning",
        timeout_keep_alive=arguments.keep_alive,
        timeout_graceful_shutdown=1,
    )


def build() -> Starlette:
    """Return the application, which is healthy at first."""
    began = time.monotonic()
    sick = False

    async def health(_: Request) -> JSONResponse:
        body = {"status": "failing" if sick else "ok", "uptime_seconds": round(time.monotonic() - began, 3)}
        return JSONResponse(body, status_code=503 if sick else 200)

    async def make_sick(_: Request) -> JSONResponse:
        nonlocal sick
        sick = True
        return JSONResponse({"sick": sick})

    async def make_well(_: Request) -> JSONResponse:
        nonlocal sick
        sick = False
        return JSONResponse({"sick": sick})

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/sick", make_sick, methods=["POST"]),
            Route("/well", make_well, methods=["POST"]),
        ]
    )


if __name__ == "__main__":
    main()
