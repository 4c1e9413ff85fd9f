"""Every route of the API, on a real exporter over real services."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

import httpx
import pytest
from connection_exporter.app import serving
from connection_exporter.demo.run import start_demo
from connection_exporter.demo.servers import PostgreSQL, Redis, free_port
from connection_exporter.kinds import load_text
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.errors import NotRunning
from connection_exporter.monitor.monitor import Monitor
from connection_exporter.system.clock import SystemClock
from connection_exporter.web.api import Api
from connection_exporter.web.server import bind
from prometheus_client import CollectorRegistry

FRIEND = "https://grafana.example.com"
QUICK = "defaults: {interval: 500ms, timeout: 500ms, retry_delay: 200ms, retries: 1}\n"


@asynccontextmanager
async def exporter(config: str, **options: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Monitor]]:
    """Serve ``config`` on a port of its own; yield a client of it, and the monitor behind it."""
    (listener,) = bind(["127.0.0.1:0"])
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with (
        serving(load_text(config), [listener], **options) as monitor,
        httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client,
    ):
        yield client, monitor


async def until(ready: Callable[[], bool], *, within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not ready():
        assert time.monotonic() < deadline, "it did not come to that in time"
        await asyncio.sleep(0.01)


def all_are(monitor: Monitor, status: str) -> Callable[[], bool]:
    return lambda: all(s["status"] == status for s in monitor.status()["services"].values())


@asynccontextmanager
async def watched_redis(options: str = "", **serve: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Monitor]]:
    """One healthy Redis, and the exporter that watches it."""
    async with (
        Redis() as redis,
        exporter(f"services:\n  redis: {{kind: redis, url: '{redis.url}'{options}}}\n", **serve) as (
            client,
            monitor,
        ),
    ):
        await until(all_are(monitor, "healthy"))
        yield client, monitor


def is_time(text: object) -> bool:
    """Tell whether it is RFC 3339 in UTC with milliseconds."""
    return (
        isinstance(text, str)
        and text.endswith("Z")
        and len(text) == 24
        and bool(datetime.fromisoformat(text))
    )


def holds_problem(response: httpx.Response, status: int) -> str:
    """Check that it is a problem of RFC 9457, and return its detail."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert list(body) == ["type", "title", "status", "detail"]
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert isinstance(body["detail"], str)
    return body["detail"]


SERVICE_KEYS = [
    *("name", "kind", "status", "critical", "reason", "message", "retry_count", "retries", "next_attempt"),
    *("last_check", "last_success", "status_since", "latency_seconds", "session", "canary", "details"),
    *("group", "description", "links", "depends_on", "causes"),
]


async def test_detailed_shows_the_whole_board_of_five_healthy_services() -> None:
    """Every field of the contract, in its order, with its type."""
    async with start_demo(lambda _: None) as demo, exporter(demo.config) as (client, monitor):
        await until(all_are(monitor, "healthy"))
        response = await client.get("/health/detailed")
        text = (await client.get("/metrics")).text
        short = await client.get("/health")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert list(body) == [
        "status",
        "monitoring_active",
        "last_update",
        "uptime_seconds",
        "summary",
        "services",
    ]
    assert (body["status"], body["monitoring_active"]) == ("healthy", True)
    assert is_time(body["last_update"])
    assert body["uptime_seconds"] > 0
    assert body["summary"] == {
        "total": 5,
        "healthy": 5,
        "unhealthy": 0,
        "disconnected": 0,
        "connecting": 0,
        "unknown": 0,
    }
    assert list(body["summary"]) == ["total", "healthy", "unhealthy", "disconnected", "connecting", "unknown"]
    assert list(body["services"]) == ["database", "redis", "bot_process", "external_api", "websocket"]
    for name, service in body["services"].items():
        assert list(service) == SERVICE_KEYS
        assert (service["name"], service["status"], service["critical"]) == (name, "healthy", True)
        assert (service["reason"], service["message"], service["retry_count"]) == (None, None, 0)
        assert service["retries"] == 3
        for key in ("next_attempt", "last_check", "last_success", "status_since"):
            assert is_time(service[key]), key
        assert service["latency_seconds"] > 0
        assert list(service["session"]) == ["up", "since"]
        assert service["session"]["up"] is True
        assert is_time(service["session"]["since"])
        assert list(service["canary"]) == ["up", "last"]
        assert isinstance(service["details"], dict)
    assert body["last_update"] == max(service["last_check"] for service in body["services"].values())
    assert {service["kind"] for service in body["services"].values()} == {
        "postgresql",
        "redis",
        "process",
        "http",
        "websocket",
    }
    assert short.status_code == 200
    assert list(short.json()) == ["status", "monitoring_active", "last_update"]
    for name, service in body["services"].items():
        assert f'connection_up{{kind="{service["kind"]}",name="{name}"}} 1.0\n' in text
        assert f'connection_session_up{{kind="{service["kind"]}",name="{name}"}} 1.0\n' in text


async def test_what_is_not_known_is_null_and_still_there() -> None:
    """Before anything was tried: every field, with null for what nobody knows yet."""
    config = f"services:\n  absent: {{kind: redis, port: {free_port()}}}\n"
    monitor = Monitor(load_text(config))
    service = monitor.status()["services"]["absent"]
    assert list(service) == SERVICE_KEYS
    assert service["status"] == "unknown"
    for key in ("reason", "next_attempt", "last_check", "last_success", "latency_seconds"):
        assert service[key] is None, key
    assert service["session"] == {"up": False, "since": None}
    assert service["canary"] == {"up": None, "last": None}
    assert service["details"] == {}
    assert service["message"] == "not tried yet"
    assert monitor.status()["last_update"] is None


@pytest.mark.parametrize(
    ("options", "status", "code", "overall"),
    [
        ("retries: 1", "disconnected", 503, "partial"),
        ("retries: 1, critical: false", "disconnected", 200, "degraded"),
        ("retries: 9", "connecting", 503, "unknown"),
        ("retries: 9, critical: false", "connecting", 200, "degraded"),
    ],
)
async def test_the_status_code_of_health_follows_the_overall_status(
    options: str, status: str, code: int, overall: str
) -> None:
    """503 for partial and unknown, 200 for degraded; all of it over a port where nothing listens."""
    config = f"services:\n  absent: {{kind: redis, port: {free_port()}, {options}}}\n"
    async with exporter(config) as (client, monitor):
        await until(lambda: monitor.status()["services"]["absent"]["reason"] == "refused")
        response = await client.get("/health")
        absent = (await client.get("/health/service/absent")).json()
    assert (response.status_code, response.json()["status"]) == (code, overall)
    assert response.json()["monitoring_active"] is True
    assert (absent["status"], absent["reason"], absent["retry_count"]) == (status, "refused", 1)
    assert absent["latency_seconds"] is None
    assert absent["last_success"] is None
    assert is_time(absent["last_check"])


async def test_health_is_503_before_the_start_and_ready_too() -> None:
    """Over an API whose monitor does not run: not active, not ready, and no check can be forced."""
    board = Board([], SystemClock())

    async def refuse(_: str | None) -> None:
        raise NotRunning

    api = Api(board, CollectorRegistry(), force_check=refuse, ready=lambda: False)
    transport = httpx.ASGITransport(app=api.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://exporter") as client:
        health = await client.get("/health")
        assert (health.status_code, health.json()["monitoring_active"]) == (503, False)
        assert (await client.get("/-/ready")).status_code == 503
        assert (await client.get("/-/healthy")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/health/detailed")).status_code == 200
        assert "not running" in holds_problem(await client.post("/health/force-check"), 409)


async def test_a_service_is_shown_with_its_last_transitions() -> None:
    """Newest first, each with its reason."""
    async with Redis() as redis:
        # With an interval of an hour, no check is under way when Redis is killed: the reason would be eof.
        config = f"{QUICK}services:\n  redis: {{kind: redis, url: '{redis.url}', interval: 1h}}\n"
        async with exporter(config) as (client, monitor):
            await until(all_are(monitor, "healthy"))
            await redis.kill()
            await until(all_are(monitor, "disconnected"))
            response = await client.get("/health/service/redis")
    assert response.status_code == 200
    body = response.json()
    assert list(body) == [*SERVICE_KEYS, "transitions"]
    assert body["details"] == {}, "what was measured has gone with the session"
    assert body["session"] == {"up": False, "since": None}
    for transition in body["transitions"]:
        assert list(transition) == ["at", "from", "to", "reason", "message"]
        assert is_time(transition["at"])
    assert [(t["from"], t["to"]) for t in body["transitions"]] == [
        ("connecting", "disconnected"),
        ("healthy", "connecting"),
        ("connecting", "healthy"),
        ("unknown", "connecting"),
    ]
    assert body["transitions"][0]["reason"] == "refused"
    assert body["transitions"][1]["reason"] in ("idle_closed", "reset")
    assert body["transitions"][2]["reason"] is None


async def test_an_unknown_service_is_404_and_the_known_ones_are_named() -> None:
    """For looking and for forcing; a long name is cut short."""
    config = f"services:\n  one: {{kind: redis, port: {free_port()}}}\n  two: {{kind: redis, port: {free_port()}}}\n"
    async with exporter(config) as (client, _):
        reported = "there is no service 'three'; the services are one, two"
        assert holds_problem(await client.get("/health/service/three"), 404) == reported
        assert holds_problem(await client.post("/health/force-check?service=three"), 404) == reported
        assert len(holds_problem(await client.get("/health/service/" + "x" * 5000), 404)) < 200


async def test_an_unknown_path_is_404_and_says_where_all_are_listed() -> None:
    """A slash at the end is the usual mistake; it is not followed, because a redirect would name a host."""
    async with exporter(f"services:\n  redis: {{kind: redis, port: {free_port()}}}\n") as (client, _):
        for path in ("/nothing/here", "/Health", "/%00"):
            said = holds_problem(await client.get(path), 404)
            assert said == "there is nothing at this path: see /openapi.json for all paths"
        for path in ("/health/", "/metrics/", "/nothing/"):
            said = holds_problem(await client.get(path), 404)
            assert said == "there is nothing at this path: try it without the slash at the end"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("servce=redis", "unknown parameter 'servce'; known: service"),
        ("service=redis&service=other", "the parameter service is given more than once: keep one"),
    ],
)
async def test_a_parameter_that_is_not_known_forces_no_check(query: str, said: str) -> None:
    """A misspelled one would otherwise mean all services."""
    async with exporter(f"services:\n  redis: {{kind: redis, port: {free_port()}}}\n") as (client, monitor):
        assert holds_problem(await client.post(f"/health/force-check?{query}"), 400) == said
        assert monitor.board.forced_checks == 0


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/health", {"GET", "HEAD"}),
        ("DELETE", "/health/detailed", {"GET", "HEAD"}),
        ("PUT", "/health/service/redis", {"GET", "HEAD"}),
        ("POST", "/metrics", {"GET", "HEAD"}),
        ("GET", "/health/force-check", {"POST"}),
        ("POST", "/-/ready", {"GET", "HEAD"}),
    ],
)
async def test_the_wrong_method_is_405_and_says_which_is_right(
    method: str, path: str, allowed: set[str]
) -> None:
    """A GET never forces a check."""
    config = f"services:\n  redis: {{kind: redis, port: {free_port()}}}\n"
    async with exporter(config) as (client, monitor):
        response = await client.request(method, path)
        assert monitor.board.forced_checks == 0
    assert holds_problem(response, 405) == f"{method} is not allowed here: use {' or '.join(sorted(allowed))}"
    assert allowed <= set(response.headers["allow"].split(", "))


@pytest.mark.parametrize(
    "path",
    ["/", "/health", "/health/detailed", "/health/service/redis", "/metrics", "/-/healthy", "/-/ready"],
)
async def test_head_answers_as_get_without_a_body(path: str) -> None:
    """As load balancers ask."""
    async with watched_redis() as (client, _):
        head, get = await client.head(path), await client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]


async def test_a_forced_check_is_made_now_and_answers_as_detailed() -> None:
    """At an interval of half an hour the check is new; a canary goes with it."""
    async with watched_redis(", interval: 30m, canary: 60m") as (client, monitor):
        before = monitor.status()["services"]["redis"]
        assert before["canary"] == {"up": None, "last": None}
        response = await client.post("/health/force-check")
        assert response.status_code == 200
        after = response.json()["services"]["redis"]
        assert after["last_check"] > before["last_check"]
        assert after["canary"]["up"] is True
        assert "connection_forced_checks_total 1.0\n" in (await client.get("/metrics")).text


async def test_a_forced_check_finds_what_has_come_back() -> None:
    """In back-off it takes the place of the next attempt."""
    port = free_port()
    keys = f"kind: redis, port: {port}, retry_delay: 5m, max_retry_delay: 10m"
    async with exporter(f"services:\n  redis: {{{keys}}}\n  other: {{{keys}, critical: false}}\n") as (
        client,
        monitor,
    ):
        await until(lambda: all(s["reason"] == "refused" for s in monitor.status()["services"].values()))
        redis = Redis()
        redis.port = port
        async with redis:
            body = (await client.post("/health/force-check", params={"service": "redis"})).json()
    assert body["services"]["redis"]["status"] == "healthy"
    assert body["services"]["other"]["status"] == "connecting", "the one that was not asked for"


async def test_those_who_ask_at_once_share_a_round_and_who_asks_right_after_has_to_wait() -> None:
    """A thousand requests are one round; then 429 with Retry-After, for a second."""
    async with watched_redis(", interval: 30m") as (client, monitor):
        checks = monitor.board.record("redis").checks
        answers = await asyncio.gather(*(client.post("/health/force-check") for _ in range(50)))
        again = await client.post("/health/force-check")
        one = await client.post("/health/force-check?service=redis")
        made = monitor.board.record("redis").checks - checks
        codes = {answer.status_code for answer in answers}
        assert codes <= {200, 429}
        assert 200 in codes
        assert made == monitor.board.forced_checks <= 2
        assert "try again" in holds_problem(again, 429)
        assert again.headers["retry-after"] == "1"
        assert one.status_code == 429
        await asyncio.sleep(1.05)
        assert (await client.post("/health/force-check")).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example.com", "null", "http://127.0.0.1:1", FRIEND + ".evil.com"]
)
async def test_a_page_of_another_origin_cannot_force_a_check(origin: str) -> None:
    """Neither by asking first nor without, and nothing is checked."""
    async with watched_redis(origins=[FRIEND]) as (client, monitor):
        refused = await client.post("/health/force-check", headers={"Origin": origin})
        asked = await client.options("/health/force-check", headers={"Origin": origin})
        reported = holds_problem(refused, 403)
        # null would let in any sandboxed page.
        assert (f"--web.cors.origin={origin}" in reported) is (origin != "null")
        holds_problem(asked, 403)
        assert "access-control-allow-origin" not in refused.headers
        assert "access-control-allow-origin" not in asked.headers
        assert monitor.board.forced_checks == 0


async def test_a_page_of_a_listed_origin_may_force_a_check() -> None:
    """After it has asked, as browsers do, and it may read the answer."""
    async with watched_redis(origins=[FRIEND]) as (client, _):
        headers = {
            "Origin": FRIEND,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,x-grafana-action",
        }
        asked = await client.options("/health/force-check", headers=headers)
        done = await client.post("/health/force-check", headers={"Origin": FRIEND})
    assert (asked.status_code, asked.content) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == FRIEND
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert "x-grafana-action" in asked.headers["access-control-allow-headers"].lower()
    assert int(asked.headers["access-control-max-age"]) > 0
    assert "origin" in asked.headers["vary"].lower()
    assert (done.status_code, done.headers["access-control-allow-origin"]) == (200, FRIEND)


async def test_nobody_is_sent_on_to_a_host_that_the_client_names() -> None:
    """A path with a slash too many is not found."""
    async with watched_redis() as (client, _):
        holds_problem(await client.get("/health/", headers={"Host": "evil.example.com"}), 404)


async def test_our_own_page_may_force_a_check() -> None:
    """Its origin is the host that was asked."""
    async with watched_redis() as (client, _):
        own = str(client.base_url).rstrip("/")
        assert (await client.post("/health/force-check", headers={"Origin": own})).status_code == 200


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=what", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ],
)
async def test_metrics_come_in_the_format_that_is_asked_for(accept: str, content_type: str) -> None:
    """Compressed or not, and always with 200."""
    async with watched_redis() as (client, _):
        plain = await client.get("/metrics", headers={"Accept": accept, "Accept-Encoding": "identity"})
        async with client.stream(
            "GET", "/metrics", headers={"Accept": accept, "Accept-Encoding": "gzip"}
        ) as response:
            packed = b"".join([chunk async for chunk in response.aiter_raw()])
    assert plain.status_code == response.status_code == 200
    assert plain.headers["content-type"] == response.headers["content-type"] == content_type
    assert "content-encoding" not in plain.headers
    assert response.headers["content-encoding"] == "gzip"
    assert 'connection_up{kind="redis",name="redis"} 1.0\n' in plain.text
    assert 'connection_up{kind="redis",name="redis"} 1.0\n' in gzip.decompress(packed).decode()
    assert {"accept", "accept-encoding"} <= set(plain.headers["vary"].lower().split(", "))


async def test_the_telemetry_path_can_be_another() -> None:
    """And the usual one is then free."""
    config = f"services:\n  redis: {{kind: redis, port: {free_port()}}}\n"
    async with exporter(config, telemetry_path="/probe/metrics") as (client, _):
        assert "connection_up" in (await client.get("/probe/metrics")).text
        assert (await client.get("/metrics")).status_code == 404


async def test_healthy_and_ready_hold_whatever_the_services_do() -> None:
    """The two for the probes of Docker and Kubernetes."""
    async with exporter(f"{QUICK}services:\n  redis: {{kind: redis, port: {free_port()}}}\n") as (
        client,
        monitor,
    ):
        await until(all_are(monitor, "disconnected"))
        for path, text in (("/-/healthy", "Healthy\n"), ("/-/ready", "Ready\n")):
            response = await client.get(path)
            assert (response.status_code, response.text) == (200, text)


async def test_frozen_services_do_not_slow_any_answer() -> None:
    """With PostgreSQL and Redis stopped by SIGSTOP everything still answers from memory, while they are probed."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(PostgreSQL())
        redis = await stack.enter_async_context(Redis())
        config = (
            "defaults: {interval: 1s, timeout: 1s, retry_delay: 200ms}\n"
            f"services:\n  database: {{kind: postgresql, dsn: '{database.dsn()}'}}\n"
            f"  redis: {{kind: redis, url: '{redis.url}'}}\n"
        )
        client, monitor = await stack.enter_async_context(exporter(config))
        await until(all_are(monitor, "healthy"))
        await database.pause()
        await redis.pause()
        took: list[float] = []
        began = time.monotonic()
        while time.monotonic() - began < 15 and not all_are(monitor, "disconnected")():
            for path in ("/metrics", "/health/detailed", "/health", "/health/service/redis"):
                asked = time.monotonic()
                assert (await client.get(path)).status_code in (200, 503)
                took.append(time.monotonic() - asked)
            await asyncio.sleep(0.05)
        assert {s["reason"] for s in monitor.status()["services"].values()} == {"timeout"}
        assert len(took) > 20
        assert sorted(took)[len(took) // 2] < 0.5, "the median, of a wait of 1 s for a frozen service"
        await database.resume()
        await redis.resume()
        await until(all_are(monitor, "healthy"))


async def test_an_answer_is_json_that_ends_its_line() -> None:
    """So that a shell's prompt is where it should, with umlauts as themselves."""
    async with watched_redis() as (client, _):
        for path in ("/health", "/health/detailed", "/health/service/redis", "/health/service/what"):
            response = await client.get(path)
            assert response.text.endswith("}\n")
            assert json.loads(response.text)


async def test_a_bare_http_1_0_request_is_answered() -> None:
    """As a shell script without curl sends it."""
    async with watched_redis() as (client, _):
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(b"GET /-/healthy HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert b" 200 OK\r\n" in answer
    assert answer.endswith(b"Healthy\n")
