"""Owns what INFO says about a server: the details that are published, and whether they are as expected.

https://redis.io/docs/latest/commands/info/
"""

from collections.abc import Mapping
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Json
from connection_exporter.kinds.redis.config import RedisExpect

_LONGEST_VALUE: Final = 100
"""Bytes. Values are shown in JSON, and Python refuses to convert numbers of thousands of digits."""

_SEARCHED: Final = 64 * 1024
"""Bytes of INFO that are searched. Our fields come in the first 6 KB; what grows with the data comes last."""

Wanted = tuple[tuple[str, bytes], ...]
"""Keys, each with how its line begins."""


def wanted_keys(*keys: str) -> Wanted:
    """Return what `read_fields` searches for."""
    return tuple((key, f"\n{key}:".encode()) for key in keys)


_WANTED: Final = wanted_keys(
    "redis_version",
    "valkey_version",
    "connected_clients",
    "maxclients",
    "used_memory",
    "maxmemory",
    "maxmemory_policy",
    "mem_not_counted_for_evict",
    "loading",
    "loading_loaded_perc",
    "rdb_last_bgsave_status",
    "aof_last_write_status",
    "role",
    "connected_slaves",
    "master_link_status",
    "master_link_down_since_seconds",
)


def read_fields(info: bytes, wanted: Wanted = _WANTED) -> dict[str, str]:
    """Return the ``wanted`` fields of INFO or CLUSTER INFO. Lines are ``key:value``, and each ends with CR LF."""
    fields = {}
    for key, beginning in wanted:  # a third cheaper than to split all of its 170 lines
        at = info.find(beginning, 0, _SEARCHED)
        if at >= 0:
            at += len(beginning)
            value = info[at : at + _LONGEST_VALUE].partition(b"\r")[0]
            fields[key] = value.decode("utf-8", "replace")
    return fields


def number_in(fields: Mapping[str, str], key: str) -> int | None:
    """Return the natural number that a field is, or ``None``."""
    value = fields.get(key, "")
    return int(value) if value.isascii() and value.isdigit() else None


def details_of(fields: Mapping[str, str]) -> dict[str, Json]:
    """Return the details that ``fields`` give; ``None`` for each that the server does not report."""
    role = fields.get("role")
    link = fields.get("master_link_status")
    return {
        "server_version": fields.get("valkey_version") or fields.get("redis_version"),
        "role": "replica" if role == "slave" else role,
        "replica": role == "slave" if role else None,
        "master_link_up": link == "up" if link else None,
        "connected_replicas": number_in(fields, "connected_slaves"),
        "memory_used_bytes": number_in(fields, "used_memory"),
        "memory_max_bytes": number_in(fields, "maxmemory") or None,
        "memory_policy": fields.get("maxmemory_policy"),
        "memory_full": _memory_full(fields),
        "connected_clients": number_in(fields, "connected_clients"),
        "max_clients": number_in(fields, "maxclients"),
        "rdb_last_save_ok": _ok(fields, "rdb_last_bgsave_status"),
        "aof_last_write_ok": _ok(fields, "aof_last_write_status"),
        "loading": fields["loading"] == "1" if "loading" in fields else None,
    }


def fault_of(
    expect: RedisExpect, fields: Mapping[str, str], details: Mapping[str, Json]
) -> tuple[Reason, str] | None:
    """Return the most important fault of a server that answers PING, or ``None``."""
    if (expect.role or expect.master_link_up) and "role" not in fields:
        why = details.get("info_error") or "INFO does not contain it"
        return Reason.PERMISSION, f"the role is unknown: {why}"
    if expect.role is not None and details["role"] != expect.role:
        return Reason.ROLE, f"the server is a {details['role']}, not a {expect.role}"
    if expect.master_link_up and details["master_link_up"] is False:
        since = fields.get("master_link_down_since_seconds", "?")
        return Reason.ROLE, f"the replica has lost its master (for {since} s)"
    if details.get("memory_full"):
        used, limit = fields["used_memory"], fields["maxmemory"]
        return Reason.QUERY, f"the memory is full ({used} of {limit} bytes, noeviction): writes are refused"
    return None


def _ok(fields: Mapping[str, str], key: str) -> bool | None:
    return fields[key] == "ok" if key in fields else None


def _memory_full(fields: Mapping[str, str]) -> bool | None:
    """Return whether Redis refuses writes because its memory is full, by its own rule (evict.c, getMaxmemoryState).

    A replica is never full, since it accepts what its master sends. Nor is a server that evicts keys: its memory is
    always about full.
    """
    used, limit = number_in(fields, "used_memory"), number_in(fields, "maxmemory")
    if used is None or limit is None:
        return None
    counted = used - (number_in(fields, "mem_not_counted_for_evict") or 0)
    return (
        fields.get("role") == "master"
        and fields.get("maxmemory_policy") == "noeviction"
        and 0 < limit < counted
    )
