"""Looks for a service that is absent, if its check can see it without an attempt."""

from math import inf
from typing import TYPE_CHECKING, cast

from connection_exporter.kind import Service
from connection_exporter.monitor.attempt import raise_if_cancelled
from connection_exporter.system.log import get_logger

if TYPE_CHECKING:
    from connection_exporter.kind import LooksOut

log = get_logger(__name__)


async def look_out(service: Service) -> tuple[bool, float]:
    """Return whether the service can be seen, and the seconds until the next look. An error of the check is logged."""
    if service.look_every is None:
        return False, inf
    try:
        return await cast("LooksOut", service.check).present(), service.look_every
    except BaseException as error:
        raise_if_cancelled()
        log.error("lookout_crashed", name=service.name, kind=service.kind, exc_info=error)
        return False, inf
