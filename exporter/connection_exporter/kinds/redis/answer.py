"""Owns what the replies to one probe mean together: a good answer, a bad one, or the end of the session."""

from collections.abc import Mapping
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Json, Observation
from connection_exporter.kinds.redis.cluster import cluster_details, cluster_fault
from connection_exporter.kinds.redis.config import RedisConfig
from connection_exporter.kinds.redis.connection import shown
from connection_exporter.kinds.redis.info import details_of, fault_of, read_fields
from connection_exporter.kinds.redis.protocol import Refusal, Reply

_REDIRECTIONS: Final = ("MOVED ", "ASK ")
"""What a node of a cluster answers when another node has the slot: it is alive."""

_SET_CLUSTER: Final = "this is a node of a Redis Cluster: write `cluster: true`"


def commands_of(config: RedisConfig) -> dict[str, tuple[str, ...]]:
    """Return the commands of a probe under the names by which `judge` knows their replies."""
    commands: dict[str, tuple[str, ...]] = {"ping": ("PING",)}
    if config.depth:
        commands["info"] = ("INFO",)
    if config.cluster:
        commands["cluster"] = ("CLUSTER", "INFO")
    if config.sentinel is not None:
        commands["role"] = ("ROLE",)
    return commands


def judge(
    config: RedisConfig, where: str, replies: Mapping[str, Reply], link: Mapping[str, Json]
) -> Observation:
    """Return what ``replies`` mean. ``link`` are the details that do not depend on them.

    Raises `Failure` for what is not Redis, and for a server that is not the master although the sentinels named it.
    """
    pong, info = replies["ping"], replies.get("info")
    fields = read_fields(info) if isinstance(info, bytes) else {}
    details = dict(link)
    if config.depth:
        details.update(details_of(fields))
        details["info_error"] = info.line if isinstance(info, Refusal) else None
    if config.cluster:
        details.update(cluster_details(replies["cluster"]))
    fault = _role_fault(where, replies["role"]) if config.sentinel is not None else None
    if isinstance(pong, Refusal):
        if not (config.cluster and pong.line.startswith(_REDIRECTIONS)):
            return Observation(pong.reason, _explained(pong, fields), details)
    elif pong != b"PONG":
        raise Failure(Reason.PROTOCOL, f"{where} answers PING with {shown(pong)}")
    if fault is None and config.cluster:
        fault = cluster_fault(replies["cluster"], details)
    fault = fault or fault_of(config.expect, fields, details)
    return Observation(*fault, details) if fault else Observation(details=details)


def _role_fault(where: str, reply: Reply) -> tuple[Reason, str] | None:
    """Return why ROLE was refused, or ``None`` for a master. Raises `Failure` (role) for any other server.

    https://redis.io/docs/latest/commands/role/
    """
    if isinstance(reply, Refusal):
        return reply.reason, f"whether the server is the master is unknown: ROLE: {reply.line}"
    role = reply[0] if isinstance(reply, list) and reply else reply
    if role == b"master":
        return None
    what = "a replica" if role == b"slave" else shown(role if isinstance(role, bytes) else reply)
    raise Failure(Reason.ROLE, f"{where} is {what}, not the master")


def _explained(pong: Refusal, fields: Mapping[str, str]) -> str:
    """Return an error reply to PING, with a hint or with how much of the data is loaded."""
    if pong.line.startswith(_REDIRECTIONS):
        return f"{pong.line}: {_SET_CLUSTER}"
    loaded = fields.get("loading_loaded_perc") if fields.get("loading") == "1" else None
    return f"{pong.line} ({loaded} % loaded)" if loaded else pong.line
