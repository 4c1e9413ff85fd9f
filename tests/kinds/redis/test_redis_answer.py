"""What the replies to a probe mean together, whatever a server sends in their place."""

import json

from connection_exporter.kind import Failure, Observation
from connection_exporter.kinds.redis.answer import commands_of, judge
from connection_exporter.kinds.redis.check import RedisCheck
from connection_exporter.kinds.redis.config import RedisConfig
from connection_exporter.kinds.redis.protocol import Reply, refusal_of
from connection_exporter.monitor.details import clean
from hypothesis import given
from hypothesis import strategies as st

TEXTS = st.sampled_from(
    [
        b"PONG", b"master", b"slave", b"role:master\r\n", b"# Server\r\nrole:slave\r\nused_memory:x\r\nmaxmemory:9\r\n",
        b"cluster_state:ok\r\ncluster_slots_ok:9\r\n", b"cluster_state:fail\r\ncluster_size:-1\r\n",
        b"cluster_state:\xff",
    ]
) | st.binary(max_size=20)  # fmt: skip
REFUSALS = st.sampled_from(
    ["MOVED 1 a:1", "ASK 1 a:1", "LOADING x", "NOPERM x", "ERR unknown command", "", " ", "CLUSTERDOWN x"]
).map(refusal_of)
REPLIES: st.SearchStrategy[Reply] = st.recursive(
    TEXTS | REFUSALS | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
SENTINEL = {"master": "main", "nodes": ["a"]}
GIVEN: list[dict[str, object]] = [
    {},
    {"depth": False},
    {"cluster": True},
    {"cluster": True, "depth": False},
    {"sentinel": SENTINEL},
]
CONFIGS = st.sampled_from(GIVEN).map(lambda given: RedisConfig.model_validate({"kind": "redis", **given}))


@given(st.data(), CONFIGS)
def test_any_replies_are_an_answer_or_a_failure(data: st.DataObject, config: RedisConfig) -> None:
    """With a reason that the kind declares, and details that can be shown."""
    replies = {name: data.draw(REPLIES) for name in commands_of(config)}
    result: Observation | Failure
    try:
        result = judge(config, "cache:6379", replies, {})
    except Failure as failure:
        result = failure
    assert result.reason is None or result.reason in RedisCheck.traits.reasons
    if isinstance(result, Observation):
        json.dumps(clean(result.details, str, keep=frozenset()), allow_nan=False)


def test_numbers_that_details_cannot_hold_are_left_out() -> None:
    """They must not look like a bug of ours: the server is alive, and answers."""
    info = b"\r\n".join([b"# Memory", b"used_memory:" + b"9" * 19, b"maxmemory:" + b"9" * 20, b""])
    cluster = b"cluster_state:ok\r\ncluster_known_nodes:" + b"9" * 100 + b"\r\n"
    replies: dict[str, Reply] = {"ping": b"PONG", "info": info, "cluster": cluster}
    config = RedisConfig.model_validate({"kind": "redis", "cluster": True})
    answer = judge(config, "cache:6379", replies, {})
    assert answer.reason is None
    shown = clean(answer.details, str, keep=frozenset())
    assert shown["memory_used_bytes"] == 10**19 - 1
    assert shown["memory_max_bytes"] is None
    assert shown["cluster_known_nodes"] is None
