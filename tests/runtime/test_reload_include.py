"""Files that `include` matches are watched: changed, new and removed ones, and those that are not valid."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from connection_exporter.app import serving
from connection_exporter.config.web import WebConfig
from connection_exporter.kinds import load
from connection_exporter.runtime.file_watcher import LOOK_EVERY
from connection_exporter.runtime.settings import Settings, read_settings
from connection_exporter.system.wakeup import Wakeup
from connection_exporter.web.server import bind

SOON = 8 * LOOK_EVERY


@asynccontextmanager
async def exporter(file: Path, hangup: Wakeup | None = None) -> AsyncIterator[httpx.AsyncClient]:
    def read() -> Settings:
        return read_settings(lambda: load(file, {}), WebConfig, files=(file,))

    sockets = bind(["127.0.0.1:0"])
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    async with (
        serving(read(), sockets, reread=read, hangup=hangup),
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SOON):
        while not await true():  # noqa: ASYNC110 - what is waited for is a look at the files
            await asyncio.sleep(0.05)


async def names(client: httpx.AsyncClient) -> list[str]:
    return list((await client.get("/health/detailed")).json()["services"])


async def refused(client: httpx.AsyncClient) -> bool:
    return "connection_exporter_config_last_reload_successful 0" in (await client.get("/metrics")).text


async def test_included_files_are_watched_and_new_ones_are_found(tmp_path: Path) -> None:
    """A file that is not valid changes nothing until it is put right."""
    main, folder = tmp_path / "main.yml", tmp_path / "conf.d"
    folder.mkdir()
    (tmp_path / "pid").write_text(str(os.getpid()))
    main.write_text("include: [conf.d/*.yml]\nservices:\n  a: {kind: process, pidfile: pid}\n")
    (folder / "b.yml").write_text("services: {b: {kind: process, pidfile: ../pid}}")

    def are(*wanted: str) -> Callable[[], Awaitable[bool]]:
        async def check() -> bool:
            return await names(client) == list(wanted)

        return check

    async with exporter(main) as client:
        assert await names(client) == ["a", "b"]
        (folder / "c.yml").write_text("services: {c: {kind: process, pidfile: ../pid}}")
        await until(are("a", "b", "c"))
        (folder / "b.yml").write_text("services: {b2: {kind: process, pidfile: ../pid}}")
        await until(are("a", "b2", "c"))
        (folder / "d.yml").write_text("services: {d: {kind: nonsense}}")
        await until(lambda: refused(client))
        assert await names(client) == ["a", "b2", "c"]
        (folder / "d.yml").write_text("services: {d: {kind: process, pidfile: ../pid}}")
        await until(are("a", "b2", "c", "d"))
        assert not await refused(client)
        (folder / "b.yml").unlink()
        await until(are("a", "c", "d"))


async def test_a_file_that_a_refused_config_includes_is_watched_too(tmp_path: Path) -> None:
    """The config in force does not include it, but putting it right is all that is left to do."""
    main, other = tmp_path / "main.yml", tmp_path / "other.yml"
    service = "services: {a: {kind: process, name: a}}"
    main.write_text(service)
    hangup = Wakeup()
    async with exporter(main, hangup) as client:
        other.write_text("services: {b: {kind: nonsense}}")
        main.write_text(f"include: other.yml\n{service}")
        hangup.set()
        await until(lambda: refused(client))
        other.write_text("services: {b: {kind: process, name: b}}")

        async def is_included() -> bool:
            return await names(client) == ["a", "b"]

        await until(is_included)
        assert not await refused(client)
