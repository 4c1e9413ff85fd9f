"""Looks for a service that is absent, if its check can see it without an attempt."""

from math import inf

from connection_exporter.kind import LooksOut, Service
from connection_exporter.monitor.attempt import raise_if_cancelled
from connection_exporter.system.log import get_logger

log = get_logger(__name__)


async def look_out(service: Service, check: LooksOut | None) -> tuple[bool, float]:
    """Return whether the service can be seen, and the seconds until the next look. An error of the check is logged."""
    if check is None:
        return False, inf
    try:
        return await check.present(), check.look_every
    except BaseException as error:
        raise_if_cancelled()
        log.error("lookout_crashed", name=service.name, kind=service.kind, exc_info=error)
        return False, inf
