"""Owns a config as it may be shown: what is in force, defaults filled in, and every secret hidden.

What may be a secret without being declared as one is hidden as well: the query of a URL's path and the
body of a request, where keys of APIs are often put.
"""

from typing import Any, Final

from exporter.config.load import Config
from exporter.config.service import ServiceConfig

HIDDEN: Final = "**********"
"""As pydantic shows a secret."""


def shown(config: Config) -> dict[str, Any]:
    """Return the config as plain values, such as stand in a file."""
    return {"services": {name: _service(service) for name, service in config.services.items()}}


def _service(service: ServiceConfig) -> dict[str, Any]:
    values: dict[str, Any] = _without_none(service.model_dump(mode="json", by_alias=True))
    if isinstance(path := values.get("path"), str) and "?" in path:
        values["path"] = f"{path.partition('?')[0]}?{HIDDEN}"
    if "body" in values:
        values["body"] = HIDDEN
    kind = values.pop("kind")
    return {"kind": kind, **values}


def _without_none(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_none(value) for key, value in values.items() if value is not None}
    if isinstance(values, list):
        return [_without_none(value) for value in values]
    return values
