"""The demo's five servers run together, and the chaos leaves them as it found them."""

import pytest
import yaml
from connection_exporter.demo import run
from connection_exporter.demo.run import chaos, start_demo
from connection_exporter.demo.servers import HttpApi, Server, ServerError


async def test_the_demo_runs_five_servers_and_a_config_for_them() -> None:
    """The config has the five names, and each server that it names is there."""
    said: list[str] = []
    async with start_demo(said.append) as demo:
        config = yaml.safe_load(demo.config)
        assert list(config["services"]) == ["database", "redis", "bot_process", "external_api", "websocket"]
        kinds = {service["kind"] for service in config["services"].values()}
        assert kinds == {"postgresql", "redis", "process", "http", "websocket"}
        servers = (demo.database, demo.redis, demo.bot, demo.api, demo.feed)
        assert all([await server.ready() for server in servers])
    assert len([line for line in said if "is running, pid" in line]) == 5
    assert not any(server.running for server in servers)


async def test_the_chaos_repairs_what_it_breaks_and_reports_it() -> None:
    """After a round, all five serve again; two lines are said for each fault."""
    said: list[str] = []
    async with start_demo(lambda _: None) as demo:
        await chaos(demo, said.append, rounds=1, pace=0.05)
        servers = (demo.database, demo.redis, demo.bot, demo.api, demo.feed)
        assert all([await server.ready() for server in servers])
        assert await demo.database.execute("SELECT 1")
    assert all(line.startswith("chaos: ") for line in said)
    assert said[:2] == ["chaos: kill -9 redis", "chaos: redis is back"]
    assert len(said) == len(run._acts(demo)) * 2


class Broken(Server):
    """A server that ends at once, with a word."""

    name = "broken"

    def command(self) -> list[str]:
        return ["/bin/sh", "-c", "echo the disk is full; exit 3"]


async def test_a_server_that_ends_at_once_fails_with_its_last_words() -> None:
    """The error says how it ended, and holds the end of its log."""
    with pytest.raises(ServerError, match="broken ended with 3: the disk is full"):
        async with Broken():
            raise AssertionError


async def test_a_server_that_cannot_start_says_why() -> None:
    """Its port taken, the API is not even tried, and its folder goes."""
    async with HttpApi() as first:
        second = HttpApi()
        second.port = first.port
        with pytest.raises(ServerError, match=r"port \d+ is taken"):
            async with second:
                raise AssertionError
        assert not second.folder.exists()
