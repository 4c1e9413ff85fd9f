"""The example front end works from another origin, in a real browser, and only if the exporter allows that origin."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from connection_exporter.demo.ports import free_port
from connection_exporter.monitor import snapshot
from support.chromium import Tab, chromium_tab
from support.live import QUICK, exporter, web
from support.web_clients import until

PAGE: Final = (Path(__file__).parents[2] / "examples" / "frontend" / "index.html").read_bytes()
TYPES: Final = (
    Path(__file__).parents[2] / "exporter" / "connection_exporter" / "web" / "static" / "client.d.ts"
)


@asynccontextmanager
async def other_site(page: bytes = PAGE) -> AsyncIterator[str]:
    """Serve a page on a port, and so an origin, of its own. Yield that origin."""

    connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections[writer] = task
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\n\r\n"
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(head.encode() + page)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for writer in connections:  # Chromium opens some that it does not use
            writer.close()
        await asyncio.gather(*connections.values())


async def open_page(tab: Tab, site: str, url: str) -> None:
    await tab.open(f"{site}/?exporter={quote(url)}")


def line(port: int) -> str:
    return f"api: {{kind: http, url: 'http://127.0.0.1:{port}/', {QUICK}}}"


async def test_a_front_end_of_another_origin_is_live_and_forces_checks() -> None:
    """It shows a fault and its end by itself, and the button makes the exporter check."""
    async with web() as service, other_site() as site, chromium_tab() as tab:
        async with exporter(line(service.port), origins=[site]) as (url, monitor):
            await open_page(tab, site, url)
            await tab.until("document.getElementById('overall').textContent === 'healthy: 1 of 1 healthy'")
            before = monitor.board.forced_checks
            await tab.click("#check")
            await until(lambda: monitor.board.forced_checks == before + 1)
            await tab.until("document.getElementById('note').textContent === ''")
            await service.stop()
            await tab.until("document.querySelector('li').textContent.startsWith('api: disconnected')")
        await tab.until("document.body.classList.contains('lost')")
        assert "exporter" in await tab.evaluate("document.getElementById('note').textContent")


async def test_a_front_end_reconnects_by_itself() -> None:
    """After a restart of the exporter, without a reload of the page."""
    port = free_port()
    async with web() as service, other_site() as site, chromium_tab() as tab:
        async with exporter(line(service.port), port=port, origins=[site]) as (url, _):
            await open_page(tab, site, url)
            await tab.until("document.getElementById('overall').textContent.startsWith('healthy')")
            await tab.evaluate("window.isSame = true")
        await tab.until("document.body.classList.contains('lost')")
        async with exporter(line(service.port), port=port, origins=[site]):
            await tab.until("!document.body.classList.contains('lost')", seconds=30)
            assert await tab.evaluate("window.isSame")


async def test_a_page_of_an_origin_that_is_not_listed_can_read_nothing() -> None:
    """The browser keeps the board from it; the module itself is public."""
    async with (
        web() as service,
        other_site() as site,
        chromium_tab() as tab,
        exporter(line(service.port), origins=["https://app.example.com"]) as (url, _),
    ):
        await open_page(tab, site, url)
        await tab.until("document.getElementById('note').textContent === 'The exporter cannot be reached.'")
        assert await tab.evaluate("document.getElementById('services').children.length") == 0


@pytest.mark.parametrize("member", ["status", "summary", "connected", "error", "nextAttempt", "lastHeard"])
def test_the_types_name_each_property(member: str) -> None:
    """And the methods, below."""
    assert f"readonly {member}:" in TYPES.read_text()


@pytest.mark.parametrize(
    ("interface", "fields"),
    [
        ("Service", snapshot.Service.__annotations__),
        ("Board", snapshot.Detailed.__annotations__),
        ("Transition", {"name": str, "kind": str, **snapshot.Transition.__annotations__}),
    ],
)
def test_the_types_have_each_field_of_the_json(interface: str, fields: Mapping[str, object]) -> None:
    declaration = TYPES.read_text().partition(f"export interface {interface} {{")[2].partition("\n}")[0]
    assert set(re.findall(r"^  (\w+):", declaration, re.MULTILINE)) == set(fields)


async def test_callbacks_can_be_removed_and_an_error_in_one_affects_no_other() -> None:
    """``addCallback`` returns the function that ends it."""
    script = """
    <script type="module">
      const { connect } = await import("%s/client.js");
      const exporter = connect("%s");
      window.first = 0; window.second = 0;
      const remove = exporter.addCallback(() => { window.first += 1; remove(); throw new Error("mine"); });
      exporter.addCallback(() => { window.second += 1; });
      window.exporter = exporter;
    </script>"""
    async with web() as service, chromium_tab() as tab:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        page = (script % (url, url)).encode()
        async with other_site(page) as site, exporter(line(service.port), port=port, origins=[site]):
            await tab.open(f"{site}/")
            await tab.until("window.second > 3 && window.exporter.connected")
            assert await tab.evaluate("window.first") == 1
            transitions = await tab.evaluate("window.exporter.history('api')")
            assert transitions[0]["to"] == "healthy", json.dumps(transitions)
            await tab.evaluate("window.exporter.close()")
            await tab.until("!window.exporter.connected")
