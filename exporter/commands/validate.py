"""Owns ``connection-exporter validate``: what a config will do, and what in it will not work here."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from exporter.bounds import Fault, detection_bounds
from exporter.building import build
from exporter.check import Service
from exporter.config import Config
from exporter.config.durations import format_duration
from exporter.net import Network
from exporter.room import files_missing


def validate(config: Config, listen: Sequence[str], *, notes: Sequence[str] = ()) -> int:
    """Print each service's detection bounds, every warning and the ``notes`` on the web config; return 0."""
    services = build(config.services, Network())
    for line in _table(services):
        print(line)
    warnings = [*warnings_of(services, listen), *notes]
    for warning in warnings:
        print(f"warning: {warning}")
    count = f"{len(services)} service{'s' if len(services) != 1 else ''}"
    print(f"{config.source}: {count}, valid" + (f", {len(warnings)} warning(s)" if warnings else ""))
    return 0


def warnings_of(services: Sequence[Service], listen: Sequence[str]) -> Iterator[str]:
    """Yield what is valid and yet will not work as one would expect."""
    own_ports = {address.rpartition(":")[2] for address in listen}
    for service in services:
        host, _, port = service.check.address.rpartition(":")
        if port in own_ports and host in ("localhost", "127.0.0.1", "[::1]", "0.0.0.0"):  # noqa: S104
            yield f"{service.name}: {service.check.address} is the exporter's own listener: it would watch itself"
        slow, limit = service.policy.max_latency, service.policy.timeout
        if slow is not None and slow >= limit:
            yield (
                f"{service.name}: max_latency {format_duration(slow)} is not below timeout "
                f"{format_duration(limit)}: no answer would ever be slow"
            )
        if service.kind == "process" and _in_container():
            yield (
                f"{service.name}: inside a container only its own processes can be seen: share the process "
                'namespace (pid: "service:…" in compose, shareProcessNamespace in Kubernetes)'
            )
    if (missing := files_missing(len(services))) is not None:
        yield missing


def _in_container() -> bool:
    marks = (Path("/.dockerenv"), Path("/run/.containerenv"))
    return any(mark.exists() for mark in marks) or "KUBERNETES_SERVICE_HOST" in os.environ


def _table(services: Sequence[Service]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("SERVICE", "KIND", "ADDRESS", "CLOSED", "VANISHED", "FROZEN")]
    for service in services:
        bounds = detection_bounds(service.policy, service.check.traits)
        shown = [format_duration(bounds[fault]) if fault in bounds else "-" for fault in Fault]
        rows.append((service.name, service.kind, service.check.address, *shown))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    yield "Noticed within (closed: FIN, RST or exit; vanished: no packets; frozen: connected, but silent):"
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
