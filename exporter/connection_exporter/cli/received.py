"""Checks what `watch` has received before it is drawn: the other end may not be an exporter, or may be hostile."""

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any


def check_overall(overall: Mapping[str, Any]) -> None:
    """Raise TypeError, LookupError or AttributeError unless this is what an exporter says of all services together."""
    _require(str, overall["status"], *overall["summary"])
    _require(int, *overall["summary"].values())


def check_service(service: Mapping[str, Any]) -> None:
    """Raise TypeError, LookupError or AttributeError unless this is what an exporter says of one service."""
    _require(str, service["name"], service["kind"], service["status"], *service.get("causes", ()))
    _require(str | None, service["reason"], service["message"])
    _require(int, service["retry_count"])
    _require(int | float | None, service["latency_seconds"])
    _require(bool | None, service["critical"], service["canary"]["up"])
    _require_times(service["status_since"])
    _require_times(*(service[key] for key in ("next_attempt", "last_check") if service[key] is not None))


def check_transition(transition: Mapping[str, Any]) -> None:
    """Raise TypeError, LookupError or AttributeError unless this is a transition."""
    _require(str, *(transition[key] for key in ("name", "from", "to")))
    _require(str | None, transition["reason"], transition["message"])
    _require_times(transition["at"])


def _require(kind: Any, *values: object) -> None:
    if not all(isinstance(value, kind) for value in values):
        raise TypeError


def _require_times(*values: Any) -> None:
    try:
        _require(tzinfo, *(datetime.fromisoformat(value).tzinfo for value in values))
    except ValueError as error:
        raise TypeError from error
