"""Owns making services of their configs. It knows all kinds, and none of what serves or watches."""

from collections.abc import Mapping

from exporter.check import Check, Service
from exporter.config.kinds import find_kind
from exporter.config.service import ServiceConfig
from exporter.net import Network


def build(services: Mapping[str, ServiceConfig], network: Network) -> list[Service]:
    """Make the services of a config: each with the check of its kind, whose driver is imported only now."""
    return [_service(name, config, network) for name, config in services.items()]


def _service(name: str, config: ServiceConfig, network: Network) -> Service:
    check: Check = check_class(config.kind)(config, network)
    return Service(name, config.kind, check, config.policy)


def check_class(name: str) -> type:
    """Return the class of a kind's checks; its driver is imported now, which takes up to 0.1 s."""
    kind = find_kind(name)
    assert kind is not None, "the config was checked against the same map"
    return kind.load()
