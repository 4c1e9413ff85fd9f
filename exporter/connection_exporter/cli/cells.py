"""Words for what is known of a service, the same in plain text and in what rich draws."""

from collections.abc import Mapping
from typing import Any

from connection_exporter.monitor.details import printable


def why(of: Mapping[str, Any]) -> str:
    """Return the causes, the reason and the message of a service or of a transition, as far as it has them."""
    told = ": ".join(str(of[key]) for key in ("reason", "message") if of[key])
    causes = of.get("causes")  # a transition has no causes, nor does a service of an older exporter
    return printable(f"because of {', '.join(causes)}; {told}" if causes else told)


def latency(service: Mapping[str, Any]) -> str:
    """Return the latency in milliseconds, or a dash."""
    seconds = service["latency_seconds"]
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"


def canary(service: Mapping[str, Any]) -> str:
    """Return the result of the last canary in a word, or a dash."""
    return {None: "-", True: "good", False: "bad"}[service["canary"]["up"]]


def counts(summary: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return each status that any service has, with its number: ``("healthy", "4 healthy")``."""
    return [(status, f"{count} {status}") for status, count in summary.items() if count and status != "total"]
