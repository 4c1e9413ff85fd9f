"""Kind redis as a node of a Redis Cluster: a real cluster, and what nodes answer."""

import asyncio

import pytest
from connection_exporter.core.health import Reason
from connection_exporter.kind import Observation
from support.attempts import attempt, held
from support.redis_groups import start_cluster
from support.redis_servers import StartRedis, answer_of, answering, check_of, run_redis
from support.streams import serving

start = pytest.fixture(run_redis)


async def test_the_state_of_the_cluster_decides(start: StartRedis) -> None:
    """Good while all slots are served; bad after one of three masters was killed; good when it is back."""
    nodes = start_cluster(start)
    async with held(check_of(nodes[0].port, cluster=True)) as (session, first):
        assert first.reason is None
        known = {key: value for key, value in first.details.items() if key.startswith("cluster_")}
        assert known == {
            "cluster_state": "ok", "cluster_ok": True, "cluster_slots_ok": 16384, "cluster_slots_fail": 0,
            "cluster_known_nodes": 3, "cluster_size": 3,
        }  # fmt: skip
        nodes[2].kill()
        bad = await answer_of(session, good=False)
        assert bad.reason is Reason.QUERY
        assert bad.details["cluster_ok"] is False
        async with asyncio.timeout(20):
            while bad.details["cluster_slots_fail"] == 0:  # at first it only suspects the node
                await asyncio.sleep(0.02)
                bad = await session.probe()
        assert (
            bad.message
            == "the state of the cluster is fail: 10922 of 16384 slots are served, 3 nodes are known"
        )
        assert bad.details["cluster_slots_fail"] == 5462
        nodes[2].restart("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
        assert (await answer_of(session, good=True)).details["cluster_ok"] is True


async def test_a_node_with_slots_that_nobody_serves_is_bad(start: StartRedis) -> None:
    """A new node knows only itself, and PING does not say so."""
    node = start("--cluster-enabled", "yes")
    result = await attempt(check_of(node.port, cluster=True))
    assert isinstance(result, Observation)
    assert result.reason is Reason.QUERY
    assert (
        result.message == "the state of the cluster is fail: 0 of 16384 slots are served, 1 nodes are known"
    )
    plain = await attempt(check_of(node.port))
    assert isinstance(plain, Observation)
    assert plain.reason is None


async def test_a_server_without_cluster_support_says_so(start: StartRedis) -> None:
    """With the fix."""
    result = await attempt(check_of(start().port, cluster=True))
    assert isinstance(result, Observation)
    assert result.reason is Reason.QUERY
    assert result.message == (
        "CLUSTER INFO: ERR This instance has cluster support disabled: remove `cluster: true`"
    )


async def test_a_user_who_must_not_call_cluster_info_is_a_bad_answer(start: StartRedis) -> None:
    """Without it the state is unknown; one command of the ACL is enough."""
    [node] = start_cluster(start, masters=1)
    node.admin("ACL", "SETUSER", "watcher", "on", ">pw", "+ping", "+info")
    login = {"cluster": True, "user": "watcher", "password": "pw"}
    result = await attempt(check_of(node.port, **login))
    assert isinstance(result, Observation)
    assert result.reason is Reason.PERMISSION
    node.admin("ACL", "SETUSER", "watcher", "+cluster|info")
    result = await attempt(check_of(node.port, **login))
    assert isinstance(result, Observation)
    assert result.reason is None


CLUSTER_INFO = b"$18\r\ncluster_state:ok\r\n\r\n"


@pytest.mark.parametrize("redirect", [b"-MOVED 3999 127.0.0.1:6381\r\n", b"-ASK 3999 127.0.0.1:6381\r\n"])
async def test_a_redirection_is_a_fault_only_without_cluster(redirect: bytes) -> None:
    """It is the answer of a node that is alive; without `cluster: true` the message says to write it."""
    async with serving(answering(b"+OK\r\n" + redirect + CLUSTER_INFO)) as port:
        result = await attempt(check_of(port, cluster=True, depth=False))
        assert isinstance(result, Observation)
        assert result.reason is None
    async with serving(answering(b"+OK\r\n" + redirect)) as port:
        result = await attempt(check_of(port, depth=False))
        assert isinstance(result, Observation)
        assert result.reason is Reason.REDIRECT
        assert result.message == (
            f"{redirect[1:-2].decode()}: this is a node of a Redis Cluster: write `cluster: true`"
        )


async def test_a_state_without_numbers_is_enough() -> None:
    """A server of another make may report less."""
    async with serving(answering(b"+OK\r\n+PONG\r\n$20\r\ncluster_state:fail\r\n\r\n")) as port:
        result = await attempt(check_of(port, cluster=True, depth=False))
    assert isinstance(result, Observation)
    assert result.reason is Reason.QUERY
    assert (
        result.message == "the state of the cluster is fail: ? of 16384 slots are served, ? nodes are known"
    )


@pytest.mark.parametrize("info", [b"$0\r\n\r\n", b"$-1\r\n", b":1\r\n", b"*0\r\n", b"$8\r\ncluster_\r\n"])
async def test_an_answer_without_a_state_is_bad(info: bytes) -> None:
    """Whatever it is."""
    async with serving(answering(b"+OK\r\n+PONG\r\n" + info)) as port:
        result = await attempt(check_of(port, cluster=True, depth=False))
    assert isinstance(result, Observation)
    assert result.reason is Reason.PROTOCOL
