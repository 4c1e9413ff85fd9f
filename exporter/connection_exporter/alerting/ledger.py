"""Decides which alerts are open. No clock and no I/O.

An alert starts when a service is disconnected and no dependency explains it. From then on it continues until its own
service is healthy, whatever happens to its dependencies.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from math import inf
from typing import Any, Final, NamedTuple

from connection_exporter.core.health import Status

RESEND_EVERY: Final = 30.0
"""Seconds after which an open alert is sent again."""

LEASE: Final = 3 * RESEND_EVERY
"""Seconds for which Alertmanager keeps an alert that is not sent again (``endsAt``)."""

RESOLVED_FOR: Final = 300.0
"""Seconds for which the end of an alert is sent again, for an Alertmanager that was restarted or had it inhibited."""

UNDELIVERED_FOR: Final = 86_400.0
"""Seconds for which the end of an alert is kept for an Alertmanager that cannot be reached."""

ALERT_NAME: Final = "ConnectionDown"
SOURCE: Final = "connection-exporter"


class Alert(NamedTuple):
    """An alert that is open, or that ended at ``ended_at``. Times are in seconds since the epoch."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    started_at: float
    ended_at: float | None = None

    def as_json(self, now: float, generator_url: str, *, skew: float = 0.0) -> dict[str, Any]:
        """Return the alert as ``POST /api/v2/alerts`` takes it. An open alert is a lease: it always has an end.

        ``skew`` is the number of seconds by which Alertmanager's clock is ahead of ours; all times are in its clock.
        """
        ends_at = max(now, self.started_at) + LEASE if self.ended_at is None else self.ended_at
        return {
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
            "startsAt": _rfc3339(self.started_at + skew),
            "endsAt": _rfc3339(ends_at + skew),
            "generatorURL": generator_url,
        }


class Ledger:
    """The alerts that are open, and those whose end is still to be sent, by service."""

    def __init__(self) -> None:
        self._alerts: dict[str, Alert] = {}

    def starts(self, name: str, status: Status, *, has_cause: bool) -> bool:
        """Return whether an alert for the service has to start now."""
        return status is Status.DISCONNECTED and not has_cause and not self.is_open(name)

    def is_open(self, name: str) -> bool:
        """Return whether the alert of a service is open."""
        known = self._alerts.get(name)
        return known is not None and known.ended_at is None

    def open(self, name: str, alert: Alert) -> None:
        """Start an alert, in place of one that has ended."""
        self._alerts[name] = alert

    def describe(self, name: str, annotations: Mapping[str, str]) -> bool:
        """Give an open alert another text, and return whether it has changed. Its labels are its identity and stay."""
        known = self._alerts[name]
        self._alerts[name] = known._replace(annotations=annotations)
        return annotations != known.annotations

    def close(self, name: str, now: float) -> None:
        """End an open alert: its service is healthy, or is no longer monitored."""
        known = self._alerts[name]
        self._alerts[name] = known._replace(ended_at=max(now, known.started_at))

    def started_at(self, name: str) -> float:
        """Return when an open alert started."""
        return self._alerts[name].started_at

    def names(self) -> list[str]:
        """Return the services whose alerts are open."""
        return [name for name in self._alerts if self.is_open(name)]

    def to_send(
        self, now: float, names: Iterable[str] | None = None, *, undelivered_since: float = inf
    ) -> list[Alert]:
        """Return the open alerts, and those that ended recently or since a time; all, or those of ``names``."""
        ended_since = min(now - RESOLVED_FOR, undelivered_since)
        wanted = self._alerts if names is None else [name for name in names if name in self._alerts]
        alerts = [self._alerts[name] for name in wanted]
        return [alert for alert in alerts if alert.ended_at is None or alert.ended_at >= ended_since]

    def forget(self, now: float, *, undelivered_since: float = inf) -> None:
        """Forget alerts whose end no longer has to be sent."""
        ended_since = max(min(now - RESOLVED_FOR, undelivered_since), now - UNDELIVERED_FOR)
        for name, alert in list(self._alerts.items()):
            if alert.ended_at is not None and alert.ended_at < ended_since:
                del self._alerts[name]


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
