"""Builds the services of a config; a check that cannot be made becomes one that reports why, at each attempt.

A plug-in's constructor or properties may raise anything, SystemExit included. That concerns its own service only.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

from connection_exporter.config.service import ServiceConfig
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Metric, Service, Session, Traits
from connection_exporter.kinds.registry import build, check_class
from connection_exporter.monitor.attempt import origin
from connection_exporter.net import Network
from connection_exporter.system.log import get_logger

_TRAITS: Final = Traits(frozenset({Reason.INTERNAL, Reason.STALE}))
log = get_logger(__name__)


def import_kinds(services: Iterable[ServiceConfig]) -> None:
    """Import the drivers of these services, which takes up to 0.1 s each. Errors are left to `build_services`."""
    for service in services:
        with suppress(BaseException):
            check_class(service.kind)


def build_services(services: Mapping[str, ServiceConfig], network: Network) -> list[Service]:
    """Build each service with the check of its kind. Never raises."""
    return [_build_service(name, config, network) for name, config in services.items()]


def _build_service(name: str, config: ServiceConfig, network: Network) -> Service:
    try:
        (service,) = build({name: config}, network)
        traits, address = service.traits, service.address
        if not isinstance(traits, Traits) or not all(isinstance(metric, Metric) for metric in traits.metrics):
            raise TypeError("the traits of a check are not Traits, or their metrics not Metric")
        if not isinstance(address, str):
            raise TypeError(f"the address of a check is {type(address).__name__}, not str")
    except BaseException as error:
        log.error("check_not_made", name=name, kind=config.kind, exc_info=error)
        check = _Broken(f"the check cannot be made: {origin(error)}")
        return Service(name, config.kind, check, config.policy, about=config.about)
    return service


class _Broken:
    """A check in place of one that cannot be made."""

    traits = _TRAITS
    address = "-"

    def __init__(self, message: str) -> None:
        self._message = message

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """Report the problem."""
        raise Failure(Reason.INTERNAL, self._message)
        yield  # makes this function a generator
