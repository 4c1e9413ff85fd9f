"""Writes the labels and the text of an alert: what, since when, why, who is affected, what to do, where to look."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from connection_exporter.alerting.ledger import ALERT_NAME, SOURCE
from connection_exporter.monitor.board import Board
from connection_exporter.monitor.record import Record

AFFECTED_SHOWN: Final = 20
"""Names of services in one text."""


def labels_of(record: Record, instance: str) -> dict[str, str]:
    """Return the labels of a service's alert, which are its identity."""
    group = record.service.about.group
    return {
        "alertname": ALERT_NAME,
        "source": SOURCE,
        "name": record.name,
        "kind": record.service.kind,
        **({"group": group} if group else {}),
        "severity": "critical" if record.service.policy.critical else "warning",
        "instance": instance,
    }


def annotations_of(board: Board, record: Record, *, since: float, external_url: str) -> dict[str, str]:
    """Return the annotations of a service's alert, as the rules have them. The board has redacted the message."""
    about, trouble = record.service.about, record.trouble
    affected, others = affected_by(board, record.name)
    reason = trouble.reason.value if trouble.reason else None
    why = ": ".join(text for text in (reason, trouble.message) if text)
    sentences = [
        f"{record.name} ({record.service.kind}{_where(record.service.address)}) is disconnected"
        f" since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S} UTC{f': {why}' if why else ''}.",
        f"Affected: {_listed(affected)}." if affected else "",
        f"{'Also depend' if affected else 'Depend'} on it: {_listed(others)}." if others else "",
        about.description or "",
        *(f"{name}: {url}" for name, url in about.links.items()),
    ]
    return {
        "summary": "A service is disconnected.",
        "description": " ".join(filter(None, sentences)),
        "action": "Check that it runs, is reachable and accepts our login.",
        "runbook_url": about.links.get("runbook", external_url),
        "dashboard_url": external_url,
        "since": f"{datetime.fromtimestamp(since, UTC):%Y-%m-%dT%H:%M:%SZ}",
        **({"reason": reason} if reason else {}),
        **({"message": trouble.message} if trouble.message else {}),
        **({"affected": ", ".join(affected)} if affected else {}),
        **{
            f"link_{name}": url for name, url in about.links.items() if name.isascii() and name.isidentifier()
        },
    }


def affected_by(board: Board, name: str) -> tuple[list[str], list[str]]:
    """Return the services that depend on one: those that fail because of it, and the others."""
    affected: list[str] = []
    others: list[str] = []
    for dependent in board.graph.dependents(name):
        if dependent in board:
            (affected if board.graph.is_caused_by(dependent, name) else others).append(dependent)
    return affected, others


def _where(address: str) -> str:
    """Return the address as part of a sentence; services of some kinds have none, which is a dash."""
    return "" if address == "-" else f" at {address}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:AFFECTED_SHOWN])
    return f"{shown} and {len(names) - AFFECTED_SHOWN} more" if len(names) > AFFECTED_SHOWN else shown
