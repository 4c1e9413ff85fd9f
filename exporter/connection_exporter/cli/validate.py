"""The command ``validate``: prints the detection bounds of a valid config, and warnings."""

import os
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from connection_exporter.config import Config
from connection_exporter.config.durations import format_duration
from connection_exporter.core.retry import Fault
from connection_exporter.kinds.registry import build, outlook
from connection_exporter.system.descriptors import files_missing
from connection_exporter.system.waiting import wait_for_thread

if TYPE_CHECKING:
    from connection_exporter.config.alerting import AlertingConfig
    from connection_exporter.config.service import ServiceConfig
    from connection_exporter.kind import LooksOut

_LOOK_WITHIN: Final = 0.25
"""Seconds for a look at a pidfile, which may be on a mount that does not respond."""

_DEEPEST: Final = 40
"""Levels of the tree that are indented."""

_Outlook = tuple[str, Mapping[Fault, float]]
"""The address of a service, and the seconds within which each fault is noticed."""


def validate(config: Config, listen: Sequence[str], *, notes: Sequence[str] = ()) -> int:
    """Print each service's detection bounds, every warning and the ``notes`` on the web config; return 0."""
    services = config.services
    outlooks = {name: outlook(name, service) for name, service in services.items()}
    for line in (*_table(services, outlooks), *_tree(services)):
        print(line)
    warnings = [
        *config.notes,
        *(f"{name}: {warning}" for name, service in services.items() for warning in service.warnings),
        *_warnings_of_services(services, outlooks, listen),
        *_warnings_of_alerting(config.alerting),
        *notes,
    ]
    for warning in warnings:
        print(f"warning: {warning}")
    for path in config.files:
        print(f"included: {path}")
    found = f", {_count(len(warnings), 'warning')}" if warnings else ""
    print(f"{config.source}: {_count(len(services), 'service')}, valid{found}")
    return 0


def _warnings_of_services(
    services: "Mapping[str, ServiceConfig]", outlooks: Mapping[str, _Outlook], listen: Sequence[str]
) -> Iterator[str]:
    """Yield a warning for each valid setting that will not work as expected."""
    own_ports = {address.rpartition(":")[2] for address in listen}
    for name, service in services.items():
        address, _ = outlooks[name]
        host, _, port = address.rpartition(":")
        if port in own_ports and host in ("localhost", "127.0.0.1", "[::1]", "0.0.0.0"):  # noqa: S104
            yield f"{name}: {address} is the exporter's own listener: it would monitor itself"
        slow, limit = service.max_latency, service.timeout
        if slow is not None and slow >= limit:
            yield (
                f"{name}: max_latency {format_duration(slow)} is not below timeout "
                f"{format_duration(limit)}: no answer would ever be slow"
            )
        if service.kind == "process" and _in_container() and not _is_visible(name, service):
            yield (
                f"{name}: inside a container only its own processes can be seen: share the process "
                'namespace (pid: "service:…" in compose, shareProcessNamespace in Kubernetes)'
            )
    if (missing := files_missing(len(services))) is not None:
        yield missing


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _warnings_of_alerting(alerting: "AlertingConfig | None") -> Iterator[str]:
    if alerting is None:
        return
    if alerting.external_url is None:
        yield "alerting: external_url is missing: links in alerts will not lead here, and `instance` is the host's name"
    elif _is_loopback(alerting.external_url):
        yield "alerting: external_url leads to the reader's own machine: write the address of this one"
    if any(url.startswith("http:") for url in alerting.alertmanagers) and (
        alerting.user or alerting.user_file or alerting.bearer_token or alerting.bearer_token_file
    ):
        yield "alerting: the credentials are sent to an Alertmanager without TLS: use https://"


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _is_visible(name: str, service: "ServiceConfig") -> bool:
    """Return whether the process is visible now, for example in a shared process namespace."""
    pidfile = getattr(service, "pidfile", None)
    if pidfile is not None and not _exists(pidfile):
        return False
    import asyncio  # noqa: PLC0415 - 60 ms with the check: in a container, and only where there may be a process

    from connection_exporter.kind import LooksOut  # noqa: PLC0415 - as above
    from connection_exporter.net import Network  # noqa: PLC0415 - as above

    (built,) = build({name: service}, Network())
    return isinstance(built.check, LooksOut) and asyncio.run(_present(built.check))


def _exists(pidfile: Path) -> bool:
    try:
        return wait_for_thread(pidfile.exists, name="look for pidfile", within=_LOOK_WITHIN)
    except (OSError, ValueError):  # a TimeoutError is an OSError
        return False


async def _present(check: "LooksOut") -> bool:
    return await check.present()


def _in_container() -> bool:
    marks = (Path("/.dockerenv"), Path("/run/.containerenv"))
    return any(mark.exists() for mark in marks) or "KUBERNETES_SERVICE_HOST" in os.environ


def _tree(services: "Mapping[str, ServiceConfig]") -> Iterator[str]:
    """Yield each service that has dependencies, with its dependencies below it, but no tree twice."""
    direct = {name: service.depends_on for name, service in services.items()}
    if not any(direct.values()):
        return
    yield "Depends on (no alert starts for a service while something below it fails):"
    needed = {name for names in direct.values() for name in names}
    shown: set[str] = set()
    for root, below in direct.items():
        waiting = [(root, 0)] if root not in needed and below else []
        while waiting:
            name, depth = waiting.pop()
            repeated = name in shown and direct[name]
            yield f"{'  ' * min(depth, _DEEPEST)}{name}{' (as above)' if repeated else ''}"
            if name not in shown:
                waiting += [(dependency, depth + 1) for dependency in reversed(direct[name])]
            shown.add(name)
    yield ""


def _table(services: "Mapping[str, ServiceConfig]", outlooks: Mapping[str, _Outlook]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("SERVICE", "KIND", "ADDRESS", "CLOSED", "VANISHED", "FROZEN")]
    for name, service in services.items():
        address, bounds = outlooks[name]
        shown = [format_duration(bounds[fault]) if fault in bounds else "-" for fault in Fault]
        rows.append((name, service.kind, address, *shown))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    yield "Noticed within (closed: FIN, RST or exit; vanished: no packets; frozen: connected, but silent):"
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
