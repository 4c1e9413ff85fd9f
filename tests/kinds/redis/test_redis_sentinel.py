"""Kind redis behind Sentinel: real sentinels, failovers, disagreement and what they answer instead of an address."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
import trustme
from connection_exporter.core.health import Reason, Status
from connection_exporter.demo.ports import free_port
from connection_exporter.kind import Failure, Observation
from connection_exporter.kinds.redis.check import RedisCheck
from connection_exporter.kinds.redis.config import RedisConfig
from connection_exporter.net import Network
from support.attempts import attempt, held
from support.certificates import presenting
from support.redis_groups import MASTER, StartSentinel, run_sentinels, start_group
from support.redis_servers import StartRedis, answering, open_files, run_redis
from support.streams import serving
from support.watched import on_uvloop, watching

start = pytest.fixture(run_redis)
sentinel = pytest.fixture(run_sentinels)


def check_of(nodes: list[str], **config: object) -> RedisCheck:
    behind = {"master": MASTER, "nodes": nodes, **config.pop("sentinel", {})}  # type: ignore[dict-item]
    return RedisCheck(RedisConfig.model_validate({"kind": "redis", "sentinel": behind, **config}), Network())


async def failure_of(check: RedisCheck, *, timeout: float = 5) -> Failure:
    result = await attempt(check, timeout=timeout)
    assert isinstance(result, Failure)
    return result


async def new_master(check: RedisCheck, *, not_at: int) -> Observation:
    """Return the first answer of another master than the one at this port."""
    async with asyncio.timeout(30):
        while True:
            result = await attempt(check)
            if isinstance(result, Observation) and result.details["master"] != f"127.0.0.1:{not_at}":
                return result
            await asyncio.sleep(0.05)


async def test_the_session_is_with_the_master_that_the_sentinels_name(
    start: StartRedis, sentinel: StartSentinel
) -> None:
    """The details have the master and the sentinels; the address of the service is what is configured."""
    master = start()
    nodes = [sentinel(master.port).node for _ in range(3)]
    check = check_of(nodes)
    async with held(check) as (session, first):
        assert first.reason is None
        assert first.details["master"] == f"127.0.0.1:{master.port}"
        assert (first.details["sentinels_known"], first.details["sentinels_agreeing"]) == (3, 3)
        assert session.peer == f"127.0.0.1:{master.port}"
        assert session.peer in session.addresses
    assert check.address == f"{','.join(nodes)}/main"


async def test_without_depth_the_role_is_confirmed_all_the_same(
    start: StartRedis, sentinel: StartSentinel
) -> None:
    """PING and ROLE are all that is sent to the master."""
    master = start()
    async with held(check_of([sentinel(master.port).node], depth=False)) as (_, first):
        assert first.reason is None
    assert b"cmdstat_role:" in master.admin("INFO", "commandstats")


def test_a_killed_master_is_one_loss_and_an_attempt_finds_the_new_one(
    start: StartRedis, sentinel: StartSentinel
) -> None:
    """The loss is noticed at once. Until the failover nothing listens there; afterwards the new master answers."""
    group = start_group(start, sentinel)
    old = f"127.0.0.1:{group.master.port}"
    config = (
        "defaults: {interval: 1d, retry_delay: 300ms, retries: 1}\nservices:\n"
        f"  cache: {{kind: redis, sentinel: {{master: {MASTER}, nodes: {group.nodes}}}}}\n"
    )

    @on_uvloop
    async def fails_over() -> None:
        async with watching(config) as watched:
            await watched.healthy()
            killed = time.monotonic()
            group.master.kill()
            await watched.until("cache", Status.CONNECTING, Reason.IDLE_CLOSED, since=killed, within=1)
            await watched.until("cache", Status.DISCONNECTED, Reason.REFUSED, since=killed, within=5)
            await watched.until("cache", Status.HEALTHY, since=killed, within=20)
            record = watched.record("cache")
            assert (record.sessions_lost, record.details["role"]) == (1, "master")
            assert record.details["master"] != old

    fails_over()


async def test_a_forced_failover_is_a_loss_when_the_old_master_becomes_a_replica(
    start: StartRedis, sentinel: StartSentinel
) -> None:
    """Sentinel takes about ten seconds to demote the old master, and then closes its connections."""
    group = start_group(start, sentinel)
    check = check_of(group.nodes)
    async with held(check) as (session, _):
        group.sentinels[0].admin("SENTINEL", "FAILOVER", MASTER)
        assert (await asyncio.wait_for(session.lost, 40)).reason is Reason.IDLE_CLOSED
    answer = await new_master(check, not_at=group.master.port)
    assert answer.reason is None


def test_a_canary_moves_the_session_to_the_new_master_without_a_loss(
    start: StartRedis, sentinel: StartSentinel
) -> None:
    """Another port of the same host is another server. The old master still answers, and is left."""
    group = start_group(start, sentinel)
    config = (
        "defaults: {interval: 200ms, canary: 200ms}\nservices:\n"
        f"  cache: {{kind: redis, sentinel: {{master: {MASTER}, nodes: {group.nodes}}}}}\n"
    )

    @on_uvloop
    async def moves() -> None:
        async with watching(config) as watched:
            await watched.healthy()
            agreeing = "connection_redis_sentinels_agreeing"
            assert await watched.sample(agreeing, name="cache") == 3
            assert await watched.sample(agreeing, name="neighbour") is None
            group.sentinels[0].admin("SENTINEL", "FAILOVER", MASTER)
            old = f"127.0.0.1:{group.master.port}"
            await watched.holds(lambda: watched.record("cache").details["master"] != old, within=30)
            assert watched.record("cache").sessions_lost == 0
            assert "name=connection-exporter " not in group.master.clients()

    moves()


async def test_a_sentinel_in_disagreement_is_outvoted(start: StartRedis, sentinel: StartSentinel) -> None:
    """Two of three are a quorum."""
    master, other = start(), start()
    nodes = [sentinel(port).node for port in (other.port, master.port, master.port)]
    async with held(check_of(nodes)) as (_, first):
        assert first.details["master"] == f"127.0.0.1:{master.port}"
        assert (first.details["sentinels_known"], first.details["sentinels_agreeing"]) == (3, 2)


async def test_without_a_quorum_there_is_no_master(start: StartRedis, sentinel: StartSentinel) -> None:
    """Which sentinel names which server is in the message."""
    master, other = start(), start()
    nodes = [sentinel(port).node for port in (master.port, other.port)]
    failure = await failure_of(check_of(nodes))
    assert failure.reason is Reason.ROLE
    assert failure.message == (
        "1 of 2 sentinels agree on the master of 'main', 2 have to: "
        f"{nodes[0]} names 127.0.0.1:{master.port}; {nodes[1]} names 127.0.0.1:{other.port}"
    )


async def test_two_of_three_sentinels_down_are_no_quorum(start: StartRedis, sentinel: StartSentinel) -> None:
    """With one of them down there still is one; the reason is that of the sentinels."""
    master = start()
    sentinels = [sentinel(master.port) for _ in range(3)]
    check = check_of([each.node for each in sentinels])
    sentinels[0].kill()
    async with held(check) as (session, first):
        assert first.details["sentinels_agreeing"] == 2
        sentinels[1].kill()
        failure = await failure_of(check)
        assert failure.reason is Reason.REFUSED
        assert failure.message.startswith("1 of 3 sentinels agree on the master of 'main', 2 have to: ")
        assert (await session.probe()).details["sentinels_agreeing"] == 1


async def test_a_sentinel_that_does_not_answer_delays_nothing(
    start: StartRedis, sentinel: StartSentinel
) -> None:
    """The others decide, long before the deadline; if none answers, the deadline names them."""
    master = start()
    sentinels = [sentinel(master.port) for _ in range(3)]
    check = check_of([each.node for each in sentinels])
    os.kill(sentinels[2].process.pid, signal.SIGSTOP)
    async with held(check, timeout=20) as (_, first):
        assert first.details["sentinels_agreeing"] == 2
    for each in sentinels[:2]:
        os.kill(each.process.pid, signal.SIGSTOP)
    failure = await failure_of(check, timeout=0.5)
    assert failure.reason is Reason.TIMEOUT
    for each in sentinels:
        assert f"{each.node} does not answer SENTINEL" in failure.message


async def test_a_replica_that_stale_sentinels_name_is_not_accepted(
    start: StartRedis, sentinel: StartSentinel
) -> None:
    """ROLE decides, and not what the sentinels say."""
    master = start()
    replica = start("--replicaof", "127.0.0.1", str(master.port))
    failure = await failure_of(check_of([sentinel(replica.port).node]))
    assert failure.reason is Reason.ROLE
    assert failure.message == f"127.0.0.1:{replica.port} is a replica, not the master"


async def test_a_master_that_becomes_a_replica_ends_the_session(
    start: StartRedis, sentinel: StartSentinel
) -> None:
    """Although its connection lasts."""
    master, other = start(), start()
    async with held(check_of([sentinel(master.port).node])) as (session, _):
        master.admin("REPLICAOF", "127.0.0.1", other.port)
        with pytest.raises(Failure) as raised:
            await session.probe()
        assert raised.value.reason is Reason.ROLE


async def test_a_user_who_must_not_call_role_is_a_bad_answer(
    start: StartRedis, sentinel: StartSentinel
) -> None:
    """It is unknown whether the server is the master; the ACL lacks one command."""
    master = start()
    master.admin("ACL", "SETUSER", "watcher", "on", ">pw", "+ping", "+info")  # the docs say: +role
    result = await attempt(check_of([sentinel(master.port).node], user="watcher", password="pw"))
    assert isinstance(result, Observation)
    assert result.reason is Reason.PERMISSION
    assert "ROLE: NOPERM" in result.message


async def test_sentinels_have_a_login_of_their_own(
    start: StartRedis, sentinel: StartSentinel, tmp_path: Path
) -> None:
    """A password, or a user of an ACL; the master's password is not sent to them."""
    master = start("--requirepass", "of-the-master")
    one = sentinel(
        master.port,
        "requirepass of-the-sentinel",
        f"sentinel auth-pass {MASTER} of-the-master",
        "user watcher on >of-the-watcher -@all +sentinel|get-master-addr-by-name",
    )
    file = tmp_path / "password"
    file.write_bytes(b"\xef\xbb\xbfof-the-sentinel\r\n")  # with a byte order mark, as Windows writes it
    result = await attempt(
        check_of([one.node], password="of-the-master", sentinel={"password_file": str(file)})
    )
    assert isinstance(result, Observation), result
    assert result.reason is None
    login = {"user": "watcher", "password": "of-the-watcher"}
    result = await attempt(check_of([one.node], password="of-the-master", sentinel=login))
    assert isinstance(result, Observation), result
    for wrong in ({}, {"password": "wrong"}, {"user": "watcher", "password": "wrong"}):
        failure = await failure_of(check_of([one.node], password="of-the-master", sentinel=wrong))
        assert failure.reason is Reason.AUTH
        assert one.node in failure.message
    failure = await failure_of(check_of([one.node], sentinel={"password_file": str(tmp_path / "none")}))
    assert failure.reason is Reason.AUTH
    assert failure.message == "sentinel.password_file cannot be read: No such file or directory"


async def test_a_master_that_the_sentinels_do_not_know_is_missing(
    start: StartRedis, sentinel: StartSentinel
) -> None:
    """The name is misspelled."""
    one = sentinel(start().port)
    failure = await failure_of(check_of([one.node], sentinel={"master": "mian"}))
    assert failure.reason is Reason.MISSING
    assert f"{one.node} monitors no master 'mian'" in failure.message


async def test_a_server_that_is_no_sentinel_is_reported(start: StartRedis) -> None:
    """The port of Redis in place of that of the sentinel, or nothing at all."""
    failure = await failure_of(check_of([f"127.0.0.1:{start().port}"]))
    assert failure.reason is Reason.QUERY
    assert "unknown command `SENTINEL`" in failure.message
    assert (await failure_of(check_of([f"127.0.0.1:{free_port()}"]))).reason is Reason.REFUSED


@pytest.mark.parametrize(
    "answer",
    [
        b"*2\r\n$4\r\n/tmp\r\n$4\r\n6379\r\n", b"*2\r\n$5\r\ncache\r\n$1\r\n0\r\n", b"*2\r\n$5\r\ncache\r\n:6379\r\n",
        b"*2\r\n$3\r\na b\r\n$4\r\n6379\r\n", b"*2\r\n$2\r\n\xff\xfe\r\n$4\r\n6379\r\n", b"*1\r\n$5\r\ncache\r\n",
        b"*0\r\n", b"+cache\r\n", b":6379\r\n", b"HTTP/1.1 400 Bad Request\r\n",
        b"*2\r\n$300\r\n" + 300 * b"a" + b"\r\n$4\r\n6379\r\n",
    ],
)  # fmt: skip
async def test_an_answer_that_is_no_address_is_not_followed(answer: bytes) -> None:
    """A socket of this machine, a port that does not exist, another type, more than a host."""
    async with serving(answering(answer)) as port:
        failure = await failure_of(check_of([f"127.0.0.1:{port}"]))
    assert failure.reason is Reason.PROTOCOL


async def test_sentinels_may_use_tls(start: StartRedis, authority: trustme.CA, ca_file: Path) -> None:
    """With options of its own: the master has none."""
    context = presenting(authority.issue_cert("127.0.0.1"))
    port = str(start().port).encode()
    named = b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port)
    async with serving(answering(named), tls=context) as at:
        node = f"127.0.0.1:{at}"
        result = await attempt(check_of([node], sentinel={"tls": {"ca_file": str(ca_file)}}))
        assert isinstance(result, Observation), result
        assert result.reason is None
        assert (await failure_of(check_of([node], sentinel={"tls": {}}))).reason is Reason.TLS


async def test_attempts_leave_no_connection_to_a_sentinel(start: StartRedis, sentinel: StartSentinel) -> None:
    """Neither those that succeed nor those that are cancelled."""
    master = start()
    sentinels = [sentinel(master.port) for _ in range(2)]
    check = check_of([each.node for each in sentinels])
    async with held(check):
        pass
    before = open_files()
    for _ in range(5):
        async with held(check):
            pass
    os.kill(sentinels[0].process.pid, signal.SIGSTOP)
    for _ in range(3):
        await failure_of(check, timeout=0.1)
    async with asyncio.timeout(10):
        while True:  # an aborted transport closes its socket in the next iteration
            await asyncio.sleep(0.02)
            if open_files() <= before:
                break
