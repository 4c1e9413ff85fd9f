"""/openapi.json describes every route, and every answer is as it says."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from connection_exporter.monitor.board import Board
from connection_exporter.system.clock import SystemClock
from connection_exporter.web.api import Api
from connection_exporter.web.openapi import openapi
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from support.web_clients import listening

CONFIG = """\
services:
  bot: {kind: process, name: nothing_of_this_name, interval: 200ms, retry_delay: 100ms}
  backup: {kind: heartbeat, max_age: 1h}
  cache: {kind: redis, host: 127.0.0.1, port: 1, retry_delay: 100ms}
"""


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with listening(config=CONFIG) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as it:
        await asyncio.sleep(0.5)
        yield it


def test_it_is_valid() -> None:
    """By the reference validator of OpenAPI 3.1, with the metrics anywhere."""
    validate(openapi())
    assert "/elsewhere" in openapi("/elsewhere")["paths"]


def test_every_route_is_described_and_every_description_has_a_route() -> None:
    """A route that is added has to be described, with each of its methods."""
    board = Board([], SystemClock())

    async def never(_: str | None) -> None:
        raise AssertionError

    async def unused(_: Request) -> Response:
        raise AssertionError

    others = dict.fromkeys(("events", "beat", "config", "reload"), unused)
    api = Api(board, CollectorRegistry(), force_check=never, ready=lambda: True, handlers=others)
    there = {
        (route.path, method.lower())
        for route in api.app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method not in ("HEAD", "OPTIONS")
    }
    described = {(path, method) for path, methods in openapi()["paths"].items() for method in methods}
    assert described == there


@pytest.mark.parametrize(
    ("method", "path", "accept"),
    [
        ("GET", "/health", None),
        ("GET", "/health/detailed", None),
        ("GET", "/health/service/bot", None),
        ("GET", "/health/service/cache", None),
        ("GET", "/health/service/nobody", None),
        ("POST", "/health/force-check", None),
        ("POST", "/health/force-check?service=nobody", None),
        ("GET", "/metrics", None),
        ("GET", "/metrics", "application/openmetrics-text"),
        ("GET", "/config", "application/json"),
        ("GET", "/config", None),
        ("POST", "/heartbeat/backup?status=fine", None),
        ("POST", "/heartbeat/nobody", None),
        ("GET", "/heartbeat/backup", None),
        ("GET", "/openapi.json", None),
        ("GET", "/-/healthy", None),
        ("GET", "/-/ready", None),
        ("POST", "/-/reload", None),
        ("PUT", "/-/reload", None),
        ("DELETE", "/health", None),
        ("GET", "/", None),
    ],
)
async def test_an_answer_is_as_it_is_described(
    client: httpx.AsyncClient, method: str, path: str, accept: str | None
) -> None:
    """Its status, its media type and each field of it."""
    described = openapi()
    answer = await client.request(method, path, headers={"Accept": accept} if accept else None)
    template = re.sub(r"^/health/service/.*", "/health/service/{name}", path.partition("?")[0])
    template = re.sub(r"^/heartbeat/.*", "/heartbeat/{name}", template)
    operation: dict[str, Any] = described["paths"][template].get(method.lower(), {})
    responses = operation.get(
        "responses", {"default": described["paths"]["/"]["get"]["responses"]["default"]}
    )
    content = responses.get(str(answer.status_code), responses["default"])["content"]
    media_type = answer.headers["content-type"].partition(";")[0]
    assert media_type in content
    if media_type.endswith("json"):
        schema = {**content[media_type]["schema"], "components": described["components"]}
        OAS31Validator(schema).validate(answer.json())


async def test_it_is_written_once_for_all_who_ask(client: httpx.AsyncClient) -> None:
    """Also for those who ask while it is written: a thread and 25 ms of CPU for each would stop everything else."""
    most = 0
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(client.get("/openapi.json")) for _ in range(20)]
        while not all(task.done() for task in asking):
            most = max(most, sum(thread.name == "describe routes" for thread in threading.enumerate()))
            await asyncio.sleep(0)
    assert len({task.result().text for task in asking}) == 1
    assert most <= 1


async def test_an_event_is_as_it_is_described(client: httpx.AsyncClient) -> None:
    """The schema of a stream is that of each event in it, as tools take it."""
    described = openapi()
    content = described["paths"]["/events"]["get"]["responses"]["200"]["content"]
    schema = {**content["text/event-stream"]["schema"], "components": described["components"]}
    async with client.stream("GET", "/events") as answer:
        event: dict[str, str] = {}
        async for line in answer.aiter_lines():
            key, _, value = line.partition(": ")
            event |= {key: value} if key not in ("", "retry") else {}
            if key == "data":
                break
    assert event["event"] == "board"
    OAS31Validator(schema).validate(event)
