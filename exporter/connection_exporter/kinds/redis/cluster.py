"""Owns what CLUSTER INFO says about a Redis Cluster, as one of its nodes sees it.

https://redis.io/docs/latest/commands/cluster-info/
"""

from collections.abc import Mapping
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Json
from connection_exporter.kinds.redis.info import natural, read_fields, wanted_keys
from connection_exporter.kinds.redis.protocol import Refusal, Reply

_SLOTS: Final = 16384
"""Hash slots of a cluster."""

_NUMBERS: Final = ("cluster_slots_ok", "cluster_slots_fail", "cluster_known_nodes", "cluster_size")
_WANTED: Final = wanted_keys("cluster_state", *_NUMBERS)


def cluster_details(reply: Reply) -> dict[str, Json]:
    """Return the details that the reply to CLUSTER INFO gives; ``None`` for each that is not in it."""
    fields = read_fields(b"\n" + reply, _WANTED) if isinstance(reply, bytes) else {}
    state = fields.get("cluster_state")
    return {
        "cluster_state": state,
        "cluster_ok": state == "ok" if state is not None else None,
        **{key: natural(fields.get(key)) for key in _NUMBERS},
    }


def cluster_fault(reply: Reply, details: Mapping[str, Json]) -> tuple[Reason, str] | None:
    """Return what is wrong with the cluster, or ``None``."""
    if isinstance(reply, Refusal):
        hint = ": remove `cluster: true`" if "cluster support disabled" in reply.line else ""
        return reply.reason, f"CLUSTER INFO: {reply.line}{hint}"
    if details["cluster_state"] is None:
        return Reason.PROTOCOL, "the reply to CLUSTER INFO does not contain the state of the cluster"
    if not details["cluster_ok"]:
        served, known = (details[key] if details[key] is not None else "?" for key in _NUMBERS[::2])
        state = f"the state of the cluster is {details['cluster_state']}"
        return Reason.QUERY, f"{state}: {served} of {_SLOTS} slots are served, {known} nodes are known"
    return None
