"""Owns what is different between two configs, service by service. Pure."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from connection_exporter.config.service import ServiceConfig


class Changes(NamedTuple):
    """The names of the services that a new config adds, changes, removes and leaves as they are."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()


def reconnecting(
    changed: Iterable[str], old: Mapping[str, ServiceConfig], new: Mapping[str, ServiceConfig]
) -> list[str]:
    """Return the changed services that need another session: more than their description or dependencies changed."""
    return [name for name in changed if old[name].without_about() != new[name].without_about()]


def compare(old: Mapping[str, object], new: Mapping[str, object]) -> Changes:
    """Compare the services of two configs by value, each list in the order of its config."""
    both = [name for name in new if name in old]
    return Changes(
        added=tuple(name for name in new if name not in old),
        changed=tuple(name for name in both if new[name] != old[name]),
        removed=tuple(name for name in old if name not in new),
        unchanged=tuple(name for name in both if new[name] == old[name]),
    )
