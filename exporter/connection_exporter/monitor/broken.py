"""Builds the services of a config; a check that cannot be made becomes one that reports why, at each attempt.

A plug-in's constructor or properties may raise anything, SystemExit included. That concerns its own service only.
"""

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from math import inf
from typing import Final

from connection_exporter.config.service import ServiceConfig
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Metric, MetricType, Service, Session, Traits
from connection_exporter.kinds.registry import build, check_class
from connection_exporter.monitor.attempt import origin
from connection_exporter.net import Network
from connection_exporter.system.log import get_logger

_METRIC_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
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
        _require_valid(service)
    except BaseException as error:
        log.error("check_not_made", name=name, kind=config.kind, exc_info=error)
        check = _Broken(f"the check cannot be made: {origin(error)}")
        return Service(name, config.kind, check, config.policy, about=config.about)
    return service


def _require_valid(service: Service) -> None:
    """Raise TypeError or ValueError for what a check says of itself and the monitor or /metrics cannot use."""
    traits, address = service.traits, service.address
    if not isinstance(traits, Traits) or not isinstance(traits.metrics, tuple):
        raise TypeError("the traits of a check are not Traits, or their metrics not a tuple")
    for metric in traits.metrics:
        _require_valid_metric(metric)
    if not isinstance(address, str):
        raise TypeError(f"the address of a check is {type(address).__name__}, not str")
    address.encode()  # raises UnicodeEncodeError, as every scrape would
    for what, seconds in (("look_every", service.look_every), ("notices_after()", service.notices_after)):
        if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
            raise TypeError(f"{what} of a check is {type(seconds).__name__}, not a positive number")


def _require_valid_metric(metric: object) -> None:
    if not isinstance(metric, Metric):
        raise TypeError(f"a metric of a check is {type(metric).__name__}, not Metric")
    texts = (metric.name, metric.help, metric.source)
    if not isinstance(metric.type, MetricType) or not all(isinstance(text, str) for text in texts):
        raise TypeError("the type of a Metric is not MetricType, or its name, help or source not str")
    "".join(texts).encode()
    is_counter = metric.type is MetricType.COUNTER
    if not _METRIC_NAME.fullmatch(metric.name) or (is_counter and not metric.name.endswith("_total")):
        raise ValueError("the name of a Metric is not one that Prometheus accepts")
    if not all(lower < upper for lower, upper in pairwise((-inf, *metric.buckets, inf))):
        raise ValueError("the buckets of a Metric do not ascend")


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
