"""Decides which services of a config this exporter monitors if several exporters share it. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final

from connection_exporter.config.load import Config

_SHARD: Final = re.compile(r"(?:(?P<index>\d{1,6})/)?(?P<total>\d{1,6})", re.ASCII)
_ORDINAL: Final = r"(?a)-(\d{1,6})$"
_EXAMPLE: Final = "write --shard=K/N with K from 0 to N-1, such as --shard=0/3"


@dataclass(frozen=True, slots=True)
class Shard:
    """Number ``index`` of ``total`` exporters, counted from 0 as the pods of a StatefulSet are."""

    index: int = 0
    total: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.total}"

    def share_of(self, config: Config) -> Config:
        """Return ``config`` with the services of this shard, and without their dependencies in other shards."""
        if self.total == 1:
            return config
        mine = {
            name: service
            for name, service in config.services.items()
            if owner(name, self.total) == self.index
        }
        for name, service in mine.items():
            if any(dependency not in mine for dependency in service.depends_on):
                kept = [dependency for dependency in service.depends_on if dependency in mine]
                mine[name] = service.model_copy(update={"depends_on": kept})
        return replace(config, services=mine, notes=(*config.notes, *self._notes(config)))

    def _notes(self, config: Config) -> Iterator[str]:
        owners = {name: owner(name, self.total) for name in config.services}
        if self.index not in owners.values():
            yield f"shard {self} has no services: use fewer shards"
        for name, service in config.services.items():
            for dependency in service.depends_on if owners[name] == self.index else ():
                if owners[dependency] != self.index:
                    other = Shard(owners[dependency], self.total)
                    yield f"{name}: depends_on {dependency} has no effect: it is monitored by shard {other}"


WHOLE: Final = Shard()
"""The only exporter, which monitors everything."""


def parse_shard(text: str, host_name: str) -> Shard:
    """Read ``K/N``, or ``N`` alone in a pod of a StatefulSet, whose ``host_name`` ends in its ordinal.

    Raises ValueError.
    """
    if (match := _SHARD.fullmatch(text)) is None:
        raise ValueError(f"{text[:40]!r} is not a shard: {_EXAMPLE}")
    total = int(match["total"])
    if match["index"] is not None:
        index = int(match["index"])
    elif (ordinal := re.search(_ORDINAL, host_name.partition(".")[0])) is not None:
        index = int(ordinal[1])
    elif total == 1:
        index = 0
    else:
        raise ValueError(
            f"the host name {host_name!r} does not end in a number, as a StatefulSet's do: {_EXAMPLE}"
        )
    if index >= total:
        raise ValueError(f"shard {index} of {total} does not exist: {_EXAMPLE}")
    return Shard(index, total)


def owner(name: str, total: int) -> int:
    """Return the shard, from 0 to ``total`` - 1, that monitors the service ``name``.

    Rendezvous hashing (Thaler and Ravishankar, 1998): the shard with the highest hash of itself and the name. One more
    shard takes over 1/N of the services and leaves all others where they are. The hash may never change, because
    exporters of two versions run side by side during an upgrade.
    """
    return max(
        range(total), key=lambda index: blake2b(b"%d/%b" % (index, name.encode()), digest_size=8).digest()
    )
