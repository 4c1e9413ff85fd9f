"""The servers of the demo start and stop on request, and leave nothing behind."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil
import pytest
from connection_exporter.demo.ports import is_free, reserve_port
from connection_exporter.demo.server import until
from connection_exporter.demo.servers import Bot, HttpApi, PostgreSQL, Redis, Server, WebSocket, free_port

KINDS = [Bot, HttpApi, PostgreSQL, Redis, WebSocket]

OTHER_PROCESS = """
import asyncio, json, psutil
from connection_exporter.demo.servers import PostgreSQL, Redis
async def main():
    async with PostgreSQL() as database, Redis() as redis:
        await database.pause()
        children = psutil.Process(database.pid).children(recursive=True)
        pids = [database.pid, redis.pid, *(child.pid for child in children)]
        print(json.dumps({"pids": pids, "folders": [str(database.folder), str(redis.folder)]}), flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def alive(pid: int) -> bool:
    """Whether a process runs, or is frozen; a zombie is dead."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def moving(pid: int) -> bool:
    return alive(pid) and psutil.Process(pid).status() != psutil.STATUS_STOPPED


def family(server: Server) -> list[int]:
    children = psutil.Process(server.pid).children(recursive=True)
    return [server.pid, *(child.pid for child in children)]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_survives_a_kill_and_a_restart_on_the_same_port(kind: Callable[[], Server]) -> None:
    """Each start is a new process, the port stays, and nothing is left in the end."""
    async with kind() as server:
        port, first = server.port, family(server)
        await server.kill()
        assert not any(map(alive, first))
        assert not server.running

        await server.start()
        second = family(server)
        assert server.port == port
        assert second[0] != first[0]

        await server.restart()
        third = family(server)
        assert server.port == port
        assert not any(map(alive, second))
    assert not any(map(alive, third))
    assert not server.folder.exists()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_frozen_server_goes_on_when_resumed_and_can_be_stopped_when_frozen(
    kind: Callable[[], Server],
) -> None:
    """SIGSTOP reaches the server and all its children."""
    async with kind() as server:
        members = family(server)
        await server.pause()
        assert await until(lambda: not any(map(moving, members)))
        await server.resume()
        assert await until(lambda: moving(server.pid))
        assert await server.ready()
        await server.pause()
    assert not any(map(alive, members))


async def test_nothing_is_left_when_our_own_process_is_killed() -> None:
    """Servers end with us (PR_SET_PDEATHSIG), frozen children too."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER_PROCESS, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    said = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    assert all(map(alive, said["pids"]))
    process.kill()
    await process.wait()
    assert await until(lambda: not any(map(alive, said["pids"])))
    for folder in said["folders"]:
        await asyncio.to_thread(subprocess.run, ["rm", "-r", folder], check=True)


async def test_postgresql_obeys_its_password_and_its_hba(tmp_path: Path) -> None:
    """`set_hba` holds for new connections as soon as it returns."""
    async with PostgreSQL(tmp_path / "pg", password="a secret/@:") as server:
        rows = await server.execute("CREATE ROLE bot LOGIN PASSWORD 'b'", "SELECT 7 AS seven")
        assert rows[0]["seven"] == 7
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.dsn(password="wrong"))
        connection = await asyncpg.connect(server.dsn(user="bot", password="b"))
        await connection.close()

        await server.set_hba(["host all all 127.0.0.1/32 reject"])
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await server.execute("SELECT 1")
        await server.restart()
        await server.reset_hba()
        assert await server.execute("SELECT 1")


async def test_redis_wants_its_password_and_takes_arguments(tmp_path: Path) -> None:
    """Arguments go to redis-server as they are."""
    async with Redis(tmp_path, password="secret", arguments=["--maxclients", "7"]) as server:
        assert await server.call("GET", "absent") == b"$-1"
        assert await server.call("CONFIG", "GET", "maxclients") == b"*2"
        assert await server.call("PING") == b"-NOAUTH Authentication required."


async def test_the_api_can_be_made_to_fail() -> None:
    """A sick API answers, but with 503."""
    async with HttpApi() as server:
        assert await status_line(server) == b"HTTP/1.1 200 OK"
        await server.sick()
        assert await status_line(server) == b"HTTP/1.1 503 Service Unavailable"
        await server.well()
        assert await status_line(server) == b"HTTP/1.1 200 OK"


async def status_line(server: HttpApi) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.splitlines()[0]


def test_a_chosen_port_is_not_one_of_those_for_outgoing_connections() -> None:
    """Otherwise a client that tries a dead server again and again connects to itself in the end."""
    assert 20000 <= free_port() < 32000


def test_no_two_servers_get_the_same_port() -> None:
    """Each reserves its port from the moment it is made, and lets it go when it is closed."""
    reserved = [reserve_port() for _ in range(50)]
    ports = {one.getsockname()[1] for one in reserved}
    assert len(ports) == 50
    assert all(is_free(port) for port in ports), "a server can listen on what is reserved for it"
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", next(iter(ports))))
    for one in reserved:
        one.close()


async def test_another_program_on_the_port_is_not_taken_for_the_server() -> None:
    """It answers what the server would answer; the server itself listens elsewhere."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"+PONG\r\n")
        writer.close()

    redis = Redis(arguments=["--port", "0", "--unixsocket", "redis.sock"])
    other = await asyncio.start_server(answer, "127.0.0.1", redis.port)
    async with other:
        assert await redis.ready()
        redis._process = redis._spawn()
        try:
            assert not await redis._serves()
        finally:
            await redis.close()
